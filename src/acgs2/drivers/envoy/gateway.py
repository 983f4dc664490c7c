"""A region's gateway: clients and the edge come in by HTTPS, other regions by mutual TLS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from acgs2.drivers.envoy import api, http_api
from acgs2.drivers.envoy.answers import direct, malformed, set_header
from acgs2.drivers.envoy.files import Resources
from acgs2.drivers.envoy.manager import http_manager
from acgs2.drivers.envoy.parts import (
    NEVER,
    circuit_breakers,
    client_tls,
    http1_options,
    local_cluster,
    loopback,
    near_check,
    outlier_detection,
    seconds,
    server_tls,
    waiting_breakers,
)
from acgs2.drivers.envoy.stats import stats
from acgs2.drivers.envoy.traces import tracing
from acgs2.drivers.envoy.waiting import as_stream, inboxes, streams
from acgs2.model import entities
from acgs2.topology import Clients, Failover, Limits

__all__ = ["GatewaySite", "edge_uri", "front_name", "gateway_files", "region_uri"]

_SERVER = "server"
#: The same, for those who wait there: they must not take the connections of those who do not.
_WAITING = "waiting"
#: The same, for other regions that look whether it is well: however busy it is, they are told.
_HEALTH = "health"
_LOOK_S = 5
_TRIES = "connect-failure,refused-stream"
#: Tells which name a client asks for.
_INSPECTOR = api.Extension(name="tls_inspector", typed_config=api.TlsInspector())


@dataclass(frozen=True)
class GatewaySite:
    """Where the parts of one region listen. Ports are of this machine.

    Args:
        egress: peer to (where this region's processes find its database, where the link to it begins).
        neighbours: peer to where this region's processes find its gateway, over the same link.
        otlp: the collector that spans go to, if any.
        stats_port: where its own metrics are answered.
        admin: its admin interface's socket, where metrics come from.
    """

    region: str
    domain: str
    tls: Path
    access_log: Path
    port: int
    mesh_port: int
    server_port: int
    database_port: int
    egress: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    neighbours: Mapping[str, int] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    clients: Clients = field(default_factory=Clients)
    failover: Failover = field(default_factory=Failover)
    otlp: str | None = None
    stats_port: int | None = None
    admin: Path | None = None


def region_uri(domain: str, region: str = "") -> str:
    """Return the identity of a region in its certificate, or what all of them begin with (SPIFFE ID)."""
    return f"spiffe://{domain}/region/{region}"


def edge_uri(domain: str) -> str:
    """Return the identity of the edge in its certificate (SPIFFE ID)."""
    return f"spiffe://{domain}/edge"


def front_name(region: str) -> str:
    """Return the name by which the edge asks for a region's gateway; clients use that of its endpoint."""
    return f"edge.{region}"


def gateway_files(site: GatewaySite) -> Resources:
    """Return what the gateway of a region is told."""
    traced, collectors = tracing(site.otlp, f"gateway {site.region}")
    own, admin = stats(site.stats_port, site.admin, site.access_log)
    egress = [_egress(peer, f"database of {peer}", port) for peer, (port, _) in site.egress.items()]
    egress += [_egress(f"gateway {p}", f"gateway of {p}", port) for p, port in site.neighbours.items()]
    return Resources(
        listeners=[_front(site, traced), _mesh(site), *egress, *own],
        clusters=[
            _server(site),
            _waiting(site),
            local_cluster("database", site.database_port),
            _health(site),
            *(_peer(site, peer, port) for peer, (_, port) in site.egress.items()),
            *(_neighbour(site, peer, site.egress[peer][1]) for peer in site.neighbours),
            *collectors,
            *admin,
        ],
    )


def _front(site: GatewaySite, traced: http_api.Tracing | None) -> api.Listener:
    """Return where clients and the edge come in; the edge is known by its certificate."""

    def chain(*, trusted: bool) -> api.FilterChain:
        manager = http_manager(
            "gateway",
            site.access_log,
            table=_table(site),
            tracing=traced,
            clients=site.clients,
            edge=False,
            trusted=trusted,
        )
        return api.FilterChain(
            filter_chain_match=api.FilterChainMatch(server_names=[front_name(site.region)])
            if trusted
            else None,
            filters=[api.Extension(name="http", typed_config=manager)],
            transport_socket=server_tls(
                site.tls,
                site.region,
                protocols=["h2", "http/1.1"],
                peers=edge_uri(site.domain) if trusted else None,
            ),
            transport_socket_connect_timeout=seconds(site.clients.handshake_s),
        )

    return api.Listener(
        name="gateway",
        address=loopback(site.port),
        per_connection_buffer_limit_bytes=64 * 1024,
        listener_filters=[_INSPECTOR],
        listener_filters_timeout=seconds(site.clients.handshake_s),
        filter_chains=[chain(trusted=True), chain(trusted=False)],
    )


def _table(site: GatewaySite) -> http_api.RouteConfiguration:
    """Return the routes: all lead to the region's server, named so that the log need not have paths."""

    def to_server(name: str, match: http_api.RouteMatch) -> http_api.Route:
        action = http_api.RouteAction(
            cluster=_SERVER,
            timeout=seconds(site.limits.timeout_s),
            retry_policy=http_api.RetryPolicy(
                retry_on=_TRIES,
                num_retries=site.limits.retries,
                per_try_timeout=seconds(site.limits.per_try_s),
            ),
        )
        return http_api.Route(name=name, match=match, route=action)

    def wait_for(name: str, match: http_api.RouteMatch) -> http_api.Route:
        retries = http_api.RetryPolicy(
            retry_on=_TRIES, num_retries=site.limits.retries, per_try_timeout=seconds(site.limits.timeout_s)
        )
        action = http_api.RouteAction(
            cluster=_WAITING, timeout=seconds(site.limits.timeout_s), retry_policy=retries
        )
        return http_api.Route(name=name, match=match, route=action)

    inside = [
        direct(
            name,
            http_api.RouteMatch(path_separated_prefix=path),
            404,
            "not-found",
            "There is nothing here.",
            f"{name.title()} are read inside the region.",
        )
        for name, path in (("metrics", "/metrics"), ("observations", "/health/observations"))
    ]
    named = [
        to_server(e.path, http_api.RouteMatch(path_separated_prefix=f"/api/v1/{e.path}"))
        for e in entities().values()
    ]
    waiting = [as_stream(wait_for("streams", streams())), wait_for("inboxes", inboxes())]
    rest = [
        to_server("health", http_api.RouteMatch(path_separated_prefix="/health")),
        to_server("api", http_api.RouteMatch(prefix="/api/")),
        to_server("other", http_api.RouteMatch(prefix="/")),
    ]
    host = http_api.VirtualHost(
        name="region", domains=["*"], routes=[malformed(), *inside, *waiting, *named, *rest]
    )
    return http_api.RouteConfiguration(
        name="gateway",
        virtual_hosts=[host],
        response_headers_to_add=[set_header("x-acgs2-region", site.region)],
    )


def _server(site: GatewaySite) -> api.Cluster:
    made = local_cluster(_SERVER, site.server_port)
    made.circuit_breakers = circuit_breakers(site.limits)
    made.outlier_detection = outlier_detection(site.limits)
    made.health_checks = [near_check("/health/live", site.failover)]
    # Shorter than the server keeps an unused connection, so that none is used just as it is closed.
    made.typed_extension_protocol_options = http1_options(idle_s=5)
    return made


def _waiting(site: GatewaySite) -> api.Cluster:
    made = local_cluster(_WAITING, site.server_port)
    made.circuit_breakers = waiting_breakers()
    made.outlier_detection = outlier_detection(site.limits)
    made.typed_extension_protocol_options = http1_options(idle_s=5)
    return made


def _health(site: GatewaySite) -> api.Cluster:
    made = local_cluster(_HEALTH, site.server_port)
    made.typed_extension_protocol_options = http1_options(idle_s=5)
    return made


def _mesh(site: GatewaySite) -> api.Listener:
    """Return where other regions come in, with a region's certificate only.

    They get to this region's database, and to what the region says of itself.
    """
    # The second is what its certificate is for: who asks whether it presents that one verifies the name.
    names = [_database_name(site.region), f"api.{site.region}.{site.domain}"]
    manager = http_manager("mesh", None, table=_told(site), clients=site.clients, edge=False, trusted=True)

    def chain(names: list[str], filter_: api.Extension, protocol: str) -> api.FilterChain:
        return api.FilterChain(
            filter_chain_match=api.FilterChainMatch(server_names=names),
            filters=[filter_],
            transport_socket=server_tls(
                site.tls, site.region, protocols=[protocol], peers=region_uri(site.domain)
            ),
            transport_socket_connect_timeout=seconds(site.clients.handshake_s),
        )

    return api.Listener(
        name="mesh",
        address=loopback(site.mesh_port),
        listener_filters=[_INSPECTOR],
        listener_filters_timeout=seconds(site.clients.handshake_s),
        filter_chains=[
            chain(names, _tcp("mesh", "database"), "postgresql"),
            chain([_gateway_name(site.region)], api.Extension(name="http", typed_config=manager), "http/1.1"),
        ],
    )


def _told(site: GatewaySite) -> http_api.RouteConfiguration:
    """Return the routes of other regions: what this one says of its health, and nothing else."""
    action = http_api.RouteAction(cluster=_HEALTH, timeout=seconds(_LOOK_S))
    route = http_api.Route(
        name="health", match=http_api.RouteMatch(path_separated_prefix="/health"), route=action
    )
    return http_api.RouteConfiguration(
        name="mesh", virtual_hosts=[http_api.VirtualHost(name="region", domains=["*"], routes=[route])]
    )


def _egress(name: str, cluster: str, port: int) -> api.Listener:
    return api.Listener(
        name=f"egress {name}",
        address=loopback(port),
        filter_chains=[api.FilterChain(filters=[_tcp("egress", cluster)])],
    )


def _peer(site: GatewaySite, peer: str, port: int) -> api.Cluster:
    return _over_link(site, peer, port, f"database of {peer}", _database_name(peer), "postgresql")


def _neighbour(site: GatewaySite, peer: str, port: int) -> api.Cluster:
    return _over_link(site, peer, port, f"gateway of {peer}", _gateway_name(peer), "http/1.1")


def _over_link(
    site: GatewaySite, peer: str, port: int, name: str, server_name: str, protocol: str
) -> api.Cluster:
    made = local_cluster(name, port)
    made.transport_socket = client_tls(
        site.tls,
        site.region,
        server_name=server_name,
        peer=region_uri(site.domain, peer),
        protocols=[protocol],
    )
    return made


def _gateway_name(region: str) -> str:
    return f"gateway.{region}"


def _database_name(region: str) -> str:
    return f"database.{region}"


def _tcp(name: str, cluster: str) -> api.Extension:
    # A subscription may have nothing to say for hours.
    proxy = api.TcpProxy(stat_prefix=name, cluster=cluster, idle_timeout=NEVER)
    return api.Extension(name="tcp", typed_config=proxy)
