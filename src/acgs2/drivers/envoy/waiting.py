"""What waits until something comes: streams without an end, and requests that are answered late."""

from __future__ import annotations

from acgs2.drivers.envoy import api, http_api
from acgs2.drivers.envoy.answers import BUFFER
from acgs2.drivers.envoy.parts import NEVER

__all__ = ["INBOXES", "STREAMS", "as_stream", "inboxes", "streams"]

#: Server-sent events and WebSockets: of inboxes, and of what waits for approval.
STREAMS = "^/api/v1/(inboxes/[^/]+/(events|stream)|deliberations/events)$"
INBOXES = "/api/v1/inboxes"


def streams() -> http_api.RouteMatch:
    """Match what is answered without an end."""
    return http_api.RouteMatch(safe_regex=api.RegexMatcher(regex=STREAMS))


def inboxes() -> http_api.RouteMatch:
    """Match what is asked of inboxes; a claim may wait for 20 s."""
    return http_api.RouteMatch(path_separated_prefix=INBOXES)


def as_stream(route: http_api.Route) -> http_api.Route:
    """Return a route as one whose answer has no end, and that may become a WebSocket.

    Its end is silence, which the connection manager bounds: whoever streams says a word in time.
    """
    if route.route is not None:
        route.route.timeout = NEVER
        route.route.upgrade_configs = [http_api.UpgradeConfig(upgrade_type="websocket")]
        if route.route.retry_policy is not None:
            route.route.retry_policy.per_try_timeout = NEVER
    # What is said in both directions cannot be waited for.
    route.typed_per_filter_config = {BUFFER: http_api.BufferPerRoute(disabled=True)}
    return route
