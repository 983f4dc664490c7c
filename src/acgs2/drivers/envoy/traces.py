"""Spans of the proxies, sent by OTLP: the context that a client began with goes on to the region's server."""

from __future__ import annotations

from acgs2.drivers.envoy import api
from acgs2.drivers.envoy.parts import http1_options, local_cluster, seconds

__all__ = ["tracing"]

_COLLECTOR = "collector"
#: What Envoy would say by itself of who asked, and how.
_PERSONAL = ("http.url", "user_agent", "peer.address", "guid:x-client-trace-id")


def tracing(otlp_port: int | None, name: str) -> tuple[api.Tracing | None, list[api.Cluster]]:
    """Return how a proxy traces, and the cluster that spans go to; nothing where there is no collector."""
    if otlp_port is None:
        return None, []
    uri = api.HttpUri(uri=f"http://127.0.0.1:{otlp_port}/v1/traces", cluster=_COLLECTOR, timeout=seconds(1))
    provider = api.OpenTelemetryConfig(
        http_service=api.HttpService(http_uri=uri), service_name=f"acgs2-{name}"
    )
    made = api.Tracing(
        provider=api.Extension(name="opentelemetry", typed_config=provider),
        # Whoever begins the trace decides whether it is kept; a span of ours has nothing else of a client's.
        max_path_tag_length=1,
        custom_tags=[api.CustomTag(tag=tag, literal=api.CustomTagLiteral(value="-")) for tag in _PERSONAL],
    )
    collector = local_cluster(_COLLECTOR, otlp_port)
    collector.typed_extension_protocol_options = http1_options(idle_s=60)
    return made, [collector]
