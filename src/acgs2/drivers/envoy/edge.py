"""The global edge: a point of presence per place, each with its own distances, all by one decision."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from acgs2.drivers.envoy import api, http_api
from acgs2.drivers.envoy.files import Resources, routes_path
from acgs2.drivers.envoy.gateway import front_name, region_uri
from acgs2.drivers.envoy.manager import http_manager
from acgs2.drivers.envoy.parts import (
    client_tls,
    edge_breakers,
    far_check,
    http2_options,
    local_cluster,
    loopback,
    outlier_detection,
    seconds,
    server_tls,
)
from acgs2.drivers.envoy.routes import Order, Traffic, order_name, table
from acgs2.drivers.envoy.stats import stats
from acgs2.drivers.envoy.traces import tracing
from acgs2.topology import Topology

__all__ = ["EdgeSite", "edge_files"]

IDENTITY = "edge"


@dataclass(frozen=True)
class EdgeSite:
    """Where the edge listens, place by place, and where the way from there to each region begins.

    Args:
        ports: place to port of this machine.
        upstreams: (place, region) to port of this machine.
        otlp: the collector that spans go to, if any.
        stats_port: where its own metrics are answered.
        admin: its admin interface's socket, where metrics come from.
    """

    folder: Path
    tls: Path
    logs: Path
    ports: Mapping[str, int]
    upstreams: Mapping[tuple[str, str], int] = field(default_factory=dict)
    otlp: str | None = None
    stats_port: int | None = None
    admin: Path | None = None


def edge_files(
    site: EdgeSite,
    topology: Topology,
    traffic: Traffic,
    *,
    before: Collection[Order] = (),
    inline: bool = False,
) -> tuple[Resources, set[Order]]:
    """Return what the edge is told, and the orders of several regions that its routes name.

    Args:
        site: ports and files.
        topology: regions, places, limits.
        traffic: rights, health and weights, as they are now.
        before: orders of regions that routes in use still name; they stay until the new routes are in use.
        inline: whether routes are part of the listeners instead of files, to validate all at once.
    """
    traced, collectors = tracing(site.otlp, "edge")
    tables = {place: table(topology, traffic, place) for place in site.ports}
    used = {order for _, orders in tables.values() for order in orders}
    listeners: list[api.Listener] = []
    for place, port in site.ports.items():
        own = tables[place][0]
        source = api.ConfigSource(
            path_config_source=api.PathConfigSource(path=str(routes_path(site.folder, place))),
            resource_api_version="V3",
        )
        manager = http_manager(
            f"edge.{place}",
            site.logs / f"edge.{place}.access.log",
            table=own if inline else None,
            rds=None if inline else http_api.Rds(config_source=source, route_config_name=place),
            tracing=traced,
            clients=topology.front.clients,
            edge=True,
        )
        chain = api.FilterChain(
            filters=[api.Extension(name="http", typed_config=manager)],
            transport_socket=server_tls(site.tls, IDENTITY, protocols=["h2", "http/1.1"]),
            transport_socket_connect_timeout=seconds(topology.front.clients.handshake_s),
        )
        listeners.append(
            api.Listener(
                name=place,
                address=loopback(port),
                per_connection_buffer_limit_bytes=64 * 1024,
                filter_chains=[chain],
            )
        )
    ways = [_region(site, topology, place, region, port) for (place, region), port in site.upstreams.items()]
    several = [_order(place, order) for place, order in sorted(used | {*before})]
    own, admin = stats(site.stats_port, site.admin, site.logs / "edge.access.log")
    files = {} if inline else {place: own_table for place, (own_table, _) in tables.items()}
    clusters = [*ways, *several, *collectors, *admin]
    return Resources([*listeners, *own], clusters, files), used


def _region(site: EdgeSite, topology: Topology, place: str, region: str, port: int) -> api.Cluster:
    """Return the way from a place to a region."""
    limits, failover, domain = topology.front.limits, topology.failover, topology.domain
    made = local_cluster(order_name(place, (region,)), port)
    made.transport_socket = client_tls(
        site.tls,
        IDENTITY,
        server_name=front_name(region),
        peer=region_uri(domain, region),
        protocols=["h2"],
    )
    made.typed_extension_protocol_options = http2_options(failover, idle_s=3600)
    made.circuit_breakers = edge_breakers()
    made.outlier_detection = outlier_detection(limits)
    made.health_checks = [far_check("/health/ready", front_name(region), failover)]
    return made


def _order(place: str, order: tuple[str, ...]) -> api.Cluster:
    """Return regions in an order: the first that is well takes it."""
    config = api.AggregateClusterConfig(clusters=[order_name(place, (region,)) for region in order])
    return api.Cluster(
        name=order_name(place, order),
        cluster_type=api.CustomClusterType(name="envoy.clusters.aggregate", typed_config=config),
        lb_policy="CLUSTER_PROVIDED",
        connect_timeout=seconds(5),
        # Retries are counted here, not where they go.
        circuit_breakers=edge_breakers(),
    )
