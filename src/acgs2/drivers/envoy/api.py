"""The part of Envoy's v3 API that we use, typed; what is left out keeps Envoy's default.

Names are those of the protocol buffers (envoy/config/..., envoy/extensions/...), and so is their JSON.
Durations are strings such as "1.5s". Messages that stand where any may stand carry their type in `@type`.
Tests hold it against `envoy --mode validate`. What HTTP is made of is in `http_api`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

ANY = "type.googleapis.com/envoy."


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A message; fields that have their default are not written."""


# --- envoy.config.core.v3


class SocketAddress(Message):
    address: str
    port_value: int


class Pipe(Message):
    path: str
    mode: int = 0


class Address(Message):
    socket_address: SocketAddress | None = None
    pipe: Pipe | None = None


class PathConfigSource(Message):
    path: str


class ConfigSource(Message):
    path_config_source: PathConfigSource
    resource_api_version: str


class HeaderValue(Message):
    key: str
    value: str


class HeaderValueOption(Message):
    header: HeaderValue
    append_action: str = ""


class DataSource(Message):
    inline_string: str = ""
    filename: str = ""


class SubstitutionFormatString(Message):
    json_format: Mapping[str, object]
    omit_empty_values: bool = False
    content_type: str = ""


class RuntimeUInt32(Message):
    default_value: int
    runtime_key: str


class KeepaliveSettings(Message):
    interval: str
    timeout: str


class HttpProtocolOptions(Message):
    idle_timeout: str = ""
    headers_with_underscores_action: str = ""
    max_headers_count: int = 0


class Http1ProtocolOptions(Message):
    pass


class Http2ProtocolOptions(Message):
    allow_connect: bool = False
    max_concurrent_streams: int = 0
    initial_stream_window_size: int = 0
    initial_connection_window_size: int = 0
    connection_keepalive: KeepaliveSettings | None = None


class TransportSocket(Message):
    name: str
    typed_config: Message


class HttpHealthCheck(Message):
    path: str
    host: str
    codec_client_type: str


class HealthCheck(Message):
    timeout: str
    interval: str
    no_traffic_interval: str
    unhealthy_threshold: int
    healthy_threshold: int
    reuse_connection: bool
    http_health_check: HttpHealthCheck
    unhealthy_interval: str = ""


class Node(Message):
    id: str
    cluster: str


class HttpUri(Message):
    uri: str
    cluster: str
    timeout: str


class HttpService(Message):
    http_uri: HttpUri


# --- envoy.type.matcher.v3


class RegexMatcher(Message):
    regex: str


class StringMatcher(Message):
    exact: str | None = None
    prefix: str | None = None
    safe_regex: RegexMatcher | None = None


# --- envoy.extensions.transport_sockets.tls.v3


class TlsParameters(Message):
    tls_minimum_protocol_version: str
    tls_maximum_protocol_version: str


class SdsSecretConfig(Message):
    name: str
    sds_config: ConfigSource


class SubjectAltNameMatcher(Message):
    san_type: str
    matcher: StringMatcher


class CertificateValidationContext(Message):
    match_typed_subject_alt_names: Sequence[SubjectAltNameMatcher]
    trusted_ca: DataSource | None = None


class CombinedCertificateValidationContext(Message):
    default_validation_context: CertificateValidationContext
    validation_context_sds_secret_config: SdsSecretConfig


class CommonTlsContext(Message):
    tls_params: TlsParameters | None = None
    tls_certificate_sds_secret_configs: Sequence[SdsSecretConfig] = ()
    alpn_protocols: Sequence[str] = ()
    validation_context: CertificateValidationContext | None = None
    combined_validation_context: CombinedCertificateValidationContext | None = None


class DownstreamTlsContext(
    Message, tag_field="@type", tag=f"{ANY}extensions.transport_sockets.tls.v3.DownstreamTlsContext"
):
    common_tls_context: CommonTlsContext
    require_client_certificate: bool
    disable_stateless_session_resumption: bool


class UpstreamTlsContext(
    Message, tag_field="@type", tag=f"{ANY}extensions.transport_sockets.tls.v3.UpstreamTlsContext"
):
    common_tls_context: CommonTlsContext
    sni: str


# --- envoy.config.endpoint.v3, envoy.config.cluster.v3, envoy.extensions.upstreams.http.v3


class Endpoint(Message):
    address: Address


