"""Pieces that every configuration is made of: addresses, TLS from files, clusters, health checks, limits."""

from __future__ import annotations

import ssl
from pathlib import Path

from acgs2.drivers.envoy import api
from acgs2.topology import Failover, Limits

__all__ = [
    "NEVER",
    "circuit_breakers",
    "client_tls",
    "collector_cluster",
    "edge_breakers",
    "far_check",
    "http1_options",
    "http2_options",
    "local_cluster",
    "loopback",
    "near_check",
    "outlier_detection",
    "seconds",
    "server_tls",
    "socket_cluster",
    "waiting_breakers",
]

NEVER = "0s"
_HOST = "127.0.0.1"
#: Two connections that one handshake each has to go through before the far end may be told anything.
_CONNECT_S = 5.0
_EDGE_REQUESTS = 1024


def seconds(value: float) -> str:
    """Return a duration."""
    return f"{value:g}s"


def loopback(port: int) -> api.Address:
    """Return an address of this machine."""
    return api.Address(socket_address=api.SocketAddress(address=_HOST, port_value=port))


def _sds(name: str, path: Path) -> api.SdsSecretConfig:
    source = api.ConfigSource(
        path_config_source=api.PathConfigSource(path=str(path)), resource_api_version="V3"
    )
    return api.SdsSecretConfig(name=name, sds_config=source)


def _common(
    folder: Path, identity: str, *, protocols: list[str], peers: str | None, exact: bool = False
) -> api.CommonTlsContext:
    """Return what both ends have in common: this identity, and which peers are accepted by their URI."""
    context = api.CommonTlsContext(
        tls_params=api.TlsParameters(
            tls_minimum_protocol_version="TLSv1_2" if peers is None else "TLSv1_3",
            tls_maximum_protocol_version="TLSv1_3",
        ),
        tls_certificate_sds_secret_configs=[_sds("identity", folder / identity / "secret.json")],
        alpn_protocols=protocols,
    )
    if peers is not None:
        text = api.StringMatcher(exact=peers) if exact else api.StringMatcher(prefix=peers)
        expected = api.SubjectAltNameMatcher(san_type="URI", matcher=text)
        context.combined_validation_context = api.CombinedCertificateValidationContext(
            default_validation_context=api.CertificateValidationContext(
                match_typed_subject_alt_names=[expected]
            ),
            validation_context_sds_secret_config=_sds("trust", folder / "trust.json"),
        )
    return context


def server_tls(
    folder: Path, identity: str, *, protocols: list[str], peers: str | None = None
) -> api.TransportSocket:
    """Return TLS for a listener; with `peers`, only clients whose URI begins so (mutual TLS)."""
    context = api.DownstreamTlsContext(
        common_tls_context=_common(folder, identity, protocols=protocols, peers=peers),
        require_client_certificate=peers is not None,
        # A resumed session would outlive the certificate that it was made with.
        disable_stateless_session_resumption=True,
    )
    return api.TransportSocket(name="tls", typed_config=context)


def client_tls(
    folder: Path, identity: str, *, server_name: str, peer: str, protocols: list[str]
) -> api.TransportSocket:
    """Return TLS towards one peer, known by its URI, that is shown this identity."""
    context = api.UpstreamTlsContext(
        common_tls_context=_common(folder, identity, protocols=protocols, peers=peer, exact=True),
        sni=server_name,
    )
    return api.TransportSocket(name="tls", typed_config=context)


def local_cluster(name: str, port: int) -> api.Cluster:
    """Return a cluster of one address of this machine."""
    return _cluster(name, loopback(port))


def socket_cluster(name: str, path: Path) -> api.Cluster:
    """Return a cluster of one socket of this machine."""
    return _cluster(name, api.Address(pipe=api.Pipe(path=str(path))))


def collector_cluster(name: str, host: str, port: int, *, tls: bool) -> api.Cluster:
    """Return a cluster of a host somewhere, checked by the system's authorities if by TLS."""
    address = api.Address(socket_address=api.SocketAddress(address=host, port_value=port))
    made = _cluster(name, address)
    made.type = "STRICT_DNS"
    if tls:
        made.transport_socket = _public_tls(host)
    return made


def _public_tls(host: str) -> api.TransportSocket:
    name = api.SubjectAltNameMatcher(san_type="DNS", matcher=api.StringMatcher(exact=host))
    known = ssl.get_default_verify_paths()
    context = api.CertificateValidationContext(
        match_typed_subject_alt_names=[name],
        trusted_ca=api.DataSource(filename=known.cafile or known.openssl_cafile),
    )
    common = api.CommonTlsContext(validation_context=context)
    return api.TransportSocket(
        name="tls", typed_config=api.UpstreamTlsContext(common_tls_context=common, sni=host)
    )


