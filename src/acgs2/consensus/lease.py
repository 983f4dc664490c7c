"""A lease on a register: at most one holder believes itself to be one, whatever clocks and links do.

The holder counts its lease from before it asked for the renewal; whoever wants to take over has watched the
renewal counter stand still for 1.1 lease lengths by its own clock, counted from its own first look. Both use
CLOCK_BOOTTIME, which goes on while a process is frozen or a machine sleeps; no two clocks are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from acgs2.consensus.register import Register, Versioned
from acgs2.errors import UnavailableError

__all__ = ["Holding", "Lease", "boottime_s"]

#: How much longer than a lease a watcher waits: clocks may run at rates that differ by a tenth.
MARGIN = 1.1
Seen = tuple[Any, int, int]


def boottime_s() -> float:
    """Return the seconds since boot, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Holding:
    """What one contender knows: its term and until when it holds, and what it has watched since when.

    `asked` is the last term that it asked for. If that is what it finds agreed, it has been given it, though
    it was not told: a ballot that was refused may have been completed by another's. It renews it then, which
    whoever watches sees. Pure, so that every interleaving of two contenders can be tried.
    """

    me: str
    length_s: float
    term: int = 0
    until_s: float = float("-inf")
    watched: tuple[Seen, float] | None = None
    asked: int = 0

    @property
    def mine(self) -> bool:
        """Return whether the last that is known of the register is a grant to this contender."""
        return self.until_s > float("-inf")

    def lapses_s(self) -> float:
        """Return when, by its own clock, this contender may take over what it watches, if anything."""
        return self.watched[1] + MARGIN * self.length_s if self.watched is not None else float("inf")

    def own(self, value: Any) -> bool:
        """Return whether a value is a grant to this contender, told or not."""
        granted = {self.term, self.asked} - {0}
        return value is not None and value["holder"] == self.me and value["term"] in granted

    def wanted(self, value: Any, now_s: float) -> Any:
        """Return the value that the register should have: renewed, taken, or as it is."""
        if value is None:
            return {"holder": self.me, "term": 1, "count": 0}
        if self.own(value):
            return {**value, "count": value["count"] + 1}
        if value["holder"] is None or self._lapsed(value, now_s):
            return {"holder": self.me, "term": value["term"] + 1, "count": value["count"] + 1}
        return value

    def asking(self, new: Any) -> Holding:
        """Return what is known once a value is asked for that was wanted."""
        return replace(self, asked=new["term"])

    def agreed(self, old: Any, new: Any, began_s: float, now_s: float) -> Holding:
        """Return what is known after the register agreed on `new` in place of `old`.

        A grant counts from when it was asked for: nobody can have begun to watch it earlier.
        """
        if new is not old and new["holder"] == self.me:
            return replace(self, term=new["term"], until_s=began_s + self.length_s, watched=None)
        seen = _seen(new)
        if self.watched is not None and self.watched[0] == seen:
            return replace(self, until_s=float("-inf"))
        return replace(self, until_s=float("-inf"), watched=(seen, now_s))

    def _lapsed(self, value: Any, now_s: float) -> bool:
        return self.watched is not None and self.watched[0] == _seen(value) and now_s >= self.lapses_s()


def _seen(value: Any) -> Seen:
    return (value["holder"], value["term"], value["count"])


class Lease:
    """One thing that one holder at a time may do, such as serving a zone or leading.

    Args:
        register: where it is agreed.
        key: the register's key.
        me: who would hold it.
        length_s: how long a grant lasts without renewal; the same for all who share the key.
        clock_s: CLOCK_BOOTTIME, or what a test gives.
    """

    def __init__(
        self,
        register: Register,
        key: str,
        me: str,
        length_s: float,
        clock_s: Callable[[], float] = boottime_s,
    ) -> None:
        self._register = register
        self._key = key
        self._clock_s = clock_s
        self._holding = Holding(me, length_s)

    @property
    def term(self) -> int:
        """Return the term of the last grant, 0 before the first; terms only rise."""
        return self._holding.term

    def held(self) -> bool:
        """Return whether it is held now; ask before every act, and again before its effect is told."""
        return self._clock_s() < self._holding.until_s

    def holder(self) -> tuple[str | None, int]:
        """Return who holds it as far as is known here, if anybody, and the latest term known."""
        known, now_s = self._holding, self._clock_s()
        if known.watched is None:
            return (known.me if now_s < known.until_s else None), known.term
        (holder, term, _), _ = known.watched
        return (holder if now_s < known.lapses_s() else None), term

    def own(self, value: Any) -> bool:
        """Return whether what is agreed is a grant to this contender, whether or not it was told of it."""
        return self._holding.own(value)

    def lapses_in_s(self) -> float:
        """Return in how many seconds it may be taken over from whoever holds it, if it is not renewed."""
        return self._holding.lapses_s() - self._clock_s()

    async def step(self) -> bool:
        """Renew it, or take it when nobody has renewed it for long enough; return whether it is held.

        Without a majority nothing changes: what is held runs out by itself. One who does not hold it reads,
        and changes only what may be taken.
        """
        if not self._holding.mine and self._clock_s() < self._holding.lapses_s():
            seen = await self.watch()
            if seen is None or self._holding.wanted(seen.value, self._clock_s()) == seen.value:
                return False
        began_s = self._clock_s()
        last: tuple[Any, Any] = (None, None)

        def decide(value: Any) -> Any:
            nonlocal last
            last = (value, self._holding.wanted(value, self._clock_s()))
            if last[1] is not value:
                self._holding = self._holding.asking(last[1])
            return last[1]

        try:
            await self._register.change(self._key, decide)
        except UnavailableError:
            return self.held()
        self._holding = self._holding.agreed(*last, began_s, self._clock_s())
        return self.held()

    async def watch(self) -> Versioned | None:
        """Look who holds it, without taking it; return what is agreed, None without a majority."""
        try:
            seen = await self._register.read(self._key)
        except UnavailableError:
            return None
        if seen.value is not None:
            self._holding = self._holding.agreed(seen.value, seen.value, self._clock_s(), self._clock_s())
        return seen

    async def release(self, to: str | None = None) -> None:
        """Give it up at once, so that another need not wait; raises UnavailableError.

        Args:
            to: who shall have it next; noted for whoever asks who may take it.
        """
        mine = self._holding
        self._holding = replace(mine, until_s=float("-inf"))

        def decide(value: Any) -> Any:
            if value is None or (value["holder"], value["term"]) != (mine.me, mine.term):
                return value
            named = {"next": to} if to is not None else {}
            return {**value, "holder": None, "count": value["count"] + 1, **named}

        await self._register.change(self._key, decide)
