"""A register that a majority agrees on: read and changed by compare-and-set, by anyone, without a leader."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeVar

from acgs2.consensus.votes import Ballot, Members, Sighted, Vote, highest, joins
from acgs2.errors import UnavailableError

__all__ = ["Acceptor", "Answer", "PaxosRegister", "Promise", "Register", "Versioned", "VoterAway"]

T = TypeVar("T")
Decide = Callable[[Any], Any]
_ROUNDS = 12
#: How many rounds without a majority are tried before it is said.
_ROUNDS_ALONE = 3
#: After how long a reader looks again at a change that is under way; and after what part of the time that its
#: look took: where votes are far apart, a change that is seen to stand still may just be on its way.
_AGAIN_S, _AGAIN_LOOKS = (0.03, 0.12), (0.5, 1.0)
#: A proposer that lost a race rests for a part of so many of its rounds, at least and at most so long: who is
#: far away needs longer for a round, and after a pause shorter than that the next one is lost as well.
_REST_ROUNDS, _LEAST_REST_S, _MOST_REST_S = 4, 0.02, 1.0


class VoterAway(Exception):
    """A voter did not answer, or may not vote; what it did with the request is not known."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """An agreed value, None where nothing was ever agreed, and how often it has changed."""

    version: int
    value: Any


@dataclass(frozen=True, slots=True)
class Promise:
    """A voter's answer to a prepare: in which life, whether it promises, what it remembers, who votes."""

    life: str
    ok: bool
    vote: Vote
    members: Members


@dataclass(frozen=True, slots=True)
class Answer:
    """A voter's answer to an accept."""

    ok: bool
    promised: Ballot | None
    members: Members