def _cluster(name: str, address: api.Address) -> api.Cluster:
    there = api.LbEndpoint(endpoint=api.Endpoint(address=address))
    return api.Cluster(
        name=name,
        type="STATIC",
        connect_timeout=seconds(_CONNECT_S),
        load_assignment=api.ClusterLoadAssignment(
            cluster_name=name, endpoints=[api.LocalityLbEndpoints(lb_endpoints=[there])]
        ),
        # With nobody well, nobody is asked: the answer says so at once.
        common_lb_config=api.CommonLbConfig(healthy_panic_threshold=api.Percent(value=0)),
    )


def waiting_breakers() -> api.CircuitBreakers:
    """Return how many may wait for something to come: each has a connection of its own, and does nothing."""
    most = api.Thresholds(
        max_connections=_EDGE_REQUESTS,
        max_pending_requests=_EDGE_REQUESTS,
        max_requests=_EDGE_REQUESTS,
        max_retries=_EDGE_REQUESTS,
        track_remaining=True,
    )
    return api.CircuitBreakers(thresholds=[most])


def circuit_breakers(limits: Limits) -> api.CircuitBreakers:
    """Return how much may be under way to a region at once."""
    most = api.Thresholds(
        max_connections=limits.connections,
        max_pending_requests=limits.pending,
        max_retries=limits.connections,
        track_remaining=True,
    )
    return api.CircuitBreakers(thresholds=[most])


def edge_breakers() -> api.CircuitBreakers:
    """Return how much may be under way from the edge to a region: what a region takes, its gateway says.

    All goes over one connection; whoever comes before it is made waits for it. When a region is lost, all
    that is under way to it waits for the connection to the next one at once.
    """
    return api.CircuitBreakers(
        thresholds=[
            api.Thresholds(
                max_connections=_EDGE_REQUESTS,
                max_pending_requests=_EDGE_REQUESTS,
                max_requests=_EDGE_REQUESTS,
                max_retries=_EDGE_REQUESTS,
                track_remaining=True,
            )
        ]
    )


def outlier_detection(limits: Limits) -> api.OutlierDetection:
    """Return when a region that cannot be reached is left alone for a while."""
    return api.OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=limits.failures,
        enforcing_consecutive_local_origin_failure=100,
        enforcing_consecutive_5xx=0,
        enforcing_success_rate=0,
        enforcing_local_origin_success_rate=0,
        interval=seconds(limits.interval_s),
        base_ejection_time=seconds(limits.ejection_s),
        max_ejection_percent=limits.ejection_percent,
        # A region is one address here; half of one would never be left alone.
        always_eject_one_host=True,
    )


def far_check(path: str, host: str, failover: Failover) -> api.HealthCheck:
    """Return a probe of a region over HTTP/2, as often as regions observe each other."""
    every = seconds(failover.interval_s)
    return api.HealthCheck(
        timeout=every,
        interval=every,
        no_traffic_interval=every,
        unhealthy_threshold=failover.failures,
        healthy_threshold=failover.successes,
        reuse_connection=True,
        http_health_check=api.HttpHealthCheck(path=path, host=host, codec_client_type="HTTP2"),
    )


def near_check(path: str, failover: Failover) -> api.HealthCheck:
    """Return a probe of the process next to the proxy: it is taken for well as soon as it answers."""
    every = seconds(failover.interval_s)
    return api.HealthCheck(
        timeout=every,
        interval=every,
        no_traffic_interval=every,
        unhealthy_interval=seconds(0.1),
        unhealthy_threshold=failover.failures,
        healthy_threshold=1,
        reuse_connection=True,
        http_health_check=api.HttpHealthCheck(path=path, host="localhost", codec_client_type="HTTP1"),
    )


def http1_options(*, idle_s: float) -> dict[str, api.Message]:
    """Return that HTTP/1.1 is spoken to a cluster, and for how long an unused connection is kept."""
    return _options(api.ExplicitHttpConfig(http_protocol_options=api.Http1ProtocolOptions()), idle_s)


def http2_options(failover: Failover, *, idle_s: float) -> dict[str, api.Message]:
    """Return that HTTP/2 is spoken to a cluster.

    Connections are probed as regions are: what is under way to one that has fallen silent fails when its
    probes do, not when its time is up.
    """
    alive = api.KeepaliveSettings(
        interval=seconds(failover.interval_s), timeout=seconds(failover.interval_s * failover.failures)
    )
    # WebSockets go over the same connection (RFC 8441).
    two = api.Http2ProtocolOptions(connection_keepalive=alive, allow_connect=True)
    return _options(api.ExplicitHttpConfig(http2_protocol_options=two), idle_s)


def _options(explicit: api.ExplicitHttpConfig, idle_s: float) -> dict[str, api.Message]:
    options = api.UpstreamHttpProtocolOptions(
        explicit_http_config=explicit,
        common_http_protocol_options=api.HttpProtocolOptions(idle_timeout=seconds(idle_s)),
    )
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
