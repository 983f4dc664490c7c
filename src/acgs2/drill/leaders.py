"""Whether two regions led at once, from what they said of themselves. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Claim", "two_leaders"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A region said that it leads: at some moment from when it was asked until it had answered."""

    asked_s: float
    answered_s: float
    region: str
    term: int


def two_leaders(claims: Sequence[Claim]) -> list[str]:
    """Return where a term had two leaders, and where one led while another did before and after.

    Whoever says twice that it leads under one term led in between: a term that ends never comes again.
    """
    found: list[str] = []
    terms: dict[int, set[str]] = {}
    spans: list[tuple[float, float, str, int]] = []
    for claim in claims:
        terms.setdefault(claim.term, set()).add(claim.region)
    for region in {claim.region for claim in claims}:
        own = sorted((c for c in claims if c.region == region), key=lambda c: c.asked_s)
        spans += [(a.answered_s, b.asked_s, region, a.term) for a, b in pairwise(own) if a.term == b.term]
    found += [
        f"term {term} was led by {' and '.join(sorted(regions))}"
        for term, regions in sorted(terms.items())
        if len(regions) > 1
    ]
    for claim in claims:
        for begin_s, end_s, region, term in spans:
            if region != claim.region and begin_s <= claim.asked_s and claim.answered_s <= end_s:
                found.append(f"{claim.region} led, term {claim.term}, while {region} did, term {term}")
    return sorted(set(found))
