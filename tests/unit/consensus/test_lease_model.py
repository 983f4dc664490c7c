"""Two contenders for a lease in every interleaving: late effects, lost answers, freezes, clocks that run apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from acgs2.consensus import lease
from acgs2.consensus.lease import Holding

LENGTH_S = 20.0
LAST_TICK = 4


@dataclass(frozen=True)
class Contender:
    """What it holds, how fast its clock runs (seconds a tick), and the change that it has under way, if any."""

    holding: Holding
    rate: float
    asked: tuple[float, str, str] | None = None  # when it began, what it read, what it wants (as JSON)
    done: tuple[float, str, str] | None = None  # the same, carried out; the answer is on its way
    last_tick: int = -1  # when it asked last: once a tick is enough, and keeps the world finite

    def clock_s(self, tick: int) -> float:
        return 1000 * self.rate + tick * self.rate


@dataclass(frozen=True)
class World:
    tick: int
    value: str
    contenders: tuple[Contender, Contender]

    def holders(self) -> list[str]:
        return [c.holding.me for c in self.contenders if c.clock_s(self.tick) < c.holding.until_s]


def start(rates: tuple[float, float]) -> World:
    a, b = (Contender(Holding(me, LENGTH_S), rate) for me, rate in zip("ab", rates, strict=True))
    return World(0, "null", (a, b))


def steps(world: World) -> Iterator[World]:
    if world.tick < LAST_TICK:
        yield replace(world, tick=world.tick + 1)
    for number, one in enumerate(world.contenders):
        now_s = one.clock_s(world.tick)
        if one.done is not None:
            began_s, old, new = one.done
            before, after = json.loads(old), json.loads(new)
            learned = one.holding.agreed(before, before if old == new else after, began_s, now_s)
            yield _with(world, number, replace(one, holding=learned, done=None))
            yield _with(world, number, replace(one, done=None))  # the answer is lost
        elif one.asked is not None:
            _, old, new = one.asked
            if old == world.value:
                carried_out = _with(world, number, replace(one, asked=None, done=one.asked))
                yield replace(carried_out, value=new)
            yield _with(world, number, replace(one, asked=None))  # it never takes effect
        elif one.last_tick < world.tick:
            read: Any = json.loads(world.value)
            wanted = one.holding.wanted(read, now_s)
            holding = one.holding if wanted is read else one.holding.asking(wanted)
            asked = (now_s, world.value, json.dumps(wanted, sort_keys=True))
            yield _with(world, number, replace(one, holding=holding, asked=asked, last_tick=world.tick))


def _with(world: World, number: int, one: Contender) -> World:
    a, b = world.contenders
    return replace(world, contenders=(one, b) if number == 0 else (a, one))


def explore(rates: tuple[float, float]) -> tuple[int, World | None, int]:
    first = start(rates)
    seen, frontier, taken_over = {first}, [first], 0
    while frontier:
        world = frontier.pop()
        if len(world.holders()) > 1:
            return len(seen), world, taken_over
        taken_over += (json.loads(world.value) or {"term": 0})["term"] > 1
        for after in steps(world):
            terms = [(json.loads(w.value) or {"term": 0})["term"] for w in (world, after)]
            assert terms[0] <= terms[1], "a term went back"
            if after not in seen:
                seen.add(after)
                frontier.append(after)
    return len(seen), None, taken_over


@pytest.mark.parametrize("rates", [(10.0, 11.0), (11.0, 10.0)])
def test_never_two_holders(rates: tuple[float, float]) -> None:
    count, both, taken_over = explore(rates)
    assert both is None
    assert count > 1000
    assert taken_over


def test_who_was_given_what_it_asked_for_and_was_not_told_finds_it_out() -> None:
    """Measured with two of five regions dead: who had been elected did not know, and nobody led for a lease more."""
    b = Holding("b", LENGTH_S).asking({"holder": "b", "term": 2, "count": 7})
    given = {"holder": "b", "term": 2, "count": 7}
    renewed = b.wanted(given, 5.0)
    assert renewed == {"holder": "b", "term": 2, "count": 8}
    assert b.agreed(given, renewed, 4.0, 5.0).until_s == 4.0 + LENGTH_S
    # Not what it did not ask for: that was granted to whoever bore its name before.
    assert b.wanted({**given, "term": 1}, 5.0) == {**given, "term": 1}
    assert Holding("b", LENGTH_S).wanted(given, 5.0) == given


def test_the_search_finds_a_watcher_that_is_too_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "MARGIN", 0.5)
    _, both, _ = explore((10.0, 11.0))
    assert both is not None


def test_the_search_finds_a_holder_that_counts_from_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Holding.agreed

    def late(self: Holding, old: Any, new: Any, began_s: float, now_s: float) -> Holding:
        return honest(self, old, new, now_s, now_s)

    monkeypatch.setattr(Holding, "agreed", late)
    _, both, _ = explore((10.0, 10.0))
    assert both is not None
