"""Hybrid clocks and version vectors: when a write happened, and what it had seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

__all__ = [
    "APART_US",
    "Offset",
    "Order",
    "Stamp",
    "Vector",
    "compare",
    "covers",
    "is_apart",
    "join",
    "moment_of",
    "next_hlc",
]

#: How far a region's time may be from that of most regions before it must not write.
APART_US = 500_000

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


def moment_of(us: int) -> datetime:
    """Return the moment, in UTC, of so many microseconds since the epoch."""
    return datetime.fromtimestamp(us / 1e6, UTC)


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


@dataclass(frozen=True, slots=True)
class Offset:
    """How far another region's time is ahead of ours in microseconds, and how wrong that may be."""

    ahead_us: int
    error_us: int

    @property
    def is_far(self) -> bool:
        """Return whether the two are certainly apart."""
        return abs(self.ahead_us) - self.error_us > APART_US


def is_apart(offsets: Mapping[str, Offset], regions: int, before: bool) -> bool:
    """Return whether our time is far from that of most regions.

    Args:
        offsets: what is known of other regions' time.
        regions: how many regions there are, ours included.
        before: the last answer; it stands while too few regions are heard to tell.
    """
    most = regions // 2 + 1
    far = sum(offset.is_far for offset in offsets.values())
    if far >= most:
        return True
    return before and 1 + len(offsets) - far < most
