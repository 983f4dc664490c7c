"""How HTTP is taken in: what is refused before anybody looks at it, what is logged, what is answered.

Limits are those that Envoy's authors advise ("Configuring Envoy as an edge proxy").
"""

from __future__ import annotations

from pathlib import Path
from typing import Any as Value

from acgs2.drivers.envoy import api, http_api
from acgs2.drivers.envoy.answers import BUFFER, local_replies
from acgs2.drivers.envoy.parts import seconds
from acgs2.topology import Clients

__all__ = ["access_log", "http_manager"]

#: As the region's server takes it.
_BODY_BYTES = 300 * 1024
#: No address, path, query, header of the client's making, nor anything of a body: none may name a person.
_FIELDS: dict[str, str] = {
    "at": "%START_TIME%",
    "route": "%ROUTE_NAME%",
    # As much as the longest of the usual ones: any word may be sent as one.
    "method": "%REQ(:METHOD):7%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "why": "%RESPONSE_CODE_DETAILS%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "region": "%RESP(X-ACGS2-REGION)%",
    "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "duration_ms": "%DURATION%",
    "upstream_ms": "%RESPONSE_DURATION%",
    "received_bytes": "%BYTES_RECEIVED%",
    "sent_bytes": "%BYTES_SENT%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace_id": "%TRACE_ID%",
}


#: What would go into traces with whatever a client puts there.
_FORGET = api.Extension(
    name="forget",
    typed_config=http_api.EarlyHeaderMutation(
        mutations=[http_api.HeaderRemoval(remove=name) for name in ("tracestate", "baggage")]
    ),
)


def access_log(path: Path) -> api.Extension:
    """Return a log of requests as JSON lines without personal data."""
    format_ = api.SubstitutionFormatString(json_format=_FIELDS, omit_empty_values=True)
    return api.Extension(name="file", typed_config=http_api.FileAccessLog(path=str(path), log_format=format_))


def http_manager(
    name: str,
    log: Path | None,
    *,
    table: http_api.RouteConfiguration | None = None,
    rds: http_api.Rds | None = None,
    tracing: http_api.Tracing | None = None,
    clients: Clients,
    edge: bool,
    trusted: bool = False,
) -> http_api.HttpConnectionManager:
    """Return the connection manager of a listener.

    Args:
        name: prefix of its statistics.
        log: where requests are logged, None where they are not.
        table: its routes, or None where they come from a file.
        rds: the file that they come from.
        tracing: where spans go.
        edge: whether this is the edge, and not a region's gateway.
        trusted: whether only the edge gets here, so that requests keep the ids that they have; a client's own
            are replaced, for they are logged.
        clients: how long they may take.
    """
    options: dict[str, Value] = {"route_config": table} if table is not None else {"rds": rds}
    return http_api.HttpConnectionManager(
        stat_prefix=name,
        **options,
        early_header_mutation_extensions=[_FORGET],
        http_filters=[
            # Only whole bodies go on: who sends slowly holds none of the few connections to the region, and
            # who is told early that a body is too large is not taken for a region that broke off.
            api.Extension(name=BUFFER, typed_config=http_api.Buffer(max_request_bytes=_BODY_BYTES)),
            api.Extension(name="router", typed_config=http_api.Router()),
        ],
        common_http_protocol_options=api.HttpProtocolOptions(
            idle_timeout=seconds(60 if edge else 300),
            headers_with_underscores_action="REJECT_REQUEST",
            max_headers_count=100,
        ),
        http2_protocol_options=api.Http2ProtocolOptions(
            allow_connect=not edge,
            max_concurrent_streams=100 if edge else 1000,
            initial_stream_window_size=64 * 1024,
            initial_connection_window_size=1024 * 1024,
        ),
        server_name="acgs2",
        max_request_headers_kb=32,
        request_headers_timeout=seconds(clients.headers_s),
        request_timeout=seconds(clients.request_s),
        stream_idle_timeout=seconds(clients.silence_s),
        access_log=[access_log(log)] if log is not None else [],
        use_remote_address=True,
        skip_xff_append=True,
        preserve_external_request_id=trusted,
        always_set_request_id_in_response=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        strip_any_host_port=True,
        local_reply_config=local_replies(edge=edge),
        tracing=tracing,
    )
