"""One region's part in serving a zone's inboxes: a lease whose term is the generation of the inboxes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

from acgs2.consensus import Lease, Register, boottime_s
from acgs2.consensus.lease import MARGIN
from acgs2.errors import UnavailableError
from acgs2.logs.write import get_logger
from acgs2.plan.inboxes import patience_s, successor

__all__ = ["Seat", "not_served"]

_LOG = get_logger("acgs2.inboxes")
_RENEWALS = 3
_GOODBYE_S = 1.0
_LEAST_S = 0.02
#: How often a region that waits for its turn looks at least, in parts of a lease.
_LOOKS = 3


class Seat:
    """Contends for a zone's inboxes, in its place in the order, and serves them while it holds the lease.

    Args:
        register: where it is agreed.
        zone: whose inboxes.
        region: this one.
        length_s: how long a grant lasts; the same in every region.
        candidates: the regions that may serve, in order, asked anew every time.
        fit: whether it can serve now; what it has it gives up while it cannot.
        record: notes generation and whether it serves in the database, before anything is given in it.
        clock_s: CLOCK_BOOTTIME, or what a test gives.
        rng: for what spreads contenders.
    """

    def __init__(
        self,
        register: Register,
        zone: str,
        region: str,
        length_s: float,
        *,
        candidates: Callable[[], Sequence[str]],
        fit: Callable[[], bool],
        record: Callable[[str, int, bool], Awaitable[bool]],
        clock_s: Callable[[], float] = boottime_s,
        rng: Random | None = None,
    ) -> None:
        self.zone = zone
        self._region = region
        self._length_s = length_s
        self._lease = Lease(register, f"inbox/{zone}", region, length_s, clock_s)
        self._candidates = candidates
        self._fit = fit
        self._record = record
        self._clock_s = clock_s
        self._rng = rng or Random()
        self._recorded: int | None = None
        self._seen: tuple[Any, float] = (None, clock_s())
        #: When what is watched may be taken.
        self._due_s = float("inf")
        #: While it is handed over nothing is given out any more.
        self._leaving = False
        #: A renewal that is under way while the lease is released would take it back, or believe to have it.
        self._turn = asyncio.Lock()

    def serving(self) -> int | None:
        """Return the generation in which this region serves the zone now, None if it does not.

        Ask before every act, and again before its effect is told.
        """
        if self._leaving or not self._fit() or not self._lease.held() or self._recorded != self._lease.term:
            return None
        return self._lease.term

    def known(self) -> tuple[str | None, int]:
        """Return which region serves as far as is known here, if any, and the latest generation known."""
        region, term = self._lease.holder()
        return (None if region == self._region and self.serving() is None else region), term

    async def step(self) -> None:
        """Renew, take what may be taken, or watch; without a majority nothing changes."""
        async with self._turn:
            await self._step()

    async def _step(self) -> None:
        candidates = self._candidates()
        self._due_s = float("inf")
        if not self._fit() or self._region not in candidates:
            await self._give_up()
            await self._lease.watch()
        elif self._lease.held():
            await self._lease.step()
        else:
            seen = await self._lease.watch()
            if seen is not None and self._may_take(seen.value, candidates):
                await self._lease.step()
        await self._note()

    def _may_take(self, value: Any, candidates: Sequence[str]) -> bool:
        now_s = self._clock_s()
        if value != self._seen[0]:
            self._seen = (value, now_s)
        lapse_s = MARGIN * self._length_s
        waits_s = patience_s(value, self._region, candidates, self._length_s, lapse_s)
        self._due_s = self._seen[1] + waits_s
        return self._lease.own(value) or now_s >= self._due_s

    async def _note(self) -> None:
        """Tell the database what changed; until it knows, nothing is given."""
        term = self._lease.term
        if self._lease.held() and self._recorded != term:
            if await self._record(self.zone, term, True):
                self._recorded = term
                _LOG.warning("serving-inboxes", zone=self.zone, generation=term)
        elif not self._lease.held() and self._recorded is not None:
            recorded, self._recorded = self._recorded, None
            await self._record(self.zone, recorded, False)
            _LOG.warning("not-serving-inboxes", zone=self.zone, generation=recorded)

    async def hand_over(self, to: str, before: Callable[[], Awaitable[None]]) -> None:
        """Give the inboxes to another region, after what it needs has been done.

        Raises:
            UnavailableError: it is not held any more (`inbox-not-served`), or no majority; what is held then
                lapses by itself.
        """
        self._leaving = True
        try:
            await before()
            async with self._turn:
                if not self._lease.held():
                    raise not_served(self.zone)
                await self._lease.release(to)
                await self._note()
        finally:
            self._leaving = False

    async def run(self) -> None:
        """Step until cancelled, and give up then, so that nobody has to wait for a lease to lapse."""
        try:
            while True:
                began_s = self._clock_s()
                await self.step()
                await asyncio.sleep(self._rest_s(began_s))
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._give_up()

    async def _give_up(self) -> None:
        if self._lease.held():
            with contextlib.suppress(UnavailableError):  # then it lapses by itself
                await self._lease.release(successor(self._region, self._candidates()))

    def _rest_s(self, began_s: float) -> float:
        rest_s = self._length_s / (_RENEWALS if self._lease.held() else _LOOKS)
        rest_s *= self._rng.uniform(0.9, 1.0)
        now_s = self._clock_s()
        return max(min(began_s + rest_s, max(self._due_s, now_s + _LEAST_S)) - now_s, 0.0)


def not_served(zone: str) -> UnavailableError:
    """Return what is said where nobody is known to serve a zone's inboxes."""
    return UnavailableError(
        "inbox-not-served",
        f"This region does not serve the inboxes of zone {zone} now, and does not know who does.",
        hint="Try again in a moment; nothing was given.",
        zone=zone,
    )
