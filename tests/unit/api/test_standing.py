"""Whether a region takes part, by what it last heard: fenced at once, and by itself when it hears nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import msgspec
import pytest
from tests.unit.consensus.test_documents import NAMES, Voter, World

from acgs2.api.standing import KEY, Participation
from acgs2.consensus import PaxosRegister, Versioned
from acgs2.errors import RefusedError, UnavailableError
from acgs2.plan import Agreed, Plan, Shares, Step, StepKind, document_of

PLAN = Plan("f-1", "failover", "b", "b is down", 1, (Step(StepKind.FENCE), Step(StepKind.CLOSE)))


class Clock:
    """The seconds since boot."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def part(world: World, region: str, clock: Callable[[], float]) -> Participation:
    register = PaxosRegister({n: Voter(world, n) for n in NAMES}, region, rng=Random(region))
    return Participation(register, region, 3.0, clock)


def test_a_region_acts_for_one_lease_after_it_last_heard_and_not_before_the_first_time() -> None:
    async def run() -> None:
        world, clock = World(), Clock()
        b = part(world, "b", clock)
        assert (b.known, b.left_s(), b.fenced()) == (None, 0.0, None)
        await b.look()
        assert (b.known, b.left_s()) == ((0, Agreed()), 3.0), "nothing was ever agreed, and that is known"
        clock.now_s += 2
        assert b.left_s() == 1.0
        world.away = {"a", "c"}
        with pytest.raises(UnavailableError):
            await b.look()
        clock.now_s += 1
        assert b.left_s() == 0.0

    asyncio.run(run())


def test_a_region_that_is_fenced_says_by_which_plan_and_acts_again_when_it_is_let_in() -> None:
    async def run() -> None:
        world, clock = World(), Clock()
        a, b = part(world, "a", clock), part(world, "b", clock)
        await b.look()
        version, _ = await a.change(lambda now: now.opened(PLAN))
        assert version == 1
        await b.look()
        why = b.fenced()
        assert why is not None
        assert (why.reference, why.context["plan"], b.left_s()) == ("fenced", "f-1", 0.0)
        assert "failover f-1: b is down" in why.message
        assert (a.fenced(), a.left_s()) == (None, 3.0)
        drained = await a.change(lambda now: now.set_by_operator(Shares(("a",))))
        assert a.fenced() is None, "whom an operator drains governs"
        back = await b.change(lambda now: msgspec.structs.replace(now, traffic=Shares(), plans={}))
        assert (b.fenced(), b.left_s(), back[0]) == (None, 3.0, drained[0] + 1)

    asyncio.run(run())


def test_a_change_that_changes_nothing_or_is_refused_is_none() -> None:
    async def run() -> None:
        a = part(World(), "a", Clock())
        first = await a.change(lambda now: now.set_by_operator(Shares(("b",))))
        assert await a.change(lambda now: now.set_by_operator(Shares(("b",)))) == first

        def refuse(_: Agreed) -> Agreed:
            raise RefusedError("no", "No.")

        with pytest.raises(RefusedError):
            await a.change(refuse)
        await a.look()
        assert a.known == first

    asyncio.run(run())


class Late:
    """A register whose answers come in an order of the test's choosing."""

    def __init__(self) -> None:
        self.answers: list[Versioned] = []

    async def read(self, key: str) -> Versioned:
        assert key == KEY
        return self.answers.pop(0)

    async def change(self, key: str, decide: Callable[[object], object]) -> Versioned:
        raise NotImplementedError


def test_what_was_agreed_earlier_and_is_heard_later_is_not_gone_by() -> None:
    async def run() -> None:
        register, clock = Late(), Clock()
        b = Participation(register, "b", 3.0, clock)
        fenced = Versioned(5, document_of(Agreed(traffic=Shares(("b",)))))
        register.answers = [fenced, Versioned(4, document_of(Agreed()))]
        await b.look()
        await b.look()
        assert b.fenced() is not None
        assert "it was failed over from" in b.fenced().message  # type: ignore[union-attr]

        register.answers = [Versioned(6, {"traffic": "nonsense"})]
        with pytest.raises(msgspec.ValidationError):
            await b.look()
        assert b.known is not None
        assert b.known[0] == 5

    asyncio.run(run())
