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
        "b led, term 2, while a did, term 1"
    ]
    assert two_leaders([claim(1, "a", 1), claim(9, "b", 1)]) == ["term 1 was led by a and b"]


def test_an_answer_that_took_long_proves_nothing() -> None:
    assert two_leaders([claim(1, "a", 1), Claim(2, 4, "b", 2), claim(3, "a", 1)]) == []
