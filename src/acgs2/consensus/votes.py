"""What one voter does with a ballot: pure; `acgs.vote_prepare` and `acgs.vote_accept` do the same in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = [
    "Ballot",
    "Members",
    "Sighted",
    "Vote",
    "accept",
    "adopt",
    "give_way",
    "highest",
    "joins",
    "majority",
    "prepare",
]


@dataclass(frozen=True, slots=True, order=True)
class Ballot:
    """A number and who uses it; orders as a pair, so that no two proposers share one."""

    n: int
    by: str


@dataclass(frozen=True, slots=True)
class Vote:
    """What a voter remembers of one key: the highest promise, what it accepted last and under which."""

    promised: Ballot | None = None
    accepted: Ballot | None = None
    value: Any = None


@dataclass(frozen=True, slots=True)
class Members:
    """Who votes, and how often that has changed; epoch 0 is what a proposer supposes before it was told.

    Neighbouring sets differ by one voter, so that any majority of the one meets any majority of the other.
    """

    epoch: int
    names: tuple[str, ...]

    @property
    def enough(self) -> int:
        """Return how many of them decide."""
        return majority(len(self.names))


def majority(voters: int) -> int:
    """Return how many of so many voters decide."""
    return voters // 2 + 1


def prepare(vote: Vote, ballot: Ballot) -> tuple[Vote, bool]:
    """Promise to accept nothing below a ballot, unless as much was promised already."""
    if vote.promised is not None and ballot <= vote.promised:
        return vote, False
    return replace(vote, promised=ballot), True


def accept(vote: Vote, ballot: Ballot, value: Any) -> tuple[Vote, bool]:
    """Accept a value, unless a higher ballot was promised since."""
    if vote.promised is not None and ballot < vote.promised:
        return vote, False
    return Vote(ballot, ballot, value), True


def highest(votes: Iterable[Vote]) -> Vote:
    """Return the vote with the highest accepted ballot; an empty one where nothing was accepted."""
    accepted = [v for v in votes if v.accepted is not None]
    return max(accepted, key=lambda v: v.accepted or Ballot(0, ""), default=Vote())


def joins(vote: Vote, base: Vote) -> bool:
    """Return whether a voter that promised late may be asked to accept what was made of `base`.

    Not if it has accepted something later than that. The others may have forgotten their promises since, and
    it may be one of those that agreed on it.
    """
    return vote.accepted is None or (base.accepted is not None and vote.accepted <= base.accepted)


class Sighted:
    """Which voters were seen to have accepted which ballot, over one reading that looks once or more often.

    What so many have accepted is agreed, whether or not they have accepted something newer since. Nothing
    that was agreed before the first look is newer: of that, a majority had been past it already.
    """

    def __init__(self) -> None:
        self._voters: dict[Ballot, set[str]] = {}
        self._values: dict[Ballot, Vote] = {}

    def settled(self, seen: Mapping[str, Vote], enough: int) -> Vote | None:
        """Take in one more look; return the newest vote that is known to be agreed.

        None if that cannot be told: nothing was accepted, a change is under way, or was left half-way.
        """
        for name, vote in seen.items():
            if vote.accepted is not None:
                self._voters.setdefault(vote.accepted, set()).add(name)
                self._values[vote.accepted] = vote
        agreed = [ballot for ballot, voters in self._voters.items() if len(voters) >= enough]
        return self._values[max(agreed)] if agreed else None


def give_way(vote: Vote, by: str) -> Vote:
    """Return what a voter goes on with after telling its vote to one that has forgotten.

    It promises above all that it promised: a ballot that is under way, which the other may have accepted
    before it forgot, can then not be completed by this voter behind its back.
    """
    n = vote.promised.n if vote.promised is not None else 0
    return replace(vote, promised=Ballot(n + 1, by))


def adopt(votes: Iterable[Vote]) -> Vote:
    """Return what a voter that has forgotten its votes goes on with, given those of others that gave way.

    It must have heard as many others as make a majority of all: then every value that was or can still be
    chosen with its old vote is known to one of them. Its promises of before do not count any more: proposers
    name the life of the voter that promised, and another life refuses to accept on it.
    """
    known = list(votes)
    best = highest(known)
    promised = max((v.promised for v in known if v.promised is not None), default=None)
    return Vote(promised, best.accepted, best.value)
