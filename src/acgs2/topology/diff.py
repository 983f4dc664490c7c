"""What changes between two versions of a topology, and what of it a running cluster cannot take on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from acgs2.topology.models import Topology, Transfer

__all__ = ["Changes", "compare"]

_SETTINGS = ("constitution", "objectives", "failover", "links_settings", "places", "front", "observability")


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be done, in the order in which it is safe; `refused` says what cannot be."""

    regions_added: tuple[str, ...] = ()
    regions_removed: tuple[str, ...] = ()
    voters_added: tuple[str, ...] = ()
    voters_removed: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    transfers_added: tuple[Transfer, ...] = ()
    transfers_removed: tuple[Transfer, ...] = ()
    settings: bool = False
    refused: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Return whether the two are the same."""
        return self == Changes()

    def lines(self) -> list[str]:
        """Return what is to be done, a line each."""
        return [
            *(f"add region {name}" for name in self.regions_added),
            *(f"let {name} vote" for name in self.voters_added),
            *(f"change zone {name}" for name in self.zones),
            *(f"register transfer {_name(t)}" for t in self.transfers_added),
            *(f"revoke transfer {_name(t)}" for t in self.transfers_removed),
            *(f"take the vote from {name}" for name in self.voters_removed),
            *(f"remove region {name} for good, with its data" for name in self.regions_removed),
            *(["change settings of the topology"] if self.settings else []),
        ]


def compare(before: Topology, after: Topology) -> Changes:
    """Return what leads from one version to the other."""
    old, new = before.regions, after.regions
    kept = [name for name in old if name in new]
    had, has = ([n for n, r in each.items() if r.voter] for each in (old, new))
    before_zones, after_zones = ({n: _zone(t, n) for n in t.zones} for t in (before, after))
    return Changes(
        regions_added=tuple(n for n in new if n not in old),
        regions_removed=tuple(n for n in old if n not in new),
        voters_added=tuple(n for n in has if n not in had),
        voters_removed=tuple(n for n in had if n not in has),
        zones=tuple(n for n, zone in after_zones.items() if before_zones.get(n) != zone),
        transfers_added=tuple(t for t in after.transfers if t not in before.transfers),
        transfers_removed=tuple(t for t in before.transfers if t not in after.transfers),
        settings=any(getattr(before, part) != getattr(after, part) for part in _SETTINGS),
        refused=tuple(_refused(before, after, kept)),
    )


def _refused(before: Topology, after: Topology, kept: list[str]) -> list[str]:
    found: list[str] = []
    if before.name != after.name:
        found.append(f"it is called {after.name}, and the cluster {before.name}")
    if before.agreement != after.agreement:
        found.append("what is agreed on moves to another register; that is for a cluster that is down")
    if before.constitution.id != after.constitution.id:
        found.append("another constitution; the one in force changes only by a signed amendment")
    for name in kept:
        for part in ("country", "cloud"):
            old, new = getattr(before.regions[name], part), getattr(after.regions[name], part)
            if old != new:
                found.append(f"{part} of {name} changes from {old} to {new}; a region stays where it is")
    found += [
        f"zone {name} is gone, and its data has nowhere to be"
        for name in before.zones
        if name not in after.zones
    ]
    found += [
        f"regulation of zone {name} changes; register a new zone and move its tenants"
        for name, zone in before.zones.items()
        if name in after.zones and after.zones[name].regulation != zone.regulation
    ]
    if not any(after.regions[name].voter for name in kept):
        found.append("no region that votes now would be left to agree on the change")
    return found


def _zone(topology: Topology, name: str) -> tuple[object, ...]:
    zone = topology.zones[name]
    return zone.regulation, zone.regions, topology.pair_of(name)


def _name(transfer: Transfer) -> str:
    return f"{transfer.zone} to {transfer.to} by {transfer.instrument} ({', '.join(transfer.entities)})"
