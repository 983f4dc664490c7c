"""The part of Envoy's v3 API that we use, typed; what is left out keeps Envoy's default.

Names are those of the protocol buffers (envoy/config/..., envoy/extensions/...), and so is their JSON.
Durations are strings such as "1.5s". Messages that stand where any may stand carry their type in `@type`.
Tests hold it against `envoy --mode validate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

_ANY = "type.googleapis.com/envoy."


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
    Message, tag_field="@type", tag=f"{_ANY}extensions.transport_sockets.tls.v3.DownstreamTlsContext"
):
    common_tls_context: CommonTlsContext
    require_client_certificate: bool
    disable_stateless_session_resumption: bool


class UpstreamTlsContext(
    Message, tag_field="@type", tag=f"{_ANY}extensions.transport_sockets.tls.v3.UpstreamTlsContext"
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
    Message, tag_field="@type", tag=f"{_ANY}extensions.clusters.aggregate.v3.ClusterConfig"
):
    clusters: Sequence[str]


class CustomClusterType(Message):
    name: str
    typed_config: Message


class ExplicitHttpConfig(Message):
    http_protocol_options: Http1ProtocolOptions | None = None
    http2_protocol_options: Http2ProtocolOptions | None = None


class UpstreamHttpProtocolOptions(
    Message, tag_field="@type", tag=f"{_ANY}extensions.upstreams.http.v3.HttpProtocolOptions"
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


# --- envoy.config.route.v3, envoy.extensions.retry


class HeaderMatcher(Message):
    name: str
    string_match: StringMatcher | None = None
    present_match: bool = False
    invert_match: bool = False
    treat_missing_header_as_empty: bool = False


class RouteMatch(Message):
    prefix: str | None = None
    path: str | None = None
    path_separated_prefix: str | None = None
    headers: Sequence[HeaderMatcher] = ()


class ClusterWeight(Message):
    name: str
    weight: int


class WeightedCluster(Message):
    clusters: Sequence[ClusterWeight]


class RetryBackOff(Message):
    base_interval: str
    max_interval: str


class PreviousPriorities(
    Message,
    tag_field="@type",
    tag=f"{_ANY}extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
):
    update_frequency: int


class PreviousHosts(
    Message, tag_field="@type", tag=f"{_ANY}extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
):
    pass


class Extension(Message):
    name: str
    typed_config: Message


class RetryPolicy(Message):
    retry_on: str
    num_retries: int
    per_try_timeout: str
    retriable_status_codes: Sequence[int] = ()
    retriable_headers: Sequence[HeaderMatcher] = ()
    retry_back_off: RetryBackOff | None = None
    retry_priority: Extension | None = None
    retry_host_predicate: Sequence[Extension] = ()
    host_selection_retry_max_attempts: int = 0


class RouteAction(Message):
    timeout: str
    retry_policy: RetryPolicy
    cluster: str | None = None
    prefix_rewrite: str = ""
    weighted_clusters: WeightedCluster | None = None


class DirectResponseAction(Message):
    status: int
    body: DataSource


class Route(Message):
    name: str
    match: RouteMatch
    route: RouteAction | None = None
    direct_response: DirectResponseAction | None = None
    response_headers_to_add: Sequence[HeaderValueOption] = ()
    typed_per_filter_config: Mapping[str, Message] = {}


class VirtualHost(Message):
    name: str
    domains: Sequence[str]
    routes: Sequence[Route]


class RouteConfiguration(Message):
    name: str
    virtual_hosts: Sequence[VirtualHost]
    response_headers_to_add: Sequence[HeaderValueOption] = ()
    request_headers_to_remove: Sequence[str] = ()


# --- envoy.config.accesslog.v3, envoy.extensions.access_loggers.file.v3


class ResponseFlagFilter(Message):
    flags: Sequence[str]


class ComparisonFilter(Message):
    op: str
    value: RuntimeUInt32


class StatusCodeFilter(Message):
    comparison: ComparisonFilter


class ExpressionFilter(
    Message, tag_field="@type", tag=f"{_ANY}extensions.access_loggers.filters.cel.v3.ExpressionFilter"
):
    expression: str


class AndFilter(Message):
    filters: Sequence[AccessLogFilter]


class AccessLogFilter(Message):
    response_flag_filter: ResponseFlagFilter | None = None
    status_code_filter: StatusCodeFilter | None = None
    and_filter: AndFilter | None = None
    extension_filter: Extension | None = None


class FileAccessLog(Message, tag_field="@type", tag=f"{_ANY}extensions.access_loggers.file.v3.FileAccessLog"):
    path: str
    log_format: SubstitutionFormatString


# --- envoy.extensions.filters.network.http_connection_manager.v3, envoy.config.trace.v3


class ResponseMapper(Message):
    filter: AccessLogFilter
    status_code: int
    body_format_override: SubstitutionFormatString
    headers_to_add: Sequence[HeaderValueOption] = ()


class LocalReplyConfig(Message):
    mappers: Sequence[ResponseMapper]


class Buffer(Message, tag_field="@type", tag=f"{_ANY}extensions.filters.http.buffer.v3.Buffer"):
    max_request_bytes: int


class BufferPerRoute(
    Message, tag_field="@type", tag=f"{_ANY}extensions.filters.http.buffer.v3.BufferPerRoute"
):
    disabled: bool


class Router(Message, tag_field="@type", tag=f"{_ANY}extensions.filters.http.router.v3.Router"):
    pass


class HeaderRemoval(Message):
    remove: str


class EarlyHeaderMutation(
    Message,
    tag_field="@type",
    tag=f"{_ANY}extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
):
    mutations: Sequence[HeaderRemoval]


class Rds(Message):
    config_source: ConfigSource
    route_config_name: str


class OpenTelemetryConfig(Message, tag_field="@type", tag=f"{_ANY}config.trace.v3.OpenTelemetryConfig"):
    http_service: HttpService
    service_name: str


class Literal(Message):
    value: str


class CustomTag(Message):
    tag: str
    literal: Literal


class Tracing(Message):
    provider: Extension
    max_path_tag_length: int
    custom_tags: Sequence[CustomTag]


class HttpConnectionManager(
    Message,
    tag_field="@type",
    tag=f"{_ANY}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
):
    stat_prefix: str
    http_filters: Sequence[Extension]
    common_http_protocol_options: HttpProtocolOptions
    http2_protocol_options: Http2ProtocolOptions
    server_name: str
    max_request_headers_kb: int
    request_headers_timeout: str
    request_timeout: str
    stream_idle_timeout: str
    access_log: Sequence[Extension]
    use_remote_address: bool
    skip_xff_append: bool
    preserve_external_request_id: bool
    always_set_request_id_in_response: bool
    normalize_path: bool
    merge_slashes: bool
    path_with_escaped_slashes_action: str
    strip_any_host_port: bool
    local_reply_config: LocalReplyConfig
    early_header_mutation_extensions: Sequence[Extension] = ()
    route_config: RouteConfiguration | None = None
    rds: Rds | None = None
    tracing: Tracing | None = None


# --- envoy.config.listener.v3, envoy.extensions.filters


class TcpProxy(Message, tag_field="@type", tag=f"{_ANY}extensions.filters.network.tcp_proxy.v3.TcpProxy"):
    stat_prefix: str
    cluster: str
    idle_timeout: str


class TlsInspector(
    Message, tag_field="@type", tag=f"{_ANY}extensions.filters.listener.tls_inspector.v3.TlsInspector"
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
    tag=f"{_ANY}extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
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


#: What a file of resources says that each of them is.
RESOURCE_TYPES: Mapping[type[Message], str] = {
    Listener: f"{_ANY}config.listener.v3.Listener",
    Cluster: f"{_ANY}config.cluster.v3.Cluster",
    RouteConfiguration: f"{_ANY}config.route.v3.RouteConfiguration",
}
