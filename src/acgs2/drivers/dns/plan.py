"""From the route plan to record sets. Pure.

DNS sees no headers, so every zone has a name of its own, `<zone>.api.<domain>`, for requests about the whole
zone; `api.<domain>` is for requests about none. A record set cannot have both a weight and a region, so there
are two levels:

1. `<zone>.api.<domain>`: for every region L of ours a latency record, an alias of level two.
2. `<L>.<zone>.api.<domain>`: the targets of the route as seen from L, weighted, each with its health check.

A target without a share has the weight 0. Where all records have health checks, Route 53 considers those only
when every record with a weight is unhealthy ("Weighted routing" and "How Amazon Route 53 chooses records when
health checking is configured", Amazon Route 53 Developer Guide). It then picks among them in no order, where
the plan has the nearest first; the next plan puts that right.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from acgs2.drivers.dns.values import ANY, Alias, Check, Desired, Gap, Partition, RecordSet
from acgs2.errors import InputError
from acgs2.plan import Rights, Routing, route
from acgs2.topology import Topology

__all__ = ["desired", "gaps", "health_checks", "records", "weights_of"]

_MAX_WEIGHT = 255


def desired(
    topology: Topology,
    rights: Rights,
    health: Mapping[str, bool],
    weights: Mapping[str, int],
    *,
    partition: Partition = "aws",
    balancers: Mapping[str, Alias] | None = None,
) -> Desired:
    """Return all that a hosted zone of a partition shall say; see `records`."""
    return Desired(
        topology.name,
        _domain(topology),
        partition,
        tuple(label for label, _ in _labels(topology)),
        tuple(records(topology, rights, health, weights, partition=partition, balancers=balancers)),
        tuple(health_checks(topology, partition=partition)),
        tuple(gaps(topology, rights, health, weights, partition=partition)),
    )


def records(
    topology: Topology,
    rights: Rights,
    health: Mapping[str, bool],
    weights: Mapping[str, int],
    *,
    partition: Partition = "aws",
    balancers: Mapping[str, Alias] | None = None,
) -> list[RecordSet]:
    """Return the record sets that carry the route plan out.

    A zone without a target has none: its name does not exist rather than lead anywhere.

    Args:
        topology: regions, zones, and what DNS is told.
        rights: who may hold what now.
        health: region to whether it takes part, as agreed on.
        weights: region to 0..100, as in `route`.
        partition: the cloud partition of the hosted zone. Others have a Route 53 of their own, and an alias
            does not lead across: their regions are neither targets nor origins here.
        balancers: region to its load balancer. Without any, records name `api.<region>.<domain>`.

    Raises:
        InputError: load balancers are given for some regions only.
    """
    ours = _regions(topology, partition)
    missing = [r for r in ours if r not in balancers] if balancers else []
    if missing:
        raise InputError(
            "load-balancer-missing",
            f"No load balancer is given for {', '.join(missing)}.",
            hint="Records of one name are of one type: give one for every region, or for none.",
        )
    found: list[RecordSet] = []
    for label, zone in _labels(topology):
        routes = {r: _route(topology, rights, health, weights, partition, r, zone) for r in ours}
        if all(not routing.targets for routing in routes.values()):
            continue
        name = _name(topology, label)
        for origin, routing in routes.items():
            second = f"{origin}.{label}.api.{_domain(topology)}"
            kind = "A" if balancers else "CNAME"
            found.append(RecordSet(name, kind, origin, region=origin, alias=Alias(second)))
            found += _second(topology, second, kind, routing, balancers or {})
    return found


def health_checks(topology: Topology, *, partition: Partition = "aws") -> list[Check]:
    """Return a health check for every region of a partition that serves clients."""
    how = topology.front.health_check
    return [
        Check(region, f"api.{region}.{_domain(topology)}", how.port, how.path, how.failures, how.interval_s)
        for region in _regions(topology, partition)
    ]


def gaps(
    topology: Topology,
    rights: Rights,
    health: Mapping[str, bool],
    weights: Mapping[str, int],
    *,
    partition: Partition = "aws",
) -> list[Gap]:
    """Return the names that have no records, and why."""
    found: list[Gap] = []
    ours = _regions(topology, partition)
    for label, zone in _labels(topology):
        name = _name(topology, label)
        if not ours:
            found.append(Gap(name, zone, "no-region-in-partition", ()))
            continue
        routing = _route(topology, rights, health, weights, partition, ours[0], zone)
        if not routing.targets:
            elsewhere = routing.lawful and not set(routing.lawful) & set(ours)
            problem = "lawful-in-another-partition" if elsewhere else routing.problem
            found.append(Gap(name, zone, problem, routing.lawful))
    return found


@lru_cache(maxsize=4096)
def weights_of(shares: tuple[float, ...]) -> tuple[int, ...]:
    """Return the smallest integers of 0..255 that keep the ratios of shares best; a share stays above 0."""
    largest = max(shares)
    best: tuple[float, tuple[int, ...]] | None = None
    for scale in range(1, _MAX_WEIGHT + 1):
        tried = tuple(max(1, round(s / largest * scale)) if s else 0 for s in shares)
        total = sum(tried)
        error = round(max(abs(w / total - s) for w, s in zip(tried, shares, strict=True)), 9)
        if best is None or error < best[0]:
            best = error, tried
    assert best is not None
    return best[1]


def _second(
    topology: Topology, name: str, kind: str, routing: Routing, balancers: Mapping[str, Alias]
) -> list[RecordSet]:
    """Return the weighted records of one origin."""
    weights = weights_of(tuple(t.share for t in routing.targets))
    found: list[RecordSet] = []
    for target, weight in zip(routing.targets, weights, strict=True):
        region = target.region
        if balancers:
            to = RecordSet(name, kind, region, weight=weight, alias=balancers[region], health=region)
        else:
            values = (f"api.{region}.{_domain(topology)}",)
            ttl_s = topology.front.ttl_s
            to = RecordSet(name, kind, region, weight=weight, values=values, ttl_s=ttl_s, health=region)
        found.append(to)
    return found


def _route(
    topology: Topology,
    rights: Rights,
    health: Mapping[str, bool],
    weights: Mapping[str, int],
    partition: Partition,
    origin: str,
    zone: str | None,
) -> Routing:
    """Decide as for a client near an origin, regions of other partitions being out of reach."""
    reach = {r: health.get(r, True) and topology.regions[r].cloud == partition for r in topology.stacks()}
    return route(topology, rights, reach, weights, origin, zone)


def _regions(topology: Topology, partition: Partition) -> list[str]:
    return [r for r in topology.stacks() if topology.regions[r].cloud == partition]


def _labels(topology: Topology) -> list[tuple[str, str | None]]:
    return [(ANY, None), *((zone, zone) for zone in topology.zones)]


def _name(topology: Topology, label: str) -> str:
    return f"api.{_domain(topology)}" if label == ANY else f"{label}.api.{_domain(topology)}"


def _domain(topology: Topology) -> str:
    """Return the domain as Route 53 writes names."""
    return topology.domain.lower().rstrip(".")
