"""How many requests about each zone a region has answered, how, and how fast: counted up from its start."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import msgspec

__all__ = ["BOUNDS_MS", "Counted", "Tally", "percentile_ms", "since"]

#: Upper bounds of what is counted together, a quarter of an octave apart; beyond the last is one more count.
BOUNDS_MS = tuple(round(2 ** (n / 4), 3) for n in range(61))
#: Who waits for something to come is not answered late.
_WAITS = ("/api/v1/inboxes", "/api/v1/deliberations/events")
_GONE = 499


class Counted(msgspec.Struct, frozen=True):
    """Requests about one zone that were answered.

    Args:
        requests: all of them.
        errors: those whose answer was the region's fault (5xx).
        reads: those that changed nothing.
        ms_buckets: how many took up to each of `BOUNDS_MS` and more than the one before; last, the rest.
    """

    requests: int = 0
    errors: int = 0
    reads: int = 0
    ms_buckets: tuple[int, ...] = (0,) * (len(BOUNDS_MS) + 1)


class Tally:
    """Counts by zone; zones are those that the region knows."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self._buckets: dict[str, list[int]] = {}

    def answered(self, zone: str, method: str, path: str, status: int, duration_s: float) -> None:
        """Count an answer; one that was waited for on purpose, or that nobody waited for, is none."""
        if status == _GONE or path.startswith(_WAITS):
            return
        counts = self._counts.setdefault(zone, [0, 0, 0])
        counts[0] += 1
        counts[1] += status >= 500
        counts[2] += method in ("GET", "HEAD")
        buckets = self._buckets.setdefault(zone, [0] * (len(BOUNDS_MS) + 1))
        buckets[bisect_left(BOUNDS_MS, duration_s * 1000)] += 1

    def counted(self) -> dict[str, Counted]:
        """Return what was counted so far, by zone."""
        return {
            zone: Counted(requests, errors, reads, tuple(self._buckets[zone]))
            for zone, (requests, errors, reads) in sorted(self._counts.items())
        }


def since(before: Mapping[str, Counted], now: Mapping[str, Counted]) -> dict[str, Counted]:
    """Return what was counted between two looks; who has counted down has started anew meanwhile."""
    found: dict[str, Counted] = {}
    for zone, later in now.items():
        earlier = before.get(zone, Counted())
        if later.requests < earlier.requests:
            earlier = Counted()
        found[zone] = Counted(
            later.requests - earlier.requests,
            later.errors - earlier.errors,
            later.reads - earlier.reads,
            tuple(b - a for a, b in zip(earlier.ms_buckets, later.ms_buckets, strict=True)),
        )
    return found


def percentile_ms(buckets: Sequence[int], share: float) -> float:
    """Return how long so many of the requests took at most: an upper bound, at most a fifth too high.

    0 where there are none; beyond the last bound it is the last bound.

    Args:
        buckets: as in `Counted`; those of several regions or zones may be added up.
        share: of the requests, 0 to 1.
    """
    wanted, passed = share * sum(buckets), 0
    if not wanted:
        return 0.0
    for number, count in enumerate(buckets):
        passed += count
        if passed >= wanted:
            return BOUNDS_MS[min(number, len(BOUNDS_MS) - 1)]
    return BOUNDS_MS[-1]
