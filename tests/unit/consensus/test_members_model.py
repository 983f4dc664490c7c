"""Changes of who votes in every interleaving of a small world, with proposers that go by the set they last knew.

Three sets after each other, of which the first and the last share too little to meet. A change of the key is
proposed under each, and one more under the first by a proposer that learns of nothing. Between the second and
the third every value is agreed on once more (the rescan); without it, or with voters that go on by sets that
were left, an agreed value is lost, and the same search finds that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import pytest

from acgs2.consensus.votes import Ballot, Vote, accept, highest, majority, prepare

Value = tuple[int, ...]  # the ballots whose changes it contains, in order


class Attempt(NamedTuple):
    """A proposal: under which set, by which ballot, and whether it changes the value or only agrees once more."""

    epoch: int
    ballot: Ballot
    changes: bool


class Promised(NamedTuple):
    attempt: Attempt
    voter: int
    vote: Vote


class Accept(NamedTuple):
    attempt: Attempt
    value: Value
    asked: frozenset[int]


class Accepted(NamedTuple):
    attempt: Attempt
    voter: int
    value: Value


class Voter(NamedTuple):
    epoch: int = 0
    vote: Vote = Vote()


@dataclass(frozen=True)
class Rules:
    sets: tuple[frozenset[int], ...]
    rescans: bool = True
    refuses_older: bool = True

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        return (
            Attempt(0, Ballot(1, "a"), True),
            Attempt(1, Ballot(2, "s"), False),
            Attempt(2, Ballot(3, "b"), True),
            Attempt(0, Ballot(4, "c"), True),
        )


@dataclass(frozen=True)
class World:
    voters: tuple[Voter, ...]
    begun: frozenset[Attempt] = frozenset()
    messages: frozenset[Any] = frozenset()


def quorum(rules: Rules, epoch: int) -> int:
    return majority(len(rules.sets[epoch]))


def accepted(world: World) -> dict[tuple[Attempt, Value], set[int]]:
    by: dict[tuple[Attempt, Value], set[int]] = {}
    for message in world.messages:
        if isinstance(message, Accepted):
            by.setdefault((message.attempt, message.value), set()).add(message.voter)
    return by


def may_begin(world: World, rules: Rules, attempt: Attempt) -> bool:
    """The third set is agreed on under the second, and after everything was agreed on once more under it."""
    if attempt in world.begun or attempt.epoch < 2:
        return attempt not in world.begun
    if not rules.rescans:
        return sum(v.epoch >= 1 for n, v in enumerate(world.voters) if n in rules.sets[1]) >= quorum(rules, 1)
    return any(a.epoch == 1 and len(v) >= quorum(rules, 1) for (a, _), v in accepted(world).items())


def steps(world: World, rules: Rules) -> Iterator[World]:
    for attempt in rules.attempts:
        if may_begin(world, rules, attempt):
            yield replace(world, begun=world.begun | {attempt})
    for number, voter in enumerate(world.voters):
        yield from _votes(world, rules, number, voter)
    asked = {m.attempt for m in world.messages if isinstance(m, Accept)}
    for attempt in world.begun - asked:
        given = [m for m in world.messages if isinstance(m, Promised) and m.attempt == attempt]
        for some in combinations(given, quorum(rules, attempt.epoch)):
            old: Value = highest(m.vote for m in some).value or ()
            value = (*old, attempt.ballot.n) if attempt.changes else old
            told = Accept(attempt, value, frozenset(m.voter for m in some))
            yield replace(world, messages=world.messages | {told})


def _votes(world: World, rules: Rules, number: int, voter: Voter) -> Iterator[World]:
    def answered(attempt: Attempt, vote: Vote, message: Any) -> World:
        after = Voter(max(voter.epoch, attempt.epoch), vote)
        voters = (*world.voters[:number], after, *world.voters[number + 1 :])
        return replace(world, voters=voters, messages=world.messages | {message})

    def hears(attempt: Attempt) -> bool:
        older = attempt.epoch < voter.epoch
        return number in rules.sets[attempt.epoch] and not (older and rules.refuses_older)

    for attempt in world.begun:
        vote, ok = prepare(voter.vote, attempt.ballot)
        if ok and hears(attempt):
            yield answered(attempt, vote, Promised(attempt, number, vote))
    for message in world.messages:
        if isinstance(message, Accept) and number in message.asked and hears(message.attempt):
            vote, ok = accept(voter.vote, message.attempt.ballot, message.value)
            if ok and vote != voter.vote:
                yield answered(message.attempt, vote, Accepted(message.attempt, number, message.value))


def wrong(world: World, rules: Rules) -> bool:
    """Two agreed values of which neither contains the other."""
    agreed = [
        value for (a, value), voters in accepted(world).items() if len(voters) >= quorum(rules, a.epoch)
    ]
    return any(a[: len(b)] != b and b[: len(a)] != a for a, b in combinations(agreed, 2))


def explore(rules: Rules, limit: int = 1_500_000) -> tuple[int, World | None]:
    first = World((Voter(),) * (1 + max(max(s) for s in rules.sets)))
    seen, frontier = {first}, [first]
    while frontier:
        world = frontier.pop()
        if wrong(world, rules):
            return len(seen), world
        for after in steps(world, rules):
            if after not in seen:
                seen.add(after)
                frontier.append(after)
        assert len(seen) < limit, "the world is too large to be exhausted"
    return len(seen), None


ONE_TO_ANOTHER = (frozenset({0}), frozenset({0, 1}), frozenset({1}))
#: Grown by one and shrunk by another, so that one of two first voters is left beside one that is new.
TWO_TO_TWO = (frozenset({0, 1}), frozenset({0, 1, 2}), frozenset({1, 2}))
GROWN = (frozenset({0}), frozenset({0, 1}), frozenset({0, 1, 2}))


@pytest.mark.parametrize("sets", [ONE_TO_ANOTHER, TWO_TO_TWO, GROWN], ids=["one", "two", "grown"])
def test_no_agreed_value_is_lost_while_voters_change(sets: tuple[frozenset[int], ...]) -> None:
    count, broken = explore(Rules(sets))
    assert broken is None
    assert count > 100


def test_the_search_finds_what_is_lost_without_agreeing_once_more() -> None:
    _, broken = explore(Rules(ONE_TO_ANOTHER, rescans=False))
    assert broken is not None


def test_the_search_finds_who_goes_on_by_a_set_that_was_left() -> None:
    _, broken = explore(Rules(ONE_TO_ANOTHER, refuses_older=False))
    assert broken is not None
