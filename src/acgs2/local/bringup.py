"""Brings a cluster up: template, databases, links, servers; each step may be repeated."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import psycopg

from acgs2 import policy, store
from acgs2.api.tokens import create_keys
from acgs2.audit.keys import PUBLIC, create_audit_keys, key_name, private_path
from acgs2.drivers.envoy import Traffic
from acgs2.errors import RuntimeFault
from acgs2.local.amenders import create_amenders, public_keys
from acgs2.local.child import Child
from acgs2.local.control import ask
from acgs2.local.distances import links_config
from acgs2.local.loopback import health, loopback
from acgs2.local.postgres import find_binaries, find_owner, init_template, make_data
from acgs2.local.proxies import EDGE, Proxies
from acgs2.local.state import State
from acgs2.plan import rights_of
from acgs2.policy.constitution import LOCAL

__all__ = ["Bringup"]

_READY_S = 60.0
_SETTLED_S = 5.0
_MIGRATIONS = 20


class Bringup:
    """The processes of a cluster and the order in which they come up."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._owner = find_owner()
        self._binaries = find_binaries(state.path, self._owner)
        self.proxies = Proxies(state)
        self.children: list[Child] = []
        self.failure: dict[str, Any] | None = None
        self.step = "starting"
        self.ready_at_s: float | None = None
        self.on_start: Callable[[Child], None] = lambda _: None
        self._began_s = time.monotonic()
        self._first = False

    def status(self) -> dict[str, Any]:
        """Return every region with the phase of each component."""
        regions: dict[str, list[dict[str, object]]] = {}
        for child in self.children:
            regions.setdefault(child.region, []).append(child.status())
        return {"step": self.step, "failure": self.failure, "ready_s": self.ready_at_s, "regions": regions}

    async def run(self) -> None:
        """Bring everything up; safe to repeat over what an earlier run left."""
        regions = list(self._state.topology.regions)
        self.step = "template"
        await asyncio.to_thread(self._template)
        self.step = "databases"
        # Before the cluster was ever ready, there is nothing that one region could be given by another.
        begun = self._state.path / "begun"
        self._first = not begun.exists()
        await asyncio.gather(
            asyncio.to_thread(self.proxies.certify),
            *(asyncio.to_thread(self._data, region) for region in regions),
        )
        await asyncio.to_thread(self._amenders)
        self.children = [self._postgres(r) for r in regions]
        links = self._links()
        servers = [self._server(r) for r in regions]
        gateways = [self.proxies.gateway(r) for r in regions]
        edge = self._edge()
        # In this order they are started again: a server asks others who it is, by its gateway.
        self.children += [links, *gateways, *servers, *edge]
        carriers = [links, *gateways]
        await asyncio.gather(*(self._up(c) for c in carriers), *(self._database(r) for r in regions))
        self.step = "servers"
        await asyncio.to_thread(self._keys)
        await asyncio.gather(*(self._up(server) for server in servers))
        self.step = "links"
        # A region that stays away must not keep the others from going on.
        linking = [self._linked(region) for region in regions] if self._first else []
        await asyncio.gather(self._open(edge), *linking)
        await asyncio.gather(*(self._governing(region) for region in regions))
        begun.touch()
        self._first = False
        self.step = "ready"
        self.ready_at_s = round(time.monotonic() - self._began_s, 2)

    async def adopt(self, state: State) -> None:
        """Go by a changed topology: what is new comes up, and servers start anew one after the other.

        A region that is gone has been retired before. Safe to repeat.

        Raises:
            RuntimeFault: something does not come up.
        """
        self._state = state
        self.proxies.adopt(state)
        have = {c.region for c in self.children if c.component == "postgres"}
        new = [region for region in state.topology.regions if region not in have]
        await asyncio.gather(*(asyncio.to_thread(self._data, region) for region in new))
        self._links()
        await asyncio.to_thread(ask, state.ports["links"], state.secrets["links"], {"action": "configure"})
        await asyncio.to_thread(self.proxies.certify)
        for region in have:
            self.proxies.tell_gateway(region)
        gateways = [self.proxies.gateway(region) for region in new]
        edge = [] if any(c.component == EDGE for c in self.children) else self._edge()
        self.children += [*gateways, *edge]
        await asyncio.gather(*(self._up(c) for c in (*gateways, *edge)))
        for region in have:
            if self._child(region, "postgres").pid is not None:
                await asyncio.to_thread(self._found, region)
        self.children += [self._postgres(region) for region in new]
        await asyncio.gather(*(self._database(region) for region in new))
        await asyncio.to_thread(self._keys)
        for region in have:
            self._server(region)
            server = self._child(region, "server")
            if server.pid is not None:
                await server.stop()
                await self._up(server)
        servers = [self._server(region) for region in new]
        self.children += servers
        await asyncio.gather(*(self._up(server) for server in servers))

    async def retire(self, region: str) -> None:
        """Stop a region for good and remove its data; whoever asks has seen to it that nobody needs it."""
        gone = [c for c in self.children if c.region == region]
        self.children = [c for c in self.children if c.region != region]
        await asyncio.gather(*(c.stop() for c in gone))
        await asyncio.to_thread(shutil.rmtree, self._state.region_path(region), ignore_errors=True)

    def _child(self, region: str, component: str) -> Child:
        return next(c for c in self.children if (c.region, c.component) == (region, component))

    def _template(self) -> None:
        template = self._state.path / "template"
        if template.exists():
            return
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        init_template(
            self._binaries, self._owner, template, self._state.secrets["postgres"], port, self._prepare
        )

    def _prepare(self, dsn: str) -> None:
        with _connected(f"{dsn} dbname=postgres") as conn:
            conn.execute(b"CREATE DATABASE acgs2")
        with _connected(f"{dsn} dbname=acgs2") as conn:
            store.migrate(conn)

    def _data(self, region: str) -> None:
        data = self._state.data_path(region)
        make_data(
            self._state.path / "template",
            data,
            self._owner,
            self._state.ports[f"postgres/{region}"],
            len(self._state.topology.regions),
        )

    def _postgres(self, region: str) -> Child:
        return Child(
            region,
            "postgres",
            [self._binaries.command("postgres"), "-D", str(self._state.data_path(region))],
            self._state.logs / f"{region}.postgres.log",
            self._owner,
            stop_signal=signal.SIGINT,
            parent_died_signal=signal.SIGQUIT,
        )

    def _python(self, region: str, component: str, module: str, config: bytes) -> Child:
        path = self._state.path / "secrets" / f"{component}.{region}.json"
        path.touch(mode=0o600)
        path.write_bytes(config)
        return Child(
            region,
            component,
            [sys.executable, "-m", module, str(path)],
            self._state.logs / f"{region}.{component}.log",
            type(self._owner)(),
        )

    def _links(self) -> Child:
        return self._python(
            "links", "links", "acgs2.local.links", msgspec.json.encode(links_config(self._state))
        )

    def _server(self, region: str) -> Child:
        state = self._state
        peers = {peer: state.gateway_url(peer) for peer in state.topology.peers(region)}
        config = {
            "region": region,
            "topology": str(state.topology_path),
            "listen_port": state.ports[f"api/{region}"],
            "database": state.dsn(region, "acgs_app"),
            "owner_database": state.dsn(region, "acgs_owner"),
            "peers": peers,
            "peer_gateways": {peer: state.peer_url(region, peer) for peer in peers},
            "life_path": str(state.region_path(region) / "life.json"),
            "peer_databases": {peer: state.link_dsn(region, peer, "acgs_link") for peer in peers},
            "constitution": str(state.constitution_path),
            "amender_keys": dict(public_keys(state.amenders)),
            "jwks_path": str(state.path / "secrets" / "jwks.json"),
            "audit_key_path": str(private_path(state.path / "secrets", region)),
            "audit_keys_path": str(state.path / "secrets" / PUBLIC),
            "edges": {place: state.edge_url(place) for place in state.topology.places},
            "edge_ca": str(state.trust),
            "controller_key_path": str(state.path / "secrets" / "controller.json"),
            "otlp": state.topology.observability.otlp,
        }
        return self._python(region, "server", "acgs2.api", json.dumps(config).encode())

    def _edge(self) -> list[Child]:
        """Return the edge, if the topology has places that clients are at."""
        topology = self._state.topology
        if not topology.places:
            return []
        return [self.proxies.edge(Traffic(rights_of(topology, datetime.now(UTC))))]

    def _keys(self) -> None:
        folder, topology = self._state.path / "secrets", self._state.topology
        create_keys(folder)
        names = [(r, key_name(topology.domain, topology.name, r)) for r in topology.regions]
        create_audit_keys(folder, names)

    def _amenders(self) -> None:
        """Give every amender a key whose public half the constitution does not name itself."""
        file = self._state.constitution_path
        amenders = policy.load(file if file.is_file() else None).amendment.amenders
        create_amenders(self._state.amenders, [each.name for each in amenders if each.key == LOCAL])

    async def _up(self, child: Child) -> None:
        await child.start()
        self.on_start(child)
        await self.ready(child)

    async def _database(self, region: str) -> None:
        await self._up(self._child(region, "postgres"))
        await asyncio.to_thread(self._found, region)

    async def again(self, child: Child) -> None:
        """Start a child that ended; a database whose directory is gone gets a new one, and a new life."""
        if child.component == "postgres":
            await asyncio.to_thread(self._data, child.region)
        await child.start()
        await self.ready(child)
        if child.component == "postgres":
            await asyncio.to_thread(self._found, child.region)

    def _found(self, region: str) -> None:
        state = self._state
        passwords = {role: state.secrets[role] for role in ("acgs_owner", "acgs_app", "acgs_link")}
        with _connected(state.dsn(region, "postgres")) as conn:
            _migrated(conn)
            store.found(conn, state.topology, region, secrets.token_hex(4), passwords, first=self._first)

    async def _open(self, edge: list[Child]) -> None:
        """Bring the edge up once regions may serve: whom it does not find well must prove it for a while."""
        if edge:
            await asyncio.gather(*(self._awaited(region) for region in self._state.topology.regions))
            await self._up(edge[0])

    async def _awaited(self, region: str) -> None:
        """Wait until a region may serve, but not for one that stays away.

        Asked as the edge will ask: a gateway finds out up to a second later than we that its server is there.
        """
        url = f"{self._state.gateway_url(region)}/health/ready"
        deadline_s = time.monotonic() + _SETTLED_S
        while time.monotonic() < deadline_s:
            try:
                if (await asyncio.to_thread(loopback().get, url, timeout=5)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass  # not yet
            await asyncio.sleep(0.05)

    async def _governing(self, region: str) -> None:
        """Wait until a region governs, but not for a majority that stays away."""
        deadline_s = time.monotonic() + _SETTLED_S
        while time.monotonic() < deadline_s:
            body = await asyncio.to_thread(health, self._state.url(region))
            if body.get("governance", {}).get("serving"):
                return
            await asyncio.sleep(0.05)

    async def _linked(self, region: str) -> None:
        """Wait until a region's links from all its peers are made; raises RuntimeFault `not-linked`."""
        deadline_s = time.monotonic() + _READY_S
        while True:
            body = await asyncio.to_thread(health, self._state.url(region))
            if body.get("status") == "ready" and not body.get("links_missing"):
                return
            if time.monotonic() > deadline_s:
                missing = ", ".join(body.get("links_missing", [])) or "its peers"
                raise RuntimeFault(
                    "not-linked",
                    f"{region} is not linked with {missing}.",
                    hint=f"See `acgs2 logs {region}`.",
                    region=region,
                )
            await asyncio.sleep(0.1)

    async def ready(self, child: Child) -> None:
        """Wait until a child does its work.

        Raises:
            RuntimeFault: it ended, or is not ready in a minute (`not-ready`).
        """
        deadline_s = time.monotonic() + _READY_S
        while not await asyncio.to_thread(self._is_ready, child):
            if child.pid is None or time.monotonic() > deadline_s:
                child.phase = "starting" if child.pid is not None else "crashed"
                raise RuntimeFault(
                    "not-ready",
                    f"{child.component} of {child.region} does not come up: {child.last_words()}",
                    hint=f"See `acgs2 logs {child.region}`.",
                    region=child.region,
                )
            await asyncio.sleep(0.03)
        child.phase = "ready"

    def _is_ready(self, child: Child) -> bool:
        try:
            if child.component == "postgres":
                with _connected(self._state.dsn(child.region, "postgres")):
                    return True
            if (port := self._listens_at(child)) is not None:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    return True
            url = f"{self._state.url(child.region)}/health/live"
            return loopback().get(url, timeout=2).status_code == 200
        except (OSError, psycopg.OperationalError, httpx.HTTPError):
            return False

    def _listens_at(self, child: Child) -> int | None:
        """Return the port of a process that is ready once it listens."""
        places = list(self._state.topology.places)
        name = {
            "links": "links",
            "gateway": f"gateway/{child.region}",
            EDGE: f"edge/{places[0]}" if places else "",
        }
        return self._state.ports[name[child.component]] if child.component in name else None


def _migrated(conn: psycopg.Connection) -> None:
    """Have the schema as it should be; a database that is at work may make us the victim of a deadlock."""
    for attempt in range(_MIGRATIONS):
        try:
            store.migrate(conn)
            return
        except psycopg.errors.DeadlockDetected:
            if attempt == _MIGRATIONS - 1:
                raise


def _connected(dsn: str) -> psycopg.Connection:
    return psycopg.connect(dsn, autocommit=True, connect_timeout=5)
