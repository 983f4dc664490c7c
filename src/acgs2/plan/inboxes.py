"""Which region serves a zone's inboxes: those that may in an order, each with more patience than the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["order", "patience_s", "successor"]


def order(homes: Sequence[str], holders: Sequence[str]) -> tuple[str, ...]:
    """Return the regions that may serve a zone's inboxes: its home regions as declared, then the others.

    Args:
        homes: the zone's home regions, in the topology's order.
        holders: the regions that may hold the zone's messages now.
    """
    first = [home for home in homes if home in holders]
    return (*first, *sorted(region for region in holders if region not in first))


def patience_s(
    value: Mapping[str, Any] | None, me: str, candidates: Sequence[str], length_s: float, lapse_s: float
) -> float:
    """Return how long a region must have seen what is agreed unchanged before it asks for the lease.

    The register still decides. What was handed over is its successor's at once; what nobody ever had is taken
    in the order of the places, one lease apart, and what lapsed one lease later. Who let it lapse is not
    waited for.

    Args:
        value: what is agreed: holder, term, count, and `next` where it was handed over.
        me: this region, one of the candidates.
        candidates: the regions that may serve, in order.
        length_s: of a lease.
        lapse_s: for how long a lease must be seen unrenewed before another may have it.
    """
    holder = value["holder"] if value is not None else None
    place = [region for region in candidates if region != holder or region == me].index(me)
    if value is None:
        return place * length_s
    if holder is None and value.get("next") in (None, me):
        return 0.0 if value.get("next") == me else place * length_s
    return place * length_s + lapse_s


def successor(me: str, candidates: Sequence[str]) -> str | None:
    """Return who shall serve when this region gives up by itself: the first of the others, if any."""
    return next((region for region in candidates if region != me), None)
