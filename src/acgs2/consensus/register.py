"""A register that a majority agrees on: read and changed by compare-and-set, by anyone, without a leader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeVar

from acgs2.consensus.votes import Ballot, Vote, highest, majority, settled
from acgs2.errors import UnavailableError

__all__ = ["Acceptor", "Answer", "PaxosRegister", "Promise", "Register", "Versioned", "VoterAway"]

T = TypeVar("T")
Decide = Callable[[Any], Any]
_ROUNDS = 12
#: How many rounds without a majority are tried before it is said.
_ROUNDS_ALONE = 3
#: How often a reader looks again at a change that is under way before it settles it.
_LOOKS = 2


class VoterAway(Exception):
    """A voter did not answer, or may not vote; what it did with the request is not known."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """An agreed value, None where nothing was ever agreed, and how often it has changed."""

    version: int
    value: Any


@dataclass(frozen=True, slots=True)
class Promise:
    """A voter's answer to a prepare: in which life it answers, whether it promises, what it remembers."""

    life: str
    ok: bool
    vote: Vote


@dataclass(frozen=True, slots=True)
class Answer:
    """A voter's answer to an accept."""

    ok: bool
    promised: Ballot | None


class Acceptor(Protocol):
    """One voter."""

    async def look(self, key: str) -> Vote:
        """Return what it remembers, without a promise; raises VoterAway."""
        ...

    async def prepare(self, key: str, ballot: Ballot) -> Promise:
        """Ask for a promise; raises VoterAway."""
        ...

    async def accept(self, key: str, ballot: Ballot, value: Any, life: str) -> Answer:
        """Ask to accept on a promise made in a life; raises VoterAway."""
        ...


class Register(Protocol):
    """Agreed values by key."""

    async def change(self, key: str, decide: Decide) -> Versioned:
        """Change a value and return what is agreed then.

        Args:
            key: of the value.
            decide: from the agreed value, None where there is none, to the new one; the same one leaves
                it as it is. May be called more than once; must not have effects.

        Raises:
            UnavailableError: no majority answers (`no-majority`), or others kept changing it (`contended`);
                the change may yet come about.
        """
        ...

    async def read(self, key: str) -> Versioned:
        """Return the agreed value; raises as `change` does."""
        ...


class PaxosRegister:
    """The register over voters.

    Args:
        voters: every voter that can be reached from here, by name.
        me: the name in ballots; no two proposers that live at the same time may share it.
        size: how many voters there are altogether; a majority of them decides. Default: those of `voters`.
        timeout_s: how long a voter is waited for.
        rng: for the pauses after a lost race.
    """

    def __init__(
        self,
        voters: Mapping[str, Acceptor],
        me: str,
        *,
        size: int | None = None,
        timeout_s: float = 2.0,
        rng: Random | None = None,
    ) -> None:
        self._voters = dict(voters)
        self._me = me
        self._size = size or len(self._voters)
        self._enough = majority(self._size)
        self._timeout_s = timeout_s
        self._rng = rng or Random()
        self._highest: dict[str, int] = {}

    async def read(self, key: str) -> Versioned:
        """Return the agreed value, settling first what only a minority has.

        Most often a majority has accepted the same ballot last, and looking is enough: nothing is written, no
        change of another is disturbed. What was agreed before the reading began is then not newer.
        """
        for attempt in range(_LOOKS):
            if attempt:
                await asyncio.sleep(self._rng.uniform(0.05, 0.15))
            seen = await self._look(key)
            if seen is not None:
                return Versioned(seen.value["version"], seen.value["value"])
        return await self.change(key, lambda value: value)

    async def change(self, key: str, decide: Decide) -> Versioned:
        """Change a value by compare-and-set; see `Register`."""
        alone = 0
        for attempt in range(_ROUNDS):
            if attempt:
                await asyncio.sleep(self._rng.uniform(0.2, 1) * min(0.01 * 2**attempt, 0.5))
            ballot = Ballot(self._highest.get(key, 0) + 1, self._me)
            self._highest[key] = ballot.n
            promises = await self._ask({name: v.prepare(key, ballot) for name, v in self._voters.items()})
            self._learn(key, [p.vote.promised for p in promises.values()])
            if len(promises) < self._enough:
                alone += 1
                if alone == _ROUNDS_ALONE:
                    raise _no_majority(key, len(promises), self._size, self._enough)
                continue
            given = {name: p for name, p in promises.items() if p.ok}
            if len(given) >= self._enough:
                agreed = await self._propose(key, ballot, given, decide)
                if agreed is not None:
                    return agreed
        raise UnavailableError(
            "contended", f"Others kept changing {key}.", hint="Try again in a moment.", key=key
        )

    async def _propose(
        self, key: str, ballot: Ballot, given: Mapping[str, Promise], decide: Decide
    ) -> Versioned | None:
        """Have the changed value accepted by those who promised; None if too few did."""
        stored = highest(p.vote for p in given.values()).value or {"version": 0, "value": None}
        value = decide(stored["value"])
        changed = value != stored["value"]
        new = {"version": stored["version"] + changed, "value": value}
        answers = await self._ask(
            {name: self._voters[name].accept(key, ballot, new, p.life) for name, p in given.items()}
        )
        self._learn(key, [a.promised for a in answers.values()])
        if sum(a.ok for a in answers.values()) < self._enough:
            return None
        return Versioned(new["version"], new["value"])

    async def _look(self, key: str) -> Vote | None:
        """Return the vote that a majority shows, if one does."""
        seen: dict[str, Vote] = {}

        async def one(name: str, voter: Acceptor) -> Answer:
            seen[name] = await voter.look(key)
            return Answer(settled(seen.values(), self._enough) is not None, seen[name].promised)

        calls = {name: one(name, voter) for name, voter in self._voters.items()}
        # A voter that is late would be asked better in a round, which a majority is enough for.
        await self._ask(calls, enough=1, timeout_s=self._timeout_s / 4)
        return settled(seen.values(), self._enough)

    def _learn(self, key: str, ballots: list[Ballot | None]) -> None:
        self._highest[key] = max([self._highest.get(key, 0), *(b.n for b in ballots if b is not None)])

    async def _ask(
        self,
        calls: Mapping[str, Coroutine[Any, Any, T]],
        enough: int | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, T]:
        """Return the answers that came in time, as soon as a majority said yes or all have answered."""
        enough = enough or self._enough

        async def one(call: Coroutine[Any, Any, T]) -> T:
            async with asyncio.timeout(timeout_s or self._timeout_s):
                return await call

        tasks = {asyncio.create_task(one(call)): name for name, call in calls.items()}
        answers: dict[str, T] = {}
        pending = set(tasks)
        try:
            while pending and sum(bool(getattr(a, "ok", False)) for a in answers.values()) < enough:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    error = task.exception()
                    if error is None:
                        answers[tasks[task]] = task.result()
                    elif not isinstance(error, VoterAway | TimeoutError):
                        raise error
        finally:
            for task in pending:
                task.cancel()
        return answers


def _no_majority(key: str, answered: int, size: int, enough: int) -> UnavailableError:
    return UnavailableError(
        "no-majority",
        f"{answered} of {size} voters answer; {enough} must agree.",
        hint="Wait until more regions are connected.",
        key=key,
    )
