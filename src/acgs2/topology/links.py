"""Round trip times between regions: measured where known, else estimated from the distance."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import combinations
from typing import Any

__all__ = ["Link", "estimate_rtt_ms", "link_of", "links_between"]

_LIGHT_KM_PER_MS = 299.792458
_EARTH_KM = 6371.0088


@dataclass(frozen=True, slots=True)
class Link:
    """What lies between two regions; `source` says where `rtt_ms` comes from."""

    a: str
    b: str
    rtt_ms: float
    jitter_ms: float
    source: str
    bandwidth_mbps: float | None = None
    loss: float = 0.0


def estimate_rtt_ms(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return a round trip time from two places in degrees.

    Great-circle distance both ways at two thirds of the speed of light, times 1.4 because cables do not
    lie on great circles, plus 2 ms for equipment.
    """
    lat_a, lon_a, lat_b, lon_b = map(math.radians, (*a, *b))
    half = (
        math.sin((lat_b - lat_a) / 2) ** 2
        + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    )
    distance_km = 2 * _EARTH_KM * math.asin(math.sqrt(half))
    return round(2 * distance_km / (_LIGHT_KM_PER_MS * 2 / 3) * 1.4 + 2, 2)


def links_between(
    places: Mapping[str, tuple[str, tuple[float, float] | None]],
    settings: Mapping[frozenset[str], Mapping[str, Any]],
) -> tuple[Link, ...]:
    """Return a link for every two places of one cloud partition.

    Args:
        places: name to cloud partition and location in degrees, which may be unknown.
        settings: what the topology itself says about a pair of names; wins over measurement.
    """
    return tuple(
        link_of(a, places[a][1], b, places[b][1], settings)
        for a, b in combinations(sorted(places), 2)
        if places[a][0] == places[b][0]
    )


def link_of(
    a: str,
    at_a: tuple[float, float] | None,
    b: str,
    at_b: tuple[float, float] | None,
    settings: Mapping[frozenset[str], Mapping[str, Any]],
) -> Link:
    """Return what lies between two places: as said, as measured, or as estimated from the distance."""
    given = settings.get(frozenset((a, b)), {})
    measured = _measured().get(frozenset((a, b)))
    at_a, at_b = at_a or _locations().get(a), at_b or _locations().get(b)
    if given.get("rtt_ms") is not None:
        rtt_ms, source = float(given["rtt_ms"]), "topology"
    elif measured is not None:
        rtt_ms, source = measured, "measured"
    elif at_a and at_b:
        rtt_ms, source = estimate_rtt_ms(at_a, at_b), "distance"
    else:
        rtt_ms, source = 100.0, "unknown"
    jitter = given.get("jitter_ms")
    return Link(
        a,
        b,
        rtt_ms,
        float(jitter) if jitter is not None else round(rtt_ms * 0.01, 2),
        source,
        given.get("bandwidth_mbps"),
        float(given.get("loss", 0.0)),
    )


def _rows(name: str) -> list[dict[str, str]]:
    text = (resources.files("acgs2.topology") / "data" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def _measured() -> Mapping[frozenset[str], float]:
    return {frozenset((r["from"], r["to"])): float(r["rtt_ms"]) for r in _rows("rtt.csv") if r["rtt_ms"]}


@cache
def _locations() -> Mapping[str, tuple[float, float]]:
    return {r["region"]: (float(r["latitude"]), float(r["longitude"])) for r in _rows("regions.csv")}
