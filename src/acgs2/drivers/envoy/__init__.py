"""Envoy as gateway of a region and as global edge: typed configuration in files that it watches."""

from acgs2.drivers.envoy.edge import EdgeSite, edge_files
from acgs2.drivers.envoy.files import Resources, bootstrap, static, write
from acgs2.drivers.envoy.gateway import GatewaySite, gateway_files
from acgs2.drivers.envoy.routes import Traffic

__all__ = [
    "EdgeSite",
    "GatewaySite",
    "Resources",
    "Traffic",
    "bootstrap",
    "edge_files",
    "gateway_files",
    "static",
    "write",
]
