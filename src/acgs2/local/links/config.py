"""What the links process is told: routes to listen on, and what each link is like."""

from __future__ import annotations

import msgspec

__all__ = ["LinkSpec", "LinksConfig", "RouteSpec"]


class RouteSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A listening port whose connections go from source to a service of target."""

    source: str
    target: str
    service: str
    listen_port: int
    target_port: int


class LinkSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What lies between two regions, both ways alike."""

    a: str
    b: str
    rtt_ms: float
    jitter_ms: float = 0.0
    bandwidth_mbps: float | None = None
    loss: float = 0.0


class LinksConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration file of the process."""

    control_port: int
    token: str
    routes: list[RouteSpec]
    links: list[LinkSpec]
