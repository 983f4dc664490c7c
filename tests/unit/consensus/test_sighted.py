"""What a reader may tell from looking more than once while values change; see also test_model."""

from __future__ import annotations

from acgs2.consensus.votes import Ballot, Sighted, Vote


def at(n: int) -> Vote:
    return Vote(Ballot(n, "p"), Ballot(n, "p"), n)


def test_what_a_majority_was_seen_to_have_accepted_is_agreed_though_some_have_gone_on() -> None:
    sighted = Sighted()
    assert sighted.settled({"a": at(5), "b": at(4), "c": at(3)}, 3) is None
    assert sighted.settled({"a": at(6), "b": at(5), "c": at(4)}, 3) is None
    assert sighted.settled({"a": at(7), "b": at(6), "c": at(5)}, 3) == at(5)


def test_of_two_that_are_agreed_the_newer_counts() -> None:
    sighted = Sighted()
    assert sighted.settled({"a": at(4), "b": at(4), "c": at(5)}, 2) == at(4)
    assert sighted.settled({"a": at(5), "b": at(4), "c": at(5)}, 2) == at(5)


def test_what_one_voter_shows_twice_is_one_vote() -> None:
    sighted = Sighted()
    assert sighted.settled({"a": at(4)}, 2) is None
    assert sighted.settled({"a": at(4), "b": Vote()}, 2) is None
