"""Where a request goes: the lawful regions of its zone, the nearest first, shared by weights. Pure.

Whoever carries it out (Envoy at the edge, Route 53) adds nothing but the liveness it sees by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from acgs2.model.entity import Entity, Strategy
from acgs2.plan.rights import Rights
from acgs2.topology import Topology

__all__ = ["AUTO", "Kind", "Routing", "Target", "kind_of", "route"]

#: The preference of who leaves the choice to us.
AUTO = "auto"
_FULL = 100


class Kind(StrEnum):
    """What a request does, as far as it matters for where it may go."""

    READ = "read"
    MERGEABLE = "mergeable"
    VERSIONED = "versioned"
    #: For whoever serves a zone now: its home regions in order, and any other that may, until one does.
    SERVED = "served"


def kind_of(entity: Entity) -> Kind:
    """Return the kind of a write of an entity: concurrent versions either merge, or one must win."""
    return Kind.VERSIONED if entity.strategy is Strategy.VERSIONED else Kind.MERGEABLE


@dataclass(frozen=True, slots=True)
class Target:
    """A region, how far it is from the client, and which share (0 to 1) it takes while all are well."""

    region: str
    rtt_ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a request goes, best first; a target without a share takes over when those before it are away.

    Without targets `problem` says why, as a problem's reference, and `lawful` where it could have gone.
    """

    targets: tuple[Target, ...]
    lawful: tuple[str, ...] = ()
    problem: str = ""

    @property
    def regions(self) -> tuple[str, ...]:
        """Return the regions in order."""
        return tuple(t.region for t in self.targets)


def route(
    topology: Topology,
    rights: Rights,
    health: Mapping[str, bool],
    weights: Mapping[str, int],
    place: str,
    zone: str | None,
    preference: str = AUTO,
    *,
    entity: str | None = None,
    kind: Kind = Kind.READ,
) -> Routing:
    """Decide where a request goes.

    A versioned write goes to the zone's first home region that is well, wherever the client is, and to no
    other: two regions that took turns would make conflicts. What only one region serves goes there first as
    well, and then to the others in turn. Who prefers a region gets that one or a refusal.

    Args:
        topology: places, distances and regions.
        rights: who may hold what now.
        health: region to whether it takes part, as agreed on; a region that is not named does.
        weights: region to 0..100, the percentage that it takes of what reaches it; 100 if not named.
        place: where the client is: a place of the topology, or a region whose neighbourhood it is in.
        zone: the zone of the data; None where the request is about no zone.
        preference: a region, or `auto`.
        entity: what it is about; None for what is about the whole zone.
        kind: what it does.

    Raises:
        KeyError: there is no such place or region.
    """
    distances = topology.distances[place]
    if preference != AUTO and preference not in topology.regions:
        return Routing((), tuple(distances), "region-unknown")
    if zone is not None and zone not in rights.zones:
        return Routing((), (), "zone-unknown")
    holders = frozenset(distances) if zone is None else rights.lawful(zone, entity)
    serving = holders if zone is None else rights.serving(zone, entity)
    lawful = tuple(r for r in distances if r in holders)
    if preference != AUTO and preference not in lawful:
        return Routing((), lawful, "region-not-lawful")
    candidates = [r for r in distances if r in serving] if preference == AUTO else [preference]
    candidates = [r for r in candidates if health.get(r, True)]
    if kind in (Kind.VERSIONED, Kind.SERVED) and preference == AUTO and zone is not None:
        homes = [*topology.zones[zone].regions] if zone in topology.zones else []
        rank = {home: number for number, home in enumerate(homes)}
        candidates.sort(key=lambda r: (weights.get(r, _FULL) == 0, rank.get(r, len(homes)), r))
        candidates = candidates if kind is Kind.SERVED else candidates[:1]
    if not candidates:
        return Routing((), lawful, "no-lawful-target")
    shares = _shares([weights.get(r, _FULL) for r in candidates])
    if kind is Kind.SERVED:
        shares = [1.0, *(0.0 for _ in candidates[1:])]
    return Routing(tuple(Target(r, distances[r], s) for r, s in zip(candidates, shares, strict=True)), lawful)


def _shares(weights: Sequence[int]) -> list[float]:
    """Return what each takes: its percentage of what those before it left; the rest by their weights."""
    left, taken = 1.0, [0.0] * len(weights)
    for number, weight in enumerate(weights):
        share = min(max(weight, 0), _FULL)
        taken[number] = left * share / _FULL
        left *= (_FULL - share) / _FULL  # never by subtraction: what is left of nothing is nothing
    total = sum(taken)
    # Nobody wants any: the nearest takes all rather than nobody.
    return [t / total for t in taken] if total else [1.0, *taken[1:]]
