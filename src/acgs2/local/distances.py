"""What the links process carries: regions to each other, places to regions, and clients to the edge."""

from __future__ import annotations

from acgs2.local.links.config import LinksConfig, LinkSpec, RouteSpec
from acgs2.local.state import State

__all__ = ["links_config"]


def links_config(state: State) -> LinksConfig:
    """Return the configuration of the links process for the topology of a state."""
    topology, ports = state.topology, state.ports
    clients = topology.client_links()
    ways = [(a, b, "mesh", f"route/{a}/{b}", f"mesh/{b}") for a, b in topology.directions()]
    ways += [(n.a, n.b, "gateway", f"route/{n.a}/{n.b}", f"gateway/{n.b}") for n in clients]
    ways += [(place, "edge", "edge", f"client/{place}", f"edge/{place}") for place in topology.places]
    routes = [
        RouteSpec(source=a, target=b, service=service, listen_port=ports[begins], target_port=ports[ends])
        for a, b, service, begins, ends in ways
    ]
    specs = [
        LinkSpec(
            a=n.a,
            b=n.b,
            rtt_ms=n.rtt_ms,
            jitter_ms=n.jitter_ms,
            bandwidth_mbps=n.bandwidth_mbps,
            loss=n.loss,
        )
        for n in (*topology.links(), *clients)
    ]
    specs += [
        LinkSpec(a=name, b="edge", rtt_ms=place.access_ms, jitter_ms=round(place.access_ms * 0.1, 2))
        for name, place in topology.places.items()
    ]
    return LinksConfig(control_port=ports["links"], token=state.secrets["links"], routes=routes, links=specs)
