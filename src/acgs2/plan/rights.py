"""Who may hold what at one moment, as routing needs it: regions per zone and entity, consents left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from acgs2.model import entities
from acgs2.model.entity import Entity, Residency, Scope
from acgs2.residency import decide, register_of
from acgs2.topology import Topology

__all__ = ["Rights", "known_in", "rights_of"]

#: How long before a right begins or ends by itself nobody relies on it any more.
_AHEAD_S = 5.0


@dataclass(frozen=True, slots=True)
class Rights:
    """Regions by (zone, entity), without those that may hold only what some people consented to."""

    holders: Mapping[tuple[str, str], frozenset[str]]

    @property
    def zones(self) -> frozenset[str]:
        """Return the zones that there are."""
        return frozenset(zone for zone, _ in self.holders)

    def lawful(self, zone: str, entity: str | None = None) -> frozenset[str]:
        """Return the regions that may hold an entity's records of a zone; without one, those of every entity.

        Every entity is every one that clients write; consents are held where the zone is at home.
        """
        wanted = [entity] if entity is not None else [e.name for e in _resident() if not e.managed]
        return frozenset.intersection(*(self.holders.get((zone, e), frozenset()) for e in wanted))

    def serving(self, zone: str, entity: str | None = None) -> frozenset[str]:
        """Return the regions that also hold what serving the entity needs: its tenant."""
        found = self.lawful(zone, entity)
        declared = entities().get(entity) if entity is not None else None
        if declared is not None and declared.scope is Scope.TENANT:
            found &= self.lawful(zone, "tenant")
        return found

    @classmethod
    def shared(cls, several: Iterable[Rights]) -> Rights:
        """Return what every one of several views allows: a right that one no longer knows is not used.

        Zones that only some know are left out; no view at all allows nothing.
        """
        views = list(several)
        zones = frozenset.intersection(*(view.zones for view in views)) if views else frozenset()
        keys = {key for view in views for key in view.holders if key[0] in zones}
        none: frozenset[str] = frozenset()
        return cls({k: frozenset.intersection(*(v.holders.get(k, none) for v in views)) for k in keys})


def known_in(rows: Iterable[Mapping[str, Any]]) -> Rights:
    """Return what a region says (`GET /api/v1/residency`).

    Where the answer is about to change by itself, only home regions count: whoever goes by this must not be
    late when a right ends.
    """
    return Rights(
        {
            (row["zone"], row["entity"]): frozenset(
                row["homes"] if (row["changes_in_s"] or _AHEAD_S) < _AHEAD_S else row["regions"]
            )
            for row in rows
        }
    )


def rights_of(topology: Topology, now: datetime) -> Rights:
    """Return what a topology itself allows at a moment."""
    register = register_of(topology)
    return Rights(
        {
            (zone, entity.name): frozenset(decide(entity.name, zone, register, now).residency)
            for zone in topology.zones
            for entity in _resident()
        }
    )


def _resident() -> list[Entity]:
    return [e for e in entities().values() if e.residency is Residency.ZONE]
