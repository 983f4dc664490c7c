"""The faults of a drill: what each is made of, what is expected of it, and why. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from acgs2.drill.faults import Cut, Freeze, Injection, Kill, Slow, Together
from acgs2.errors import InputError
from acgs2.topology import Topology

__all__ = ["OUTAGES", "Kind", "Outage", "outage"]

Expected = Literal["fails over", "stays"]
_SLOWER = 5.0


@dataclass(frozen=True)
class Outage:
    """A fault that is about to be drilled.

    Args:
        name: as on the command line.
        regions: that it is done to.
        injection: that does it.
        expected: whether service is to be taken elsewhere by plan, or rightly not.
        why: that is expected.
        gone: regions that can serve no zone whole while it lasts.
    """

    name: str
    regions: tuple[str, ...]
    injection: Injection
    expected: Expected
    why: str
    gone: frozenset[str]


@dataclass(frozen=True)
class Kind:
    """How a fault is made for regions, what is expected of it and why, and whom it is done to."""

    make: Callable[[Topology, tuple[str, ...]], Injection]
    expected: Expected
    why: str
    choose: Callable[[Topology, str, str], tuple[str, ...]] = lambda topology, region, leader: (region,)


def _cut_off(topology: Topology, regions: tuple[str, ...]) -> Injection:
    (region,) = regions
    return Together("cut off", tuple(Cut(region, peer) for peer in topology.peers(region)), regions)


def _cut_one_way(topology: Topology, regions: tuple[str, ...]) -> Injection:
    (region,) = regions
    partners = {
        r for zone in topology.zones for r in topology.pair_of(zone) if region in topology.pair_of(zone)
    }
    others = [peer for peer in topology.peers(region) if peer not in partners]
    served = [peer for peer in others if peer in topology.stacks()] or others or topology.peers(region)
    return Cut(region, served[-1], one_way=True)


def _slow(topology: Topology, regions: tuple[str, ...]) -> Injection:
    (region,) = regions
    links = tuple(Slow(region, peer, factor=_SLOWER) for peer in topology.peers(region))
    return Together(f"{_SLOWER:g} times the distance for", links, regions)


def _another(topology: Topology, region: str, leader: str) -> tuple[str, ...]:
    """Return the region with one more, of no zone that it is at home in: so no zone loses both."""
    shared = {r for zone in topology.zones.values() if region in zone.regions for r in zone.regions}
    held = {t.to for t in topology.transfers if t.zone in _homes(topology, region)}
    others = [r for r in topology.stacks() if r not in shared]
    return (region, *sorted(others, key=lambda r: (_needs(topology, r, region), r in held, r))[:1])


def _needs(topology: Topology, region: str, other: str) -> bool:
    """Return whether a zone of a region can be served in the other, and nowhere else away from home."""
    zones = _homes(topology, region)
    return any({t.to for t in topology.transfers if t.zone == zone} <= {other} for zone in zones)


def _homes(topology: Topology, region: str) -> list[str]:
    return [name for name, zone in topology.zones.items() if region in zone.regions]


def _pair(topology: Topology, region: str, leader: str) -> tuple[str, ...]:
    pairs = [topology.pair_of(zone) for zone in topology.zones if topology.pair_of(zone)]
    if not pairs:
        raise InputError("no-pair", "No zone of this topology has a pair.", hint="Choose another fault.")
    return next((pair for pair in pairs if region in pair), pairs[0])


def _witness(topology: Topology, region: str, leader: str) -> tuple[str, ...]:
    found = [name for name, each in topology.regions.items() if each.role == "witness"]
    if not found:
        raise InputError(
            "no-witness", "This topology has no witness that votes only.", hint="Choose another fault."
        )
    return (found[0],)


_MAJORITY_SEES = "a majority of voters sees that it does not answer"
OUTAGES: Mapping[str, Kind] = {
    "kill": Kind(lambda t, r: Kill(r), "fails over", _MAJORITY_SEES),
    "freeze": Kind(lambda t, r: Freeze(r[0]), "fails over", _MAJORITY_SEES),
    "cut": Kind(_cut_off, "fails over", "a majority is on the other side of the cut"),
    "cut-one-way": Kind(_cut_one_way, "stays", "one voter cannot reach it: a minority decides nothing"),
    "slow": Kind(_slow, "stays", "it is slow and alive: it answers in time for those who probe it"),
    "database": Kind(
        lambda t, r: Kill(r, "postgres"),
        "fails over",
        "it answers that it is not ready: its database is away",
    ),
    "gateway": Kind(
        lambda t, r: Kill(r, "gateway"), "fails over", "nobody is let in where the gateway is away"
    ),
    "leader": Kind(
        lambda t, r: Kill(r),
        "fails over",
        "another region leads after one lease, and acts",
        lambda topology, region, leader: (leader or region,),
    ),
    "two-regions": Kind(lambda t, r: Kill(r), "fails over", "three of five voters are a majority", _another),
    "pair": Kind(
        lambda t, r: Kill(r),
        "fails over",
        "the law leaves its zone nowhere to go: it stops, others go on",
        _pair,
    ),
    "witness": Kind(lambda t, r: Kill(r), "stays", "it serves nobody; four of five voters remain", _witness),
}


def outage(name: str, topology: Topology, region: str, leader: str) -> Outage:
    """Return a fault of this name for a region.

    Args:
        name: one of OUTAGES.
        topology: of the cluster.
        region: that it is done to, unless the fault says itself to whom.
        leader: the region that leads now; empty if nobody is known to.

    Raises:
        InputError: there is no such fault (`fault-unknown`), no such region that serves clients
            (`region-unknown`), or the topology has nothing to do it to (`no-pair`, `no-witness`).
    """
    if name not in OUTAGES:
        raise InputError("fault-unknown", f"There is no fault {name}.", hint=f"Faults: {', '.join(OUTAGES)}.")
    if region not in topology.stacks():
        raise InputError(
            "region-unknown",
            f"{region} serves no clients.",
            hint=f"Regions that do: {', '.join(topology.stacks())}.",
        )
    kind = OUTAGES[name]
    regions = kind.choose(topology, region, leader)
    serving = frozenset(regions) & frozenset(topology.stacks())
    expected, why = kind.expected, kind.why
    if not serving and expected == "fails over":
        expected, why = "stays", f"{regions[0]} serves nobody"
    gone = serving if expected == "fails over" else frozenset[str]()
    if gone and not topology.failover.automatic:
        expected, why = "stays", "failover.automatic is false: whoever operates it begins plans"
    return Outage(name, regions, kind.make(topology, regions), expected, why, gone)
