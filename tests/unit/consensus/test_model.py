"""Register and lease in every interleaving of a small world: messages lost, late and doubled, crashes between
any two calls, a voter restored to nothing, leases that run out.

Messages are a set that only grows: each may be delivered at any time, any number of times, or never; a
proposer that never goes on has crashed. The rules are the product's own (`votes`, `Holding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

import pytest

from acgs2.consensus.votes import Ballot, Vote, accept, adopt, give_way, highest, joins, majority, prepare

VOTERS = (0, 1, 2)
QUORUM = majority(len(VOTERS))
Value = tuple[int, ...]  # the ballots whose changes it contains, in order; its length is its version


class Promised(NamedTuple):
    ballot: Ballot
    voter: int
    life: int
    vote: Vote


class Accept(NamedTuple):
    ballot: Ballot
    value: Value
    base: Vote  # that the value was made of
    voter: int
    life: int


class Accepted(NamedTuple):
    ballot: Ballot
    voter: int
    value: Value


class Heard(NamedTuple):
    """What a voter that has forgotten was told by another."""

    voter: int
    life: int
    other: int
    vote: Vote


class Voter(NamedTuple):
    life: int = 0
    votes: bool = True
    vote: Vote = Vote()


@dataclass(frozen=True)
class World:
    voters: tuple[Voter, ...] = (Voter(),) * len(VOTERS)
    prepared: frozenset[Ballot] = frozenset()
    messages: frozenset[Any] = frozenset()
    forgets: int = 1


@dataclass(frozen=True)
class Rules:
    """The rules of the world, so that a broken one can be put in its place."""

    prepare: Callable[[Vote, Ballot], tuple[Vote, bool]] = prepare
    accept: Callable[[Vote, Ballot, Any], tuple[Vote, bool]] = accept
    highest: Callable[[Iterable[Vote]], Vote] = highest
    give_way: Callable[[Vote, str], Vote] = give_way
    joins: Callable[[Vote, Vote], bool] = joins
    checks_life: bool = True
    relearns: bool = True
    quorum: int = QUORUM
    looked_at: int = QUORUM  # how many voters must show a value to one who only looks
    ballots: tuple[Ballot, ...] = field(default=(Ballot(1, "a"), Ballot(2, "b"), Ballot(3, "a")))


def steps(world: World, rules: Rules) -> Iterator[World]:
    for ballot in rules.ballots:
        if ballot not in world.prepared:
            yield replace(world, prepared=world.prepared | {ballot})
            break  # the others are alike: a ballot that is never prepared does nothing
    for number, voter in enumerate(world.voters):
        if voter.votes:
            yield from _votes(world, rules, number, voter)
            if world.forgets and any(isinstance(m, Promised) for m in world.messages):
                lost = Voter(voter.life + 1, not rules.relearns, Vote())
                yield replace(_with(world, number, lost), forgets=world.forgets - 1)
        else:
            yield from _relearn(world, rules, number, voter)
    yield from _propose(world, rules)
    yield from _late(world, rules)


def _votes(world: World, rules: Rules, number: int, voter: Voter) -> Iterator[World]:
    for ballot in world.prepared:
        vote, ok = rules.prepare(voter.vote, ballot)
        if ok:
            told = Promised(ballot, number, voter.life, vote)
            yield _with(world, number, voter._replace(vote=vote), told)
    for message in world.messages:
        if isinstance(message, Accept) and message.voter == number:
            if rules.checks_life and message.life != voter.life:
                continue
            vote, ok = rules.accept(voter.vote, message.ballot, message.value)
            if ok and vote != voter.vote:
                yield _with(
                    world, number, voter._replace(vote=vote), Accepted(message.ballot, number, message.value)
                )


def _relearn(world: World, rules: Rules, number: int, voter: Voter) -> Iterator[World]:
    heard = {
        m.other: m.vote for m in world.messages if isinstance(m, Heard) and m[:2] == (number, voter.life)
    }
    for other, its in enumerate(world.voters):
        if other != number and its.votes and other not in heard:
            after = _with(world, number, voter, Heard(number, voter.life, other, its.vote))
            yield _with(after, other, its._replace(vote=rules.give_way(its.vote, f"r{number}")))
    if len(heard) >= QUORUM:
        vote = adopt(heard.values())
        # Whoever looks at this voter from here on sees it as one that has accepted what it adopted.
        shown = [Accepted(vote.accepted, number, vote.value)] if vote.accepted is not None else []
        yield _with(world, number, voter._replace(votes=True, vote=vote), *shown)


def _propose(world: World, rules: Rules) -> Iterator[World]:
    asked = {m.ballot for m in world.messages if isinstance(m, Accept)}
    for ballot in world.prepared - asked:
        given = [m for m in world.messages if isinstance(m, Promised) and m.ballot == ballot]
        for some in combinations(given, rules.quorum):
            if len({m.voter for m in some}) < rules.quorum:
                continue
            base = rules.highest(m.vote for m in some)
            old: Value = base.value or ()
            asks = {Accept(ballot, (*old, ballot.n), base, m.voter, m.life) for m in some}
            yield replace(world, messages=world.messages | asks)


def _late(world: World, rules: Rules) -> Iterator[World]:
    """Who promises once the value is made is asked to accept it as well."""
    made = {(m.ballot, m.value, m.base) for m in world.messages if isinstance(m, Accept)}
    for ballot, value, base in made:
        for given in world.messages:
            if isinstance(given, Promised) and given.ballot == ballot and rules.joins(given.vote, base):
                asked = Accept(ballot, value, base, given.voter, given.life)
                if asked not in world.messages:
                    yield replace(world, messages=world.messages | {asked})


def _with(world: World, number: int, voter: Voter, *messages: Any) -> World:
    voters = (*world.voters[:number], voter, *world.voters[number + 1 :])
    return replace(world, voters=voters, messages=world.messages | frozenset(messages))


def chosen(world: World, quorum: int) -> list[Value]:
    by: dict[tuple[Ballot, Value], set[int]] = {}
    for message in world.messages:
        if isinstance(message, Accepted):
            by.setdefault((message.ballot, message.value), set()).add(message.voter)
    return [value for (_, value), voters in by.items() if len(voters) >= quorum]


def wrong(world: World, quorum: int) -> bool:
    """Two agreed values of which neither contains the other: an agreed change was replaced or lost."""
    return any(a[: len(b)] != b and b[: len(a)] != a for a, b in combinations(chosen(world, quorum), 2))


def explore(rules: Rules, limit: int = 2_000_000) -> tuple[int, World | None]:
    seen, frontier = {World()}, [World()]
    while frontier:
        world = frontier.pop()
        if wrong(world, min(rules.quorum, rules.looked_at)):
            return len(seen), world
        for after in steps(world, rules):
            if after not in seen:
                seen.add(after)
                frontier.append(after)
        assert len(seen) < limit, "the world is too large to be exhausted"
    return len(seen), None


SMALL = (Ballot(1, "a"), Ballot(2, "b"))


def test_an_agreed_value_is_never_replaced() -> None:
    count, broken = explore(Rules(ballots=SMALL))
    assert broken is None
    assert count > 1000


def _any(votes: Iterable[Vote]) -> Vote:
    return next(iter(votes), Vote())


BROKEN = {
    "a voter accepts below its promise": Rules(accept=lambda v, b, x: (Vote(v.promised, b, x), True)),
    "a proposer ignores what was accepted": Rules(highest=lambda votes: Vote()),
    "one voter is enough": Rules(quorum=1),
    "a reader believes one voter": Rules(looked_at=1),
    "a restored voter votes at once": Rules(relearns=False, checks_life=False),
    "a promise of an earlier life counts": Rules(relearns=False),
    "a late promise counts whatever was accepted since": Rules(joins=lambda vote, base: True),
    "a voter is told votes that go on": Rules(give_way=lambda vote, by: vote),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_search_finds_what_a_broken_rule_does(name: str) -> None:
    _, broken = explore(replace(BROKEN[name], ballots=SMALL))
    assert broken is not None
