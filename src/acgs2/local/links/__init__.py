"""One process that carries all traffic between regions, with the real distances and with faults on demand."""

from acgs2.local.links.config import LinksConfig, LinkSpec, RouteSpec
from acgs2.local.links.line import Line

__all__ = ["Line", "LinkSpec", "LinksConfig", "RouteSpec"]
