"""The route plan as Istio objects, as one region's sidecars need it. Pure.

Every zone is a host of the mesh, `<zone>.api.<domain>`, whose endpoints are the regions that may serve it and
take part, and no others: whatever Istio does by itself, it cannot leave them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from acgs2.plan import Rights, Routing, route
from acgs2.plan.steps import Shares
from acgs2.topology import Topology

__all__ = ["PLURALS", "VERSION", "failover_pairs", "objects", "percents"]

VERSION = "networking.istio.io/v1"
#: Kinds as they stand in paths.
PLURALS = {
    "ServiceEntry": "serviceentries",
    "DestinationRule": "destinationrules",
    "VirtualService": "virtualservices",
}
#: Nothing was stored: another region may be asked, whatever was asked for.
_RETRY_ON = "connect-failure,refused-stream"
_LABELS = {"app.kubernetes.io/managed-by": "acgs2", "app.kubernetes.io/part-of": "acgs2"}


def objects(topology: Topology, rights: Rights, shares: Shares, here: str) -> list[dict[str, Any]]:
    """Return the objects of a region's cluster, by zone, in the order in which they are applied.

    Args:
        topology: zones and limits.
        rights: who may hold what.
        shares: who takes no part, and who takes less than comes to it.
        here: the region whose sidecars go by them.
    """
    found: list[dict[str, Any]] = []
    for zone in topology.zones:
        routing = _route(topology, rights, shares, here, zone)
        regions = [r for r in topology.distances[here] if r in rights.serving(zone)]
        endpoints = list(routing.regions) or regions
        if endpoints:  # without any the host would be looked up in DNS
            found.append(_object("ServiceEntry", zone, _entry(topology, zone, endpoints)))
        found += [
            _object("DestinationRule", zone, _rule(topology, rights, shares, here, zone, routing)),
            _object("VirtualService", zone, _service(topology, zone, routing)),
        ]
    return found


def failover_pairs(topology: Topology, rights: Rights, shares: Shares, zone: str) -> dict[str, str]:
    """Return for every region that serves a zone and takes part which one is next; none if it is alone."""
    found: dict[str, str] = {}
    serving = _route(topology, rights, shares, topology.stacks()[0], zone).regions
    for region in sorted(serving):
        others = [r for r in _route(topology, rights, shares, region, zone).regions if r != region]
        if others:
            found[region] = others[0]
    return found


def percents(shares: Mapping[str, float]) -> dict[str, int]:
    """Return shares as whole percents that add up to 100; nobody with a share is left without one."""
    wanted = {name: share * 100 for name, share in shares.items() if share > 0}
    found = {name: max(1, int(value)) for name, value in wanted.items()}
    by_rest = sorted(wanted, key=lambda name: (int(wanted[name]) - wanted[name], name))
    for number in range(100 - sum(found.values())):
        found[by_rest[number % len(by_rest)]] += 1
    while (over := sum(found.values()) - 100) > 0:
        largest = max(found, key=lambda name: (found[name], name))
        found[largest] -= min(over, found[largest] - 1)
    return found


def _route(topology: Topology, rights: Rights, shares: Shares, place: str, zone: str) -> Routing:
    return route(topology, rights, dict.fromkeys(shares.down, False), shares.weights, place, zone)


def _object(kind: str, zone: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": f"acgs2-{zone}", "labels": dict(_LABELS)}
    return {"apiVersion": VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _host(topology: Topology, zone: str) -> str:
    return f"{zone}.api.{topology.domain}"


def _entry(topology: Topology, zone: str, regions: Sequence[str]) -> dict[str, Any]:
    return {
        "hosts": [_host(topology, zone)],
        "location": "MESH_EXTERNAL",
        "resolution": "DNS",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 443}],
        "endpoints": [
            {"address": f"api.{region}.{topology.domain}", "locality": region, "labels": {"region": region}}
            for region in regions
        ],
    }


def _rule(
    topology: Topology, rights: Rights, shares: Shares, here: str, zone: str, routing: Routing
) -> dict[str, Any]:
    limits = topology.front.limits
    return {
        "host": _host(topology, zone),
        "trafficPolicy": {
            "tls": {"mode": "SIMPLE", "sni": _host(topology, zone)},
            "connectionPool": {
                "tcp": {"maxConnections": limits.connections},
                "http": {"http1MaxPendingRequests": limits.pending},
            },
            # Without it Istio does not look at localities at all.
            "outlierDetection": {
                "consecutive5xxErrors": limits.failures,
                "interval": f"{limits.interval_s:g}s",
                "baseEjectionTime": f"{limits.ejection_s:g}s",
                "maxEjectionPercent": limits.ejection_percent,
            },
            "loadBalancer": {"localityLbSetting": _localities(topology, rights, shares, here, zone, routing)},
        },
    }


def _localities(
    topology: Topology, rights: Rights, shares: Shares, here: str, zone: str, routing: Routing
) -> dict[str, Any]:
    """Return where sidecars send a zone's requests: to the nearest and then the next, or by shares.

    Istio takes either. While shares are given, a region that fails is left alone by outlier detection.
    """
    pairs = failover_pairs(topology, rights, shares, zone)
    some = {target.region: target.share for target in routing.targets if target.share > 0}
    if len(some) > 1 or (here in routing.regions and here not in some):
        to = {f"{region}/*": share for region, share in percents(some).items()}
        return {"enabled": True, "distribute": [{"from": f"{here}/*", "to": to}]}
    if here not in routing.regions and some:
        pairs = {**pairs, here: next(iter(some))}  # its own clients only
    if not pairs:
        return {"enabled": True}
    return {"enabled": True, "failover": [{"from": a, "to": b} for a, b in sorted(pairs.items())]}


def _service(topology: Topology, zone: str, routing: Routing) -> dict[str, Any]:
    limits, host = topology.front.limits, _host(topology, zone)
    if not routing.targets:
        body = {"string": f"no lawful target for zone {zone}"}
        return {"hosts": [host], "http": [{"directResponse": {"status": 503, "body": body}}]}
    retries = {
        "attempts": limits.retries,
        "perTryTimeout": f"{limits.per_try_s:g}s",
        "retryOn": _RETRY_ON,
    }
    there = [{"destination": {"host": host, "port": {"number": 80}}}]
    http = {"route": there, "timeout": f"{limits.timeout_s:g}s", "retries": retries}
    return {"hosts": [host], "http": [http]}
