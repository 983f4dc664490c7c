"""Who votes is changed one voter at a time, while values change and voters are away; no value is ever lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import Any

import psycopg
import pytest
from tests.cluster.conftest import Server

from acgs2.consensus import Ballot, PaxosRegister
from acgs2.consensus.members import KEY, change_voters, settle
from acgs2.consensus.register import VoterAway
from acgs2.consensus.voters import DatabaseVoter, relearn
from acgs2.consensus.votes import Members
from acgs2.errors import InputError, UnavailableError
from acgs2.topology import parse

ONE, TWO, THREE, FOUR, FIVE, SIX = (f"eu-west-{n}" for n in range(1, 7))
TOPOLOGY = f"""
name: six
domain: acgs2.example
constitution: {{id: x}}
regions:
  {ONE}: {{country: IE}}
  {TWO}: {{country: IE}}
  {THREE}: {{country: IE}}
  {FOUR}: {{country: IE, voter: false}}
  {FIVE}: {{country: IE, voter: false}}
  {SIX}: {{country: IE, voter: false}}
zones:
  eu: {{regulation: gdpr, regions: [{ONE}], pair: none}}
"""
Owners = dict[str, psycopg.Connection[Any]]


class Regions:
    """Six databases, of which three vote at first."""

    def __init__(self, server: Server, names: dict[str, str], owners: Owners) -> None:
        self.dsns = {region: server.dsn(name, "acgs_owner") for region, name in names.items()}
        self.owners = owners

    def voters(self, *away: str) -> dict[str, DatabaseVoter]:
        """Return the voters that can be reached."""
        return {r: DatabaseVoter(d) for r, d in self.dsns.items() if r not in away}

    def register(self, me: str, *away: str, seed: int = 0) -> PaxosRegister:
        return PaxosRegister(self.voters(*away), me, names=[ONE, TWO, THREE], rng=Random(seed))


@pytest.fixture
def regions(server: Server) -> Iterator[Regions]:
    with server.regions(parse(TOPOLOGY), linked=False) as names, ExitStack() as stack:
        owners = {r: stack.enter_context(server.connect(n, "acgs_owner")) for r, n in names.items()}
        for name in (FOUR, FIVE, SIX):
            owners[name].execute(b"UPDATE acgs.self SET voting = NULL")
            owners[name].execute(b"DELETE FROM acgs.voters")
        yield Regions(server, dict(names), owners)


def test_values_stay_while_every_first_voter_is_replaced(regions: Regions) -> None:
    async def run() -> None:
        register, voters = regions.register("p"), regions.voters()
        # Accepted by the first two only: the third never hears of it.
        await regions.register("q", THREE).change("k", lambda v: "kept")
        for add, remove in ((FOUR, ONE), (FIVE, TWO), (SIX, THREE)):
            assert add in (await change_voters(register, voters, add=add)).names
            assert remove not in (await change_voters(register, voters, remove=remove)).names
        assert register.members == Members(7, (FOUR, FIVE, SIX))
        late = regions.register("late")
        agreed = await late.read("k")
        assert (agreed.version, agreed.value) == (1, "kept")
        assert late.members == register.members, "whoever comes late is told"
        assert (await change_voters(register, voters, add=FOUR)).epoch == 7, "nothing to change"

    asyncio.run(run())


def test_who_goes_by_an_older_set_decides_nothing(regions: Regions) -> None:
    async def run() -> None:
        register, voters = regions.register("p"), regions.voters()
        await register.change("k", lambda v: "first")
        old = await regions.voters()[ONE].prepare("k", Ballot(50, "old"), Members(1, (ONE, TWO, THREE)))
        assert old.ok
        await change_voters(register, voters, add=FOUR)
        await change_voters(register, voters, remove=ONE)
        stale = Members(1, (ONE, TWO, THREE))
        refused = [
            await voter.accept("k", Ballot(50, "old"), {"version": 9, "value": "wrong"}, old.life, stale)
            for name, voter in regions.voters().items()
            if name in (TWO, THREE)
        ]
        assert not any(answer.ok for answer in refused)
        assert all(answer.members.epoch == 3 for answer in refused)
        assert (await regions.register("q").read("k")).value == "first"

    asyncio.run(run())


def test_a_change_that_was_broken_off_is_finished_by_the_next(regions: Regions) -> None:
    async def run() -> None:
        register, voters = regions.register("p"), regions.voters()
        await register.change("k", lambda v: "kept")
        members = (await register.read("k")) and register.members
        assert await voters[FOUR].enroll(members)
        names = sorted([ONE, TWO, THREE, FOUR])
        await register.change(KEY, lambda v: {"epoch": 2, "names": names, "settled": False})
        # The one who began it is gone; the next comes with nothing but the first set.
        other = regions.register("q")
        assert (await change_voters(other, voters, add=FIVE)).names == (ONE, TWO, THREE, FOUR, FIVE)
        agreed = (await other.read(KEY)).value
        assert (agreed["epoch"], agreed["settled"]) == (3, True)
        for voter in (FOUR, FIVE):
            assert "k" in await voters[voter].keys()

    asyncio.run(run())


def test_without_a_majority_nothing_changes_and_what_is_wrong_is_refused(regions: Regions) -> None:
    async def run() -> None:
        alone = regions.register("p", TWO, THREE)
        with pytest.raises(UnavailableError, match="1 of 3"):
            await change_voters(alone, regions.voters(TWO, THREE), add=FOUR)
        register, voters = regions.register("q"), regions.voters()
        with pytest.raises(InputError, match="no region"):
            await change_voters(register, voters, add="mars-west-1")
        away = DatabaseVoter(regions.dsns[FOUR].replace("port=", "port=1"))
        with pytest.raises(UnavailableError, match="does not answer"):
            await change_voters(register, {**voters, FOUR: away}, add=FOUR)
        await change_voters(register, voters, remove=THREE)
        await change_voters(register, voters, remove=TWO)
        with pytest.raises(InputError, match="last voter"):
            await change_voters(register, voters, remove=ONE)

    asyncio.run(run())


def test_two_changes_at_once_are_one_after_the_other(regions: Regions) -> None:
    async def add(me: str, name: str, seed: int) -> None:
        register = regions.register(me, seed=seed)
        for _ in range(20):
            try:
                await change_voters(register, regions.voters(), add=name)
                return
            except UnavailableError:
                await asyncio.sleep(0.01 * (seed + 1))
        raise AssertionError("it never came through")

    async def run() -> None:
        await asyncio.gather(*(add(f"p{n}", name, n) for n, name in enumerate((FOUR, FIVE, SIX))))
        register = regions.register("reader")
        await settle(register, regions.voters())
        assert register.members == Members(4, (ONE, TWO, THREE, FOUR, FIVE, SIX))

    asyncio.run(run())


def test_a_voter_is_enrolled_only_if_it_is_none(regions: Regions) -> None:
    """A database that has forgotten its votes must learn them; being enrolled would forget them for good."""

    async def run() -> None:
        register, voters = regions.register("p"), regions.voters()
        await register.change("k", lambda v: "a")
        one = regions.owners[ONE]
        one.execute(b"DELETE FROM acgs.vote")
        one.execute(b"DELETE FROM acgs.voters")
        one.execute(b"UPDATE acgs.self SET voting = NULL")
        assert not await voters[ONE].enroll(register.members)
        with pytest.raises(VoterAway, match="votes-forgotten"):
            await voters[ONE].prepare("k", Ballot(99, "x"), register.members)
        others = regions.voters(ONE)
        async with await psycopg.AsyncConnection.connect(regions.dsns[ONE], autocommit=True) as mine:
            assert await relearn(mine, ONE, others)
            assert not await relearn(mine, FOUR, others), "it does not vote at all"
        promise = await voters[ONE].prepare("k", Ballot(99, "x"), register.members)
        assert promise.vote.value["value"] == "a"

    asyncio.run(run())
