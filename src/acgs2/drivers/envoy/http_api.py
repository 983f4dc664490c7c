"""The part of Envoy's v3 API that we use for HTTP, typed as in `api`: routes, logs, connection manager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from acgs2.drivers.envoy.api import (
    ANY,
    ConfigSource,
    DataSource,
    Extension,
    HeaderValueOption,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpService,
    Message,
    RegexMatcher,
    RuntimeUInt32,
    StringMatcher,
    SubstitutionFormatString,
)

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
    safe_regex: RegexMatcher | None = None
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
    tag=f"{ANY}extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
):
    update_frequency: int


class PreviousHosts(
    Message, tag_field="@type", tag=f"{ANY}extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
):
    pass


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


class UpgradeConfig(Message):
    upgrade_type: str


class RouteAction(Message):
    timeout: str
    retry_policy: RetryPolicy | None = None
    upgrade_configs: Sequence[UpgradeConfig] = ()
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
    Message, tag_field="@type", tag=f"{ANY}extensions.access_loggers.filters.cel.v3.ExpressionFilter"
):
    expression: str


class AndFilter(Message):
    filters: Sequence[AccessLogFilter]


class AccessLogFilter(Message):
    response_flag_filter: ResponseFlagFilter | None = None
    status_code_filter: StatusCodeFilter | None = None
    and_filter: AndFilter | None = None
    extension_filter: Extension | None = None


class FileAccessLog(Message, tag_field="@type", tag=f"{ANY}extensions.access_loggers.file.v3.FileAccessLog"):
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


class Buffer(Message, tag_field="@type", tag=f"{ANY}extensions.filters.http.buffer.v3.Buffer"):
    max_request_bytes: int


class BufferPerRoute(
    Message, tag_field="@type", tag=f"{ANY}extensions.filters.http.buffer.v3.BufferPerRoute"
):
    disabled: bool


class Router(Message, tag_field="@type", tag=f"{ANY}extensions.filters.http.router.v3.Router"):
    pass


class HeaderRemoval(Message):
    remove: str


class EarlyHeaderMutation(
    Message,
    tag_field="@type",
    tag=f"{ANY}extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
):
    mutations: Sequence[HeaderRemoval]


class Rds(Message):
    config_source: ConfigSource
    route_config_name: str


class OpenTelemetryConfig(Message, tag_field="@type", tag=f"{ANY}config.trace.v3.OpenTelemetryConfig"):
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
    tag=f"{ANY}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
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
