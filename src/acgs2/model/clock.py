"""Hybrid clocks and version vectors: when a write happened, and what it had seen."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

__all__ = ["Order", "Stamp", "Vector", "compare", "covers", "join", "next_hlc"]

#: When, in microseconds of the hybrid clock, and by which origin (`region#incarnation`); orders as a pair.
Stamp = tuple[int, str]
#: How many writes of each origin have been seen.
Vector = Mapping[str, int]


class Order(Enum):
    """How two vectors stand to each other."""

    EQUAL = "equal"
    BEFORE = "before"
    AFTER = "after"
    CONCURRENT = "concurrent"


def next_hlc(now_us: int, last: int) -> int:
    """Return the hybrid clock of a write after one with clock `last` (Kulkarni et al. 2014, per record)."""
    return max(now_us, last + 1)


def covers(a: Vector, b: Vector) -> bool:
    """Return whether a has seen everything that b has seen."""
    return all(a.get(origin, 0) >= count for origin, count in b.items())


def compare(a: Vector, b: Vector) -> Order:
    """Return how a stands to b; neither covering the other is concurrent, and only that is a conflict."""
    above, below = covers(a, b), covers(b, a)
    if above and below:
        return Order.EQUAL
    return Order.AFTER if above else Order.BEFORE if below else Order.CONCURRENT


def join(a: Vector, b: Vector) -> dict[str, int]:
    """Return the pointwise maximum."""
    return {origin: max(a.get(origin, 0), b.get(origin, 0)) for origin in {*a, *b}}
