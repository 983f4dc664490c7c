"""Whether two regions led at once, from what they said of themselves. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

__all__ = ["Claim", "two_leaders"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A region said that it leads: at some moment from when it was asked until it had answered."""

    asked_s: float
    answered_s: float
    region: str
    term: int


def two_leaders(claims: Sequence[Claim]) -> list[str]:
    """Return where a term had two leaders, and where two regions led at once.

    Whoever says twice that it leads under one term led in between: a term that ends never comes again.
    """
    terms: dict[int, set[str]] = {}
    answers: dict[tuple[str, int], list[Claim]] = {}
    for claim in claims:
        terms.setdefault(claim.term, set()).add(claim.region)
        answers.setdefault((claim.region, claim.term), []).append(claim)
    found = [
        f"term {term} was led by {' and '.join(sorted(regions))}"
        for term, regions in sorted(terms.items())
        if len(regions) > 1
    ]
    for one, other in combinations(sorted(answers), 2):
        if one[0] != other[0] and _at_once(answers[one], answers[other]):
            found.append(f"{one[0]} led, term {one[1]}, while {other[0]} did, term {other[1]}")
    return found


def _at_once(one: Sequence[Claim], other: Sequence[Claim]) -> bool:
    """Return whether there is a moment at which both led for certain.

    What is certain of one, from its first answer to its last question, overlaps with what is certain of the
    other, or holds a whole claim of it.
    """
    (begin_s, end_s), (begins_s, ends_s) = _certain(one), _certain(other)
    return (
        max(begin_s, begins_s) < min(end_s, ends_s)
        or any(begin_s <= c.asked_s and c.answered_s <= end_s for c in other)
        or any(begins_s <= c.asked_s and c.answered_s <= ends_s for c in one)
    )


def _certain(claims: Sequence[Claim]) -> tuple[float, float]:
    """Return from when to when claims of one region and term say for certain that it led."""
    return min(c.answered_s for c in claims), max(c.asked_s for c in claims)