class LbEndpoint(Message):
    endpoint: Endpoint


class LocalityLbEndpoints(Message):
    lb_endpoints: Sequence[LbEndpoint]


class ClusterLoadAssignment(Message):
    cluster_name: str
    endpoints: Sequence[LocalityLbEndpoints]


class Thresholds(Message):
    max_connections: int
    max_pending_requests: int
    max_retries: int
    track_remaining: bool
    max_requests: int | None = None


class CircuitBreakers(Message):
    thresholds: Sequence[Thresholds]


class OutlierDetection(Message):
    split_external_local_origin_errors: bool
    consecutive_local_origin_failure: int
    enforcing_consecutive_local_origin_failure: int
    interval: str
    base_ejection_time: str
    max_ejection_percent: int
    always_eject_one_host: bool
    # Zero is not the default of these.
    enforcing_consecutive_5xx: int | None = None
    enforcing_success_rate: int | None = None
    enforcing_local_origin_success_rate: int | None = None


class Percent(Message):
    value: float | None = None


class CommonLbConfig(Message):
    healthy_panic_threshold: Percent


class AggregateClusterConfig(
    Message, tag_field="@type", tag=f"{ANY}extensions.clusters.aggregate.v3.ClusterConfig"
):
    clusters: Sequence[str]


class CustomClusterType(Message):
    name: str
    typed_config: Message


class ExplicitHttpConfig(Message):
    http_protocol_options: Http1ProtocolOptions | None = None
    http2_protocol_options: Http2ProtocolOptions | None = None


class UpstreamHttpProtocolOptions(
    Message, tag_field="@type", tag=f"{ANY}extensions.upstreams.http.v3.HttpProtocolOptions"
):
    explicit_http_config: ExplicitHttpConfig
    common_http_protocol_options: HttpProtocolOptions


class Cluster(Message):
    name: str
    connect_timeout: str
    type: str = ""
    cluster_type: CustomClusterType | None = None
    lb_policy: str = ""
    load_assignment: ClusterLoadAssignment | None = None
    common_lb_config: CommonLbConfig | None = None
    health_checks: Sequence[HealthCheck] = ()
    circuit_breakers: CircuitBreakers | None = None
    outlier_detection: OutlierDetection | None = None
    transport_socket: TransportSocket | None = None
    typed_extension_protocol_options: Mapping[str, Message] = {}


class Extension(Message):
    name: str
    typed_config: Message


# --- envoy.config.listener.v3, envoy.extensions.filters


class TcpProxy(Message, tag_field="@type", tag=f"{ANY}extensions.filters.network.tcp_proxy.v3.TcpProxy"):
    stat_prefix: str
    cluster: str
    idle_timeout: str


class TlsInspector(
    Message, tag_field="@type", tag=f"{ANY}extensions.filters.listener.tls_inspector.v3.TlsInspector"
):
    pass


class FilterChainMatch(Message):
    server_names: Sequence[str]


class FilterChain(Message):
    filters: Sequence[Extension]
    filter_chain_match: FilterChainMatch | None = None
    transport_socket: TransportSocket | None = None
    transport_socket_connect_timeout: str = ""


class Listener(Message):
    name: str
    address: Address
    filter_chains: Sequence[FilterChain]
    listener_filters: Sequence[Extension] = ()
    listener_filters_timeout: str = ""
    per_connection_buffer_limit_bytes: int = 0


# --- envoy.config.bootstrap.v3, envoy.service.discovery.v3


class StaticResources(Message):
    listeners: Sequence[Message]
    clusters: Sequence[Message]


class DynamicResources(Message):
    lds_config: ConfigSource
    cds_config: ConfigSource


class Admin(Message):
    address: Address


class DownstreamConnections(
    Message,
    tag_field="@type",
    tag=f"{ANY}extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
):
    max_active_downstream_connections: int


class OverloadManager(Message):
    resource_monitors: Sequence[Extension]


class RuntimeLayer(Message):
    name: str
    static_layer: Mapping[str, object]


class LayeredRuntime(Message):
    layers: Sequence[RuntimeLayer]


class Bootstrap(Message):
    node: Node
    overload_manager: OverloadManager
    layered_runtime: LayeredRuntime
    static_resources: StaticResources | None = None
    dynamic_resources: DynamicResources | None = None
    admin: Admin | None = None
