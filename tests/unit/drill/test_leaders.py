"""Two leaders are found where there were two, and not where one followed the other."""

from __future__ import annotations

from acgs2.drill.leaders import Claim, two_leaders


def claim(at_s: float, region: str, term: int) -> Claim:
    return Claim(at_s, at_s + 0.01, region, term)


def test_one_after_the_other_is_right() -> None:
    assert two_leaders([claim(1, "a", 1), claim(2, "a", 1), claim(3, "b", 2), claim(4, "b", 2)]) == []
    # It led before and after, under another term: not in between.
    assert two_leaders([claim(1, "a", 1), claim(2, "b", 2), claim(3, "a", 3)]) == []


def test_two_at_once_are_found() -> None:
    assert two_leaders([claim(1, "a", 1), claim(2, "b", 2), claim(3, "a", 1)]) == [
        "a led, term 1, while b did, term 2"
    ]
    assert two_leaders([claim(1, "a", 1), claim(9, "b", 1)]) == ["term 1 was led by a and b"]


def test_two_at_once_are_found_when_none_of_their_answers_lies_between_two_of_the_other() -> None:
    claims = [Claim(n, n + 0.2, "a", 102) for n in range(2)] + [
        Claim(n + 0.1, n + 0.3, "b", 2) for n in range(2)
    ]
    assert two_leaders(claims) == ["a led, term 102, while b did, term 2"]


def test_an_answer_that_took_long_proves_nothing() -> None:
    assert two_leaders([claim(1, "a", 1), Claim(2, 4, "b", 2), claim(3, "a", 1)]) == []
