"""The register over real databases: concurrent changes, voters away, and one that has forgotten its votes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cluster.conftest import Server
from tests.cluster.store.test_sql_equals_pure import quick

from acgs2.consensus import Ballot, Lease, PaxosRegister, Vote
from acgs2.consensus.register import Answer, Promise, VoterAway
from acgs2.consensus.voters import DatabaseVoter, relearn
from acgs2.consensus.votes import Members, accept, prepare
from acgs2.errors import UnavailableError
from acgs2.topology import parse

FIVE = """
name: five
domain: acgs2.example
constitution: {id: x}
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

    def register(self, me: str, seed: int = 0) -> PaxosRegister:
        voters = {r: Flaky(DatabaseVoter(dsn), r, self) for r, dsn in self.dsns.items()}
        return PaxosRegister(voters, me, rng=Random(seed))


class Flaky:
    """A voter that may be away, and whose answers may be lost after it has acted."""

    def __init__(self, voter: DatabaseVoter, name: str, voters: Voters) -> None:
        self._voter, self._name, self._voters = voter, name, voters
        self.lose = Random(name)
        self.loss = 0.0

    async def prepare(self, key: str, ballot: Ballot, members: Members) -> Promise:
        return await self._through(self._voter.prepare(key, ballot, members))

    async def accept(self, key: str, ballot: Ballot, value: Any, life: str, members: Members) -> Answer:
        return await self._through(self._voter.accept(key, ballot, value, life, members))

    async def _through(self, call: Any) -> Any:
        if self._name in self._voters.away:
            call.close()
            raise VoterAway(self._name)
        answer = await call
        if self.lose.random() < self.loss:
            raise VoterAway("the answer was lost")
        return answer


@pytest.fixture
def voters(server: Server) -> Iterator[Voters]:
    with server.regions(parse(FIVE), linked=False) as names, ExitStack() as stack:
        owners = {r: stack.enter_context(server.connect(n, "acgs_owner")) for r, n in names.items()}
        yield Voters(server, dict(names), owners)


def test_concurrent_changes_are_all_there_exactly_once(voters: Voters) -> None:
    async def add(me: str, seed: int) -> int:
        register, done = voters.register(me, seed), 0
        for number in range(10):
            mine = f"{me}/{number}"
            for _ in range(20):
                try:
                    await register.change("k", lambda v, m=mine: v if m in (v or []) else [*(v or []), m])
                    done += 1
                    break
                except UnavailableError:
                    await asyncio.sleep(0.01)
        return done

    async def run() -> None:
        assert await asyncio.gather(*(add(f"p{n}", n) for n in range(3))) == [10, 10, 10]
        agreed = await voters.register("reader").read("k")
        assert len(agreed.value) == len(set(agreed.value)) == agreed.version == 30

    asyncio.run(run())


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


def test_a_lease_has_one_holder_and_is_taken_over_after_it_lapsed(voters: Voters) -> None:
    now = {"a": 100.0, "b": 5000.0}

    async def run() -> None:
        a = Lease(voters.register("a"), "serve", "a", 3.0, lambda: now["a"])
        b = Lease(voters.register("b"), "serve", "b", 3.0, lambda: now["b"])
        assert await a.step()
        assert not await b.step()
        for _ in range(3):
            now["a"] += 1
            now["b"] += 1
            assert await a.step()
            assert not await b.step()
        now["a"] += 3.4
        now["b"] += 3.4
        assert not a.held()
        assert await b.step()
        assert (a.term, b.term) == (1, 2)
        assert not await a.step()
        await b.release()
        assert await a.step()
        assert a.term == 3
        voters.away = set(voters.dsns)
        now["a"] += 2.9
        assert await a.step(), "what is held runs on"
        now["a"] += 0.2
        assert not await a.step()

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
        assert (await one.prepare("promise", Ballot(2, "b"))).ok
        assert not (await one.accept("promise", Ballot(1, "a"), "late", "00000000")).ok
        assert (await one.prepare("promise", Ballot(3, "a"))).vote.value is None
        await one.close()

    asyncio.run(run())