class Acceptor(Protocol):
    """One voter. Every call names who votes; a voter that knows a newer set refuses and tells it."""

    async def look(self, key: str) -> tuple[Vote, Members]:
        """Return what it remembers, without a promise, and who votes; raises VoterAway."""
        ...

    async def prepare(self, key: str, ballot: Ballot, members: Members) -> Promise:
        """Ask for a promise; raises VoterAway."""
        ...

    async def accept(self, key: str, ballot: Ballot, value: Any, life: str, members: Members) -> Answer:
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
        voters: every region that may vote and can be reached from here, by name.
        me: the name in ballots; no two proposers that live at the same time may share it.
        names: who votes, as far as is known here; voters that know better say so. Default: all of `voters`.
        timeout_s: how long a voter is waited for.
        rng: for the pauses after a lost race.
    """

    def __init__(
        self,
        voters: Mapping[str, Acceptor],
        me: str,
        *,
        names: Iterable[str] = (),
        timeout_s: float = 2.0,
        rng: Random | None = None,
    ) -> None:
        self._voters = dict(voters)
        self._me = me
        self._timeout_s = timeout_s
        self._rng = rng or Random()
        self._highest: dict[str, int] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        #: What was asked and is not waited for; kept so that it is not forgotten half-way.
        self._late: set[asyncio.Task[Any]] = set()
        self.members = Members(0, tuple(sorted(names)) or tuple(sorted(self._voters)))

    def adopt(self, members: Members) -> bool:
        """Go by a set of voters from here on if it is newer; return whether it is."""
        newer = members.epoch > self.members.epoch
        if newer:
            self.members = members
        return newer

    async def read(self, key: str) -> Versioned:
        """Return the agreed value, settling first what was left half-way.

        Most often a majority has accepted the same ballot last, and looking is enough: nothing is written, no
        change of another is disturbed. What was agreed before the reading began is then not newer. A change
        that is under way is left to whoever makes it, for as long as it moves: a reader that settled it would
        be in its way, and in that of all others who read.
        """
        until_s = time.monotonic() + self._timeout_s
        before: Mapping[str, Vote] | None = None
        sighted, members = Sighted(), self.members
        while (began_s := time.monotonic()) < until_s:
            seen = await self._look(key)
            took_s = time.monotonic() - began_s
            if self.members != members:
                sighted, members = Sighted(), self.members
            vote = sighted.settled(seen, members.enough)
            if vote is not None:
                return Versioned(vote.value["version"], vote.value["value"])
            if seen == before:
                break
            before = seen
            await asyncio.sleep(self._rng.uniform(*_AGAIN_S) + took_s * self._rng.uniform(*_AGAIN_LOOKS))
        return await self.change(key, lambda value: value)

    async def change(self, key: str, decide: Decide) -> Versioned:
        """Change a value by compare-and-set; see `Register`."""
        async with self._turn(key):
            return await self._change(key, decide)

    async def rewrite(self, key: str) -> Versioned:
        """Have what is agreed accepted once more, under a ballot of its own, and return it.

        Never by looking: who asks wants those that accept to have met the set of voters that this proposer
        goes by, or to have what they missed. Raises as `change` does.
        """
        async with self._turn(key):
            return await self._change(key, lambda value: value, looking=False)

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[None]:
        """Let the changes of one proposer to one key follow each other: else their ballots refuse each other.

        Who has waited twice as long as a voter is waited for goes on at once; no turn is needed to be right.
        """
        turn = self._turns.setdefault(key, asyncio.Lock())
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                await turn.acquire()
        except TimeoutError:
            yield
            return
        try:
            yield
        finally:
            turn.release()

    async def _change(self, key: str, decide: Decide, *, looking: bool = True) -> Versioned:
        alone, attempt = 0, 0
        while attempt < _ROUNDS:
            if attempt and looking and (agreed := await self._as_wanted(key, decide)) is not None:
                return agreed
            began_s, members = time.monotonic(), self.members
            ballot = Ballot(self._highest.get(key, 0) + 1, self._me)
            self._highest[key] = ballot.n
            promises, late = await self._ask(
                {n: v.prepare(key, ballot, members) for n, v in self._reached(members).items()},
                members.enough,
            )
            self._learn(key, [p.vote.promised for p in promises.values()])
            newest = max((p.members for p in promises.values()), key=lambda m: m.epoch, default=members)
            if self.adopt(newest):
                continue
            given = {name: p for name, p in promises.items() if p.ok}
            if len(given) >= members.enough:
                agreed = await self._propose(key, ballot, given, late, decide, members)
                if agreed is not None:
                    return agreed
            elif len(promises) < members.enough:
                alone += 1
                if alone == _ROUNDS_ALONE:
                    raise _no_majority(key, len(promises), members)
            attempt += 1
            rest_s = (time.monotonic() - began_s) * min(attempt, _REST_ROUNDS)
            await asyncio.sleep(self._rng.uniform(0.2, 1) * min(max(rest_s, _LEAST_REST_S), _MOST_REST_S))
        raise UnavailableError(
            "contended", f"Others kept changing {key}.", hint="Try again in a moment.", key=key
        )

    async def _as_wanted(self, key: str, decide: Decide) -> Versioned | None:
        """Return what is agreed if a look tells, and it is as wanted: who lost a race may be content."""
        vote = Sighted().settled(await self._look(key), self.members.enough)
        if vote is None:
            return None
        agreed = Versioned(vote.value["version"], vote.value["value"])
        return agreed if decide(agreed.value) == agreed.value else None

    async def level(self, key: str) -> None:
        """See to it that every voter that answers has what is agreed, for one that was away when it was.

        Else it stays with a bare majority, and once one of those dies everyone who reads has to settle it
        first. For one caller at a time, now and then; nothing is done to what is being changed.

        Raises:
            UnavailableError: no majority answers, or others kept changing it.
        """
        voters = self._reached(self.members)
        seen, _ = await self._ask({name: v.look(key) for name, v in voters.items()}, len(voters) + 1)
        votes = {name: vote for name, (vote, _) in seen.items()}
        agreed = Sighted().settled(votes, self.members.enough)
        if agreed is None or agreed.accepted is None:
            return
        changing = any(v.promised is not None and v.promised > agreed.accepted for v in votes.values())
        if not changing and any(v.accepted != agreed.accepted for v in votes.values()):
            await self.rewrite(key)

    def _reached(self, members: Members) -> dict[str, Acceptor]:
        return {name: self._voters[name] for name in members.names if name in self._voters}

    async def _propose(
        self,
        key: str,
        ballot: Ballot,
        given: Mapping[str, Promise],
        late: Mapping[str, asyncio.Task[Promise]],
        decide: Decide,
        members: Members,
    ) -> Versioned | None:
        """Have the changed value accepted by those who promised; None if too few did.

        Who promises late is asked as well, and not waited for: whoever dies next, the value is still with a
        majority of the others.
        """
        base = highest(p.vote for p in given.values())
        stored = base.value or {"version": 0, "value": None}
        value = decide(stored["value"])
        changed = value != stored["value"]
        new = {"version": stored["version"] + changed, "value": value}

        async def follow(name: str, promise: asyncio.Task[Promise]) -> Answer:
            given_late = await promise
            if not given_late.ok or not joins(given_late.vote, base):
                raise VoterAway(name)
            return await self._voters[name].accept(key, ballot, new, given_late.life, members)

        answers, _ = await self._ask(
            {name: self._voters[name].accept(key, ballot, new, p.life, members) for name, p in given.items()}
            | {name: follow(name, promise) for name, promise in late.items()},
            members.enough,
        )
        self._learn(key, [a.promised for a in answers.values()])
        if sum(a.ok for a in answers.values()) < members.enough:
            for answer in answers.values():
                self.adopt(answer.members)
            return None
        return Versioned(new["version"], new["value"])

    async def _look(self, key: str) -> Mapping[str, Vote]:
        """Return the votes of who answers, at most until it can be told what is agreed."""
        members = self.members
        seen: dict[str, Vote] = {}

        async def one(name: str, voter: Acceptor) -> Answer:
            seen[name], known = await voter.look(key)
            shown = Sighted().settled(seen, members.enough) is not None
            return Answer(shown, seen[name].promised, known)

        calls = {name: one(name, voter) for name, voter in self._reached(members).items()}
        # A voter that is late would be asked better in a round, which a majority is enough for.
        answers, _ = await self._ask(calls, 1, self._timeout_s / 4)
        # Who has looked proposes above what was promised, and need not be refused to find that out.
        self._learn(key, [vote.promised for vote in seen.values()])
        newest = max((a.members for a in answers.values()), key=lambda m: m.epoch, default=members)
        return {} if self.adopt(newest) else dict(seen)

    def _learn(self, key: str, ballots: list[Ballot | None]) -> None:
        self._highest[key] = max([self._highest.get(key, 0), *(b.n for b in ballots if b is not None)])

    async def _ask(
        self, calls: Mapping[str, Coroutine[Any, Any, T]], enough: int, timeout_s: float | None = None
    ) -> tuple[dict[str, T], dict[str, asyncio.Task[T]]]:
        """Return the answers that came in time, as soon as a majority said yes or all have answered.

        What is not answered by then is returned as well, and goes on until its time is over.
        """

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
        except BaseException:
            for task in pending:
                task.cancel()
            raise
        for task in pending:
            self._late.add(task)
            task.add_done_callback(self._ended)
        return answers, {tasks[task]: task for task in pending}

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: nobody waits for it any more


def _no_majority(key: str, answered: int, members: Members) -> UnavailableError:
    return UnavailableError(
        "no-majority",
        f"{answered} of {len(members.names)} voters answer; {members.enough} must agree.",
        hint="Wait until more regions are connected.",
        key=key,
    )
