"""Which region serves a zone's inboxes: an order of those that may, each more patient than the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["may_take", "order"]

#: How much longer than a lease a watcher waits; as in acgs2.consensus.lease.
_MARGIN = 1.1


def order(homes: Sequence[str], holders: Sequence[str]) -> tuple[str, ...]:
    """Return the regions that may serve a zone's inboxes: its home regions as declared, then the others.

    Args:
        homes: the zone's home regions, in the topology's order.
        holders: the regions that may hold the zone's messages now.
    """
    first = [home for home in homes if home in holders]
    return (*first, *sorted(region for region in holders if region not in first))


def may_take(value: Mapping[str, Any] | None, me: str, place: int, watched_s: float, length_s: float) -> bool:
    """Return whether a region may ask for the lease now; the register still decides.

    What was handed over is its successor's at once; what nobody ever had, or was given up, is taken in the
    order of the places, one lease apart; what lapsed, one lease later.

    Args:
        value: what is agreed: holder, term, count, and `next` where it was handed over.
        me: this region.
        place: its place in the order, 0 for the first.
        watched_s: for how long the value has been seen unchanged.
        length_s: of a lease.
    """
    patience_s = place * length_s
    if value is None:
        return watched_s >= patience_s
    if value["holder"] is None:
        successor = value.get("next")
        if successor is not None:
            return successor == me or watched_s >= patience_s + _MARGIN * length_s
        return watched_s >= patience_s
    return watched_s >= patience_s + _MARGIN * length_s
