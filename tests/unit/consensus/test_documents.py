"""Agreed documents and their pointer: broken off at every single message, and gone on with by another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acgs2.consensus.documents import KINDS, POINTER, Document, Documents, digest_of
from acgs2.consensus.register import Answer, PaxosRegister, Promise, VoterAway
from acgs2.consensus.votes import Ballot, Members, Vote, accept, prepare
from acgs2.errors import ConflictError, RuntimeFault

NAMES = ("a", "b", "c")
MEMBERS = Members(0, NAMES)
FIRST: Mapping[str, Any] = {"constitution": {"id": "x"}, "policies": {"text": ""}, "halts": []}


class Killed(Exception):
    """The proposer died."""


class World:
    """Voters' memories, and how many more messages the proposer lives for."""

    def __init__(self) -> None:
        self.votes: dict[tuple[str, str], Vote] = {}
        self.sent = 0
        self.dies_at: int | None = None
        self.delivers_last = False
        self.away: set[str] = set()

    def documents(self, me: str) -> Documents:
        return Documents(PaxosRegister({n: Voter(self, n) for n in NAMES}, me, rng=Random(me)))

    def message(self, voter: str, deliver: Callable[[], Any]) -> Any:
        if self.dies_at is not None and self.sent >= self.dies_at:
            if self.sent == self.dies_at and self.delivers_last:
                deliver()
            self.sent += 1
            raise Killed
        self.sent += 1
        if voter in self.away:
            raise VoterAway(voter)
        return deliver()


class Voter:
    """A voter by the product's own rules, in memory."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name

    def _vote(self, key: str) -> Vote:
        return self._world.votes.get((self._name, key), Vote())

    async def look(self, key: str) -> tuple[Vote, Members]:
        return self._world.message(self._name, lambda: (self._vote(key), MEMBERS))

    async def prepare(self, key: str, ballot: Ballot, members: Members) -> Promise:
        def deliver() -> Promise:
            self._world.votes[self._name, key], ok = prepare(self._vote(key), ballot)
            return Promise("life", ok, self._vote(key), MEMBERS)

        return self._world.message(self._name, deliver)

    async def accept(self, key: str, ballot: Ballot, value: Any, life: str, members: Members) -> Answer:
        def deliver() -> Answer:
            self._world.votes[self._name, key], ok = accept(self._vote(key), ballot, value)
            return Answer(ok, self._vote(key).promised, MEMBERS)

        return self._world.message(self._name, deliver)


def adding(name: str) -> Callable[[Document | None], Any]:
    """Return a change of a list that knows its own effect."""
    return lambda now: now.content if now and name in now.content else [*(now.content if now else []), name]


async def consistent(world: World) -> Documents:
    """Return documents as another region sees them, after checking that none is behind its pointer."""
    other = world.documents("other")
    before = await other.read_pointer()
    for kind, version in before.items():
        document = await other.fetch(kind)
        assert document is not None
        assert document.version >= version, "a pointer never promises what is not agreed"
    after = await other.mend()
    for kind in KINDS:
        document = await other.fetch(kind)
        assert after.get(kind, 0) == (document.version if document else 0)
        assert after.get(kind, 0) >= before.get(kind, 0)
    assert await other.mend() == after, "mending again changes nothing"
    return other


@pytest.mark.parametrize("delivers_last", [False, True])
def test_a_change_that_was_broken_off_anywhere_is_gone_on_with_by_anyone(delivers_last: bool) -> None:
    async def run(dies_at: int) -> bool:
        world = World()
        await world.documents("first").found(FIRST)
        world.sent, world.dies_at, world.delivers_last = 0, dies_at, delivers_last
        done = None
        with contextlib.suppress(Killed):
            done = await world.documents("mortal").change("halts", adding("h"))
        world.dies_at = None
        other = await consistent(world)
        if done is not None:
            assert (done.version, done.content) == (2, ["h"])
        again = await other.change("halts", adding("h"))
        assert again.content == ["h"], "once, however often it is asked for"
        assert again.version == 2
        assert (await other.read_pointer())["halts"] == 2
        return done is not None

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(run(at) for at in range(30)))

    outcomes = asyncio.run(all_of_them())
    assert not outcomes[0]
    assert outcomes[-1], "the last of them was never broken off"


@pytest.mark.parametrize("delivers_last", [False, True])
def test_a_beginning_that_was_broken_off_anywhere_is_gone_on_with_and_the_first_stands(
    delivers_last: bool,
) -> None:
    async def run(dies_at: int) -> bool:
        world = World()
        world.dies_at, world.delivers_last = dies_at, delivers_last
        founded = False
        with contextlib.suppress(Killed):
            await world.documents("mortal").found(FIRST)
            founded = True
        world.dies_at = None
        other = await consistent(world)
        differing = {**FIRST, "policies": {"text": "forbid"}}
        assert dict(await other.found(differing)) == dict.fromkeys(KINDS, 1)
        assert dict(await other.read_pointer()) == dict.fromkeys(KINDS, 1)
        found = await other.fetch("policies")
        assert found is not None
        assert found.content in (FIRST["policies"], differing["policies"])
        third = world.documents("third")
        await third.found(FIRST)
        assert await third.fetch("policies") == found
        return founded

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(run(at) for at in range(40)))

    outcomes = asyncio.run(all_of_them())
    assert not outcomes[0]
    assert outcomes[-1], "the last of them was never broken off"


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), max_size=12), st.sampled_from(NAMES))
def test_versions_rise_by_one_and_the_pointer_with_them(changes: list[tuple[str, int]], away: str) -> None:
    async def run() -> None:
        world = World()
        world.away = {away}
        documents = world.documents("p")
        known: dict[str, tuple[int, Any]] = {}
        for kind, content in changes:
            version, before = known.get(kind, (0, None))
            agreed = await documents.change(kind, lambda _, content=content: content)
            assert agreed == Document(kind, version + (content != before), digest_of(content), content)
            known[kind] = (agreed.version, content)
            assert dict(await documents.read_pointer()) == {k: v for k, (v, _) in known.items()}

    asyncio.run(run())


def test_of_two_that_build_on_one_version_one_is_refused() -> None:
    def on(version: int, content: Any) -> Callable[[Document | None], Any]:
        def decide(now: Document | None) -> Any:
            if now is None or now.version != version:
                raise ConflictError("version-mismatch", "Another was quicker.")
            return content

        return decide

    async def run() -> None:
        world = World()
        await world.documents("first").found(FIRST)
        done = await asyncio.gather(
            *(world.documents(me).change("policies", on(1, {"text": me})) for me in ("p", "q", "r")),
            return_exceptions=True,
        )
        won = [each for each in done if isinstance(each, Document)]
        assert len(won) == 1
        assert all(isinstance(each, Document | ConflictError) for each in done)
        assert await world.documents("reader").fetch("policies") == won[0]
        assert (await world.documents("reader").read_pointer())["policies"] == 2

    asyncio.run(run())


def test_content_that_is_not_what_its_digest_says_is_refused() -> None:
    async def run() -> None:
        world = World()
        documents = world.documents("p")
        await documents.found(FIRST)
        register = PaxosRegister({n: Voter(world, n) for n in NAMES}, "villain")
        await register.change("halts", lambda value: {**value, "document": ["forged"]})
        for act in (documents.fetch("halts"), documents.change("halts", adding("h")), documents.mend()):
            with pytest.raises(RuntimeFault) as caught:
                await act
            assert caught.value.reference == "document-damaged"
        assert (await register.read(POINTER)).value["halts"] == 1

    asyncio.run(run())
