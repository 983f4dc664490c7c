"""Spans of the proxies, sent by OTLP: the context that a client began with goes on to the region's server."""

from __future__ import annotations

from urllib.parse import urlsplit

from acgs2.drivers.envoy import api, http_api
from acgs2.drivers.envoy.parts import collector_cluster, http1_options, seconds

__all__ = ["tracing"]

_COLLECTOR = "collector"
#: What Envoy says of whoever asks, whether one wants it or not; here it says nothing instead.
_PERSONAL = ("http.url", "user_agent", "peer.address", "downstream_cluster", "guid:x-client-trace-id")


def tracing(otlp: str | None, name: str) -> tuple[http_api.Tracing | None, list[api.Cluster]]:
    """Return how a proxy traces, and the cluster that spans go to; nothing where there is no collector.

    Args:
        otlp: the collector's base URL; a span of ours has no address and no path.
        name: of the proxy, as spans show it.
    """
    if otlp is None:
        return None, []
    url = urlsplit(otlp)
    port = url.port or (443 if url.scheme == "https" else 80)
    uri = api.HttpUri(uri=f"{otlp.rstrip('/')}/v1/traces", cluster=_COLLECTOR, timeout=seconds(1))
    provider = http_api.OpenTelemetryConfig(
        http_service=api.HttpService(http_uri=uri), service_name=f"acgs2-{name}"
    )
    made = http_api.Tracing(
        provider=api.Extension(name="opentelemetry", typed_config=provider),
        max_path_tag_length=1,
        custom_tags=[http_api.CustomTag(tag=tag, literal=http_api.Literal(value="-")) for tag in _PERSONAL],
    )
    collector = collector_cluster(_COLLECTOR, url.hostname or "", port, tls=url.scheme == "https")
    collector.typed_extension_protocol_options = http1_options(idle_s=60)
    return made, [collector]
