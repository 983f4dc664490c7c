"""A register that a majority agrees on: read and changed by compare-and-set, by any region, without a leader."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeVar

from acgs2.consensus.votes import Ballot, Vote, highest, majority
from acgs2.errors import UnavailableError

__all__ = ["Acceptor", "Answer", "PaxosRegister", "Promise", "Register", "VoterAway", "Versioned"]

T = TypeVar("T")
Decide = Callable[[Any], Any]


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
        voters: every voter by name; a majority of them decides.
        me: the name in ballots; no two proposers that live at the same time may share it.
        timeout_s: how long a voter is waited for.
        rng: for the pauses after a lost race.
    """

    def __init__(
        self, voters: Mapping[str, Acceptor], me: str, *, timeout_s: float = 2.0, rng: Random | None = None
    ) -> None:
        self._voters = dict(voters)
        self._me = me
        self._timeout_s = timeout_s
        self._rng = rng or Random()
        self._highest: dict[str, int] = {}

    async def read(self, key: str) -> Versioned:
        """Return the agreed value, agreed once more: a value that only a minority has is settled by this."""
        return await self.change(key, lambda value: value)

    async def change(self, key: str, decide: Decide) -> Versioned:
        """Change a value by compare-and-set; see `Register`."""
        answered = 0
        for attempt in range(12):
            if attempt:
                await asyncio.sleep(self._rng.uniform(0.2, 1) * min(0.01 * 2**attempt, 0.5))
            ballot = Ballot(self._highest.get(key, 0) + 1, self._me)
            self._highest[key] = ballot.n
            promises = await self._ask(lambda voter, b=ballot: voter.prepare(key, b))
            answered = len(promises)
            self._learn(key, [p.vote.promised for p in promises.values()])
            given = {name: p for name, p in promises.items() if p.ok}
            if answered < majority(len(self._voters)):
                if attempt >= 2:
                    break
                continue
            if len(given) < majority(len(self._voters)):
                continue
            stored = highest(p.vote for p in given.values()).value or {"version": 0, "value": None}
            old = Versioned(stored["version"], stored["value"])
            value = decide(old.value)
            new = old if value == old.value else Versioned(old.version + 1, value)
            body = {"version": new.version, "value": new.value}
            answers = await self._ask(
                lambda voter, name, b=ballot, v=body: voter.accept(key, b, v, given[name].life), of=given
            )
            self._learn(key, [a.promised for a in answers.values()])
            if sum(a.ok for a in answers.values()) >= majority(len(self._voters)):
                return new
        if answered < majority(len(self._voters)):
            raise UnavailableError(
                "no-majority",
                f"{answered} of {len(self._voters)} voters answer; {majority(len(self._voters))} must agree.",
                hint="Wait until more regions are connected.",
                key=key,
            )
        raise UnavailableError(
            "contended", f"Others kept changing {key}.", hint="Try again in a moment.", key=key
        )

    def _learn(self, key: str, ballots: list[Ballot | None]) -> None:
        self._highest[key] = max([self._highest.get(key, 0), *(b.n for b in ballots if b is not None)])

    async def _ask(
        self, call: Callable[..., Awaitable[T]], of: Mapping[str, Any] | None = None
    ) -> dict[str, T]:
        """Ask voters at once; return the answers of those that gave one in time, as soon as all or a majority did."""
        names = list(self._voters if of is None else of)

        async def one(name: str) -> T:
            async with asyncio.timeout(self._timeout_s):
                return await (call(self._voters[name]) if of is None else call(self._voters[name], name))

        tasks = {asyncio.create_task(one(name)): name for name in names}
        answers: dict[str, T] = {}
        pending = set(tasks)
        try:
            while pending and sum(_good(a) for a in answers.values()) < majority(len(self._voters)):
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


def _good(answer: Any) -> bool:
    return bool(answer.ok)
