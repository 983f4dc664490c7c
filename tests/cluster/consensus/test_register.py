"""The register over real databases: voters away, one that has forgotten its votes, SQL that votes as Python does.

What every register must do is in test_behaviours.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Set
from contextlib import ExitStack
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cluster.conftest import Server
from tests.cluster.store.test_sql_equals_pure import quick

from acgs2.consensus import Ballot, PaxosRegister, Vote
from acgs2.consensus.register import Answer, Promise, VoterAway
from acgs2.consensus.voters import DatabaseVoter, relearn
from acgs2.consensus.votes import Members, accept, prepare
from acgs2.errors import UnavailableError
from acgs2.topology import parse

FIVE = """
name: five
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
  eu-west-2: {country: IE}
  eu-west-3: {country: IE}
  eu-west-4: {country: IE}
  eu-west-5: {country: IE}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1], pair: none}
"""
FIRST = Members(1, ("eu-west-1", "eu-west-2", "eu-west-3", "eu-west-4", "eu-west-5"))
Owners = dict[str, psycopg.Connection[Any]]


class Voters:
    """Databases that vote; some can be away."""

    def __init__(self, server: Server, names: dict[str, str], owners: Owners) -> None:
        self.dsns = {region: server.dsn(name, "acgs_owner") for region, name in names.items()}
        self.owners = owners
        self.away: set[str] = set()
        self.ballots: list[str] = []

    def register(self, me: str, seed: int = 0, far: Set[str] = frozenset()) -> PaxosRegister:
        voters = {r: Flaky(DatabaseVoter(dsn), r, self, r in far) for r, dsn in self.dsns.items()}
        return PaxosRegister(voters, me, rng=Random(seed))


class Flaky:
    """A voter that may be away, and whose answers may be lost after it has acted."""

    def __init__(self, voter: DatabaseVoter, name: str, voters: Voters, far: bool) -> None:
        self._voter, self._name, self._voters, self._far = voter, name, voters, far
        self.lose = Random(name)
        self.loss = 0.0

    async def look(self, key: str) -> tuple[Vote, Members]:
        return await self._through(self._voter.look(key))

    async def prepare(self, key: str, ballot: Ballot, members: Members) -> Promise:
        self._voters.ballots.append(ballot.by)
        return await self._through(self._voter.prepare(key, ballot, members))

    async def accept(self, key: str, ballot: Ballot, value: Any, life: str, members: Members) -> Answer:
        return await self._through(self._voter.accept(key, ballot, value, life, members))

    async def _through(self, call: Any) -> Any:
        if self._name in self._voters.away:
            call.close()
            raise VoterAway(self._name)
        if self._far:
            await asyncio.sleep(0.1)
        answer = await call
        if self.lose.random() < self.loss:
            raise VoterAway("the answer was lost")
        return answer


@pytest.fixture
def voters(server: Server) -> Iterator[Voters]:
    with server.regions(parse(FIVE), linked=False) as names, ExitStack() as stack:
        owners = {r: stack.enter_context(server.connect(n, "acgs_owner")) for r, n in names.items()}
        yield Voters(server, dict(names), owners)


def test_two_of_five_may_be_away_and_three_may_not(voters: Voters) -> None:
    async def run() -> None:
        register = voters.register("p")
        assert (await register.read("nothing")).value is None
        voters.away = {"eu-west-1", "eu-west-2"}
        assert (await register.change("k", lambda v: "a")).version == 1
        voters.away = {"eu-west-4", "eu-west-5"}
        assert (await voters.register("q").read("k")).value == "a"
        voters.away = {"eu-west-1", "eu-west-4", "eu-west-5"}
        with pytest.raises(UnavailableError, match="2 of 5 voters"):
            await register.change("k", lambda v: "b")
        voters.away = set()
        assert (await voters.register("r").read("k")).value in ("a", "b")

    asyncio.run(run())


def test_all_who_vote_have_what_is_agreed_so_that_anyone_may_die_and_none_who_reads_needs_a_ballot(
    voters: Voters,
) -> None:
    def ballots() -> list[Any]:
        query = b"SELECT promised_n, accepted_n, accepted_by FROM acgs.vote"
        return [owner.execute(query).fetchone() for owner in voters.owners.values()]

    level = [(2, 2, "p")] * 5  # the first ballot told p who votes

    async def run() -> None:
        await voters.register("p", far={"eu-west-4", "eu-west-5"}).change("k", lambda v: "a")
        for _ in range(500):
            if ballots() == level:
                break
            await asyncio.sleep(0.01)  # those beyond a majority are not waited for
        assert ballots() == level
        for one in voters.dsns:
            voters.away = {one}
            readers = [voters.register(name, seed) for seed, name in enumerate("qrs")]
            assert [seen.value for seen in await asyncio.gather(*(r.read("k") for r in readers))] == ["a"] * 3
        assert ballots() == level

    asyncio.run(run())


def test_readers_are_not_in_the_way_of_one_who_changes_where_nobody_may_be_missed(voters: Voters) -> None:
    """Two of five are away: a change is seen half-way by whoever looks while it is made, and is left alone."""

    async def run() -> None:
        voters.away = {"eu-west-4", "eu-west-5"}
        writer, over, read = (
            voters.register("p", far={"eu-west-2", "eu-west-3"}),
            asyncio.Event(),
            list[int](),
        )
        await writer.change("k", lambda v: 0)

        async def reader(name: str) -> None:
            register = voters.register(name, len(name), far={"eu-west-1", "eu-west-3"})
            while not over.is_set():
                read.append((await register.read("k")).value)

        readers = [asyncio.create_task(reader(name)) for name in ("q", "rr", "sss")]
        for _ in range(15):
            await writer.change("k", lambda v: v + 1)
        over.set()
        await asyncio.gather(*readers)
        assert (await voters.register("tttt").read("k")).value == 15
        assert len(read) > 6
        mine = voters.ballots.count("p")
        print(len(read), "reads", mine, "prepares of the writer", len(voters.ballots) - mine, "of readers")
        assert len(voters.ballots) - mine < mine / 4, "readers settle what is left half-way, and little is"

    asyncio.run(run())


def test_changes_of_one_proposer_take_turns_where_nobody_may_be_missed(voters: Voters) -> None:
    """Two plans that are carried out beside each other note their steps in one value: measured with two of five
    dead, each change took two seconds, because each ballot refused the one before it."""

    async def run() -> None:
        voters.away = {"eu-west-4", "eu-west-5"}
        register = voters.register("p", far={"eu-west-3"})
        await register.change("k", lambda v: [])
        voters.ballots.clear()
        await asyncio.gather(*(register.change("k", lambda v, n=n: [*v, n]) for n in range(4)))
        assert (await register.read("k")).value == [0, 1, 2, 3]
        assert len(voters.ballots) == 4 * len(voters.dsns), "each change needed one ballot"

    asyncio.run(run())


def test_what_is_written_anew_is_never_only_looked_at(voters: Voters) -> None:
    """Who changes the set of voters relies on that: those who accept must have met the new set."""

    def accepted() -> list[int]:
        query = b"SELECT accepted_n FROM acgs.vote"
        rows = [owner.execute(query).fetchone() for owner in voters.owners.values()]
        return sorted(row[0] for row in rows if row is not None)

    async def run() -> None:
        register = voters.register("p")
        await register.change("k", lambda v: "a")
        before = accepted()
        voters.away = {"eu-west-3", "eu-west-4", "eu-west-5"}
        again = asyncio.create_task(register.rewrite("k"))
        for _ in range(1000):
            if len(voters.ballots) >= 15:  # two rounds of the first change, and one that is lost
                break
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        voters.away = set()
        assert (await again).value == "a"
        assert accepted()[2] > before[-1], "a majority has accepted it anew"

    asyncio.run(run())


def test_a_voter_that_was_away_when_something_was_agreed_is_told_afterwards(voters: Voters) -> None:
    async def run() -> None:
        register = voters.register("p")
        voters.away = {"eu-west-4", "eu-west-5"}
        await register.change("k", lambda v: "a")
        voters.away = set()
        await register.level("k")
        voters.away = {"eu-west-1", "eu-west-2"}
        before = [o.execute(b"SELECT promised_n FROM acgs.vote").fetchone() for o in voters.owners.values()]
        assert (await voters.register("q").read("k")).value == "a"
        await voters.register("q").level("k")
        after = [o.execute(b"SELECT promised_n FROM acgs.vote").fetchone() for o in voters.owners.values()]
        assert before == after, "neither the reader nor one that finds all level had to write"

    asyncio.run(run())


def test_a_restored_voter_does_not_vote_until_it_has_learned_its_votes(voters: Voters) -> None:
    async def run() -> None:
        register = voters.register("p")
        voters.away = {"eu-west-4", "eu-west-5"}
        await register.change("k", lambda v: "a")
        voters.away = set()
        one = voters.owners["eu-west-1"]
        one.execute(b"DELETE FROM acgs.vote")
        one.execute(b"SELECT acgs.awaken(1000, 0, 'abcdef01')")
        with pytest.raises(VoterAway, match="votes-forgotten"):
            await DatabaseVoter(voters.dsns["eu-west-1"]).prepare("k", Ballot(99, "x"), FIRST)
        others = {r: DatabaseVoter(d) for r, d in voters.dsns.items() if r != "eu-west-1"}
        async with await psycopg.AsyncConnection.connect(voters.dsns["eu-west-1"], autocommit=True) as mine:
            two = {r: others[r] for r in ("eu-west-2", "eu-west-3")}
            assert not await relearn(mine, "eu-west-1", two)
            assert await relearn(mine, "eu-west-1", others)
        promise = await DatabaseVoter(voters.dsns["eu-west-1"]).prepare("k", Ballot(99, "x"), FIRST)
        assert promise.vote.value["value"] == "a"
        assert promise.life == "abcdef01"
        voter = DatabaseVoter(voters.dsns["eu-west-1"])
        refused = await voter.accept("k", Ballot(99, "x"), {}, "00000000", FIRST)
        assert not refused.ok

    asyncio.run(run())


ballots = st.builds(Ballot, st.integers(1, 4), st.sampled_from("ab"))
calls = st.lists(st.tuples(st.booleans(), ballots, st.integers(0, 9)), max_size=10)


@pytest.fixture(scope="module")
def voter(server: Server) -> Iterator[str]:
    with server.regions(parse(FIVE), linked=False) as names:
        yield server.dsn(names["eu-west-1"], "acgs_owner")


@quick
@given(calls)
def test_voting_in_sql_is_voting_in_python(voter: str, history: list[tuple[bool, Ballot, int]]) -> None:
    async def run() -> None:
        sql, pure = DatabaseVoter(voter), Vote()
        key = json.dumps([str(h) for h in history])
        async with await psycopg.AsyncConnection.connect(voter, autocommit=True) as conn:
            await conn.execute(b"DELETE FROM acgs.vote")
        for preparing, ballot, value in history:
            if preparing:
                pure, ok = prepare(pure, ballot)
                promise = await sql.prepare(key, ballot, FIRST)
                assert (promise.ok, promise.vote) == (ok, pure)
            else:
                pure, ok = accept(pure, ballot, value)
                answer = await sql.accept(key, ballot, value, "00000000", FIRST)
                assert (answer.ok, answer.promised) == (ok, pure.promised)
        await sql.close()

    asyncio.run(run())


def test_a_voter_accepts_nothing_below_its_promise(voter: str) -> None:
    async def run() -> None:
        one = DatabaseVoter(voter)
        assert (await one.prepare("promise", Ballot(2, "b"), FIRST)).ok
        assert not (await one.accept("promise", Ballot(1, "a"), "late", "00000000", FIRST)).ok
        assert (await one.prepare("promise", Ballot(3, "a"), FIRST)).vote.value is None
        await one.close()

    asyncio.run(run())
