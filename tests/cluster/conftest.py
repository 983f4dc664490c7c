"""One real PostgreSQL for a test session; its databases play regions. And whole local clusters."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from acgs2 import store
from acgs2.local.cluster import Cluster, up
from acgs2.local.postgres import find_binaries, find_owner, init_template, make_data, running
from acgs2.store.region import link_name
from acgs2.topology import Topology, parse

PASSWORDS = {"acgs_owner": "owner", "acgs_app": "app", "acgs_link": "link"}
SUPERUSER = "superuser"


def await_that(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """Wait until a condition holds and return its value; fail with what was waited for."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder that PostgreSQL's unprivileged user can enter."""
    path = Path(tempfile.mkdtemp(prefix="acgs2-test-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Server:
    """A PostgreSQL server whose databases can be regions to each other, without links between them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._count = 0

    def dsn(self, database: str, role: str = "postgres") -> str:
        password = {**PASSWORDS, "postgres": SUPERUSER}[role]
        return f"host=127.0.0.1 port={self.port} dbname={database} user={role} password={password}"

    def connect(self, database: str, role: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn(database, role), autocommit=True)

    @contextmanager
    def regions(self, topology: Topology, *, linked: bool = True) -> Iterator[Mapping[str, str]]:
        """Make a database per region, subscribed to each other; yields region to database name."""
        self._count += 1
        names = {r: f"t{self._count}_{r.replace('-', '_')}" for r in topology.regions}
        try:
            for number, (region, database) in enumerate(names.items()):
                with self.connect("postgres") as admin:
                    admin.execute(f"CREATE DATABASE {database} TEMPLATE migrated".encode())
                with self.connect(database) as conn:
                    store.migrate(conn)
                    store.found(conn, topology, region, f"{number:08x}", PASSWORDS, first=True)
                    conn.execute(b"SELECT acgs.awaken(0, 0, '')")
            if linked:
                asyncio.run(self._link(names))
            yield names
        finally:
            self._drop(names)

    async def _link(self, names: Mapping[str, str]) -> None:
        for region, database in names.items():
            async with await psycopg.AsyncConnection.connect(
                self.dsn(database, "acgs_owner"), autocommit=True
            ) as here:
                for number, (peer, other) in enumerate(names.items()):
                    if peer != region:
                        info = self.dsn(other, "acgs_link")
                        async with await psycopg.AsyncConnection.connect(info, autocommit=True) as there:
                            await store.link(here, there, region, peer, info, f"{number:08x}", "first")

    def _drop(self, names: Mapping[str, str]) -> None:
        for database in names.values():
            with self.connect(database) as conn:
                query = b"SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
                for (name,) in conn.execute(query).fetchall():
                    conn.execute(f'ALTER SUBSCRIPTION "{name}" DISABLE'.encode())
                    conn.execute(f'ALTER SUBSCRIPTION "{name}" SET (slot_name = NONE)'.encode())
                    conn.execute(f'DROP SUBSCRIPTION "{name}"'.encode())
        with self.connect("postgres") as admin:
            ours = [link_name(source, target) for source in names for target in names]
            active = b"SELECT 1 FROM pg_replication_slots WHERE active AND slot_name = ANY (%s)"
            await_that(lambda: admin.execute(active, (ours,)).fetchone() is None, "the slots to be free")
            drop = b"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = ANY (%s)"
            admin.execute(drop, (ours,))
            for database in names.values():
                admin.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One real PostgreSQL, with a migrated template database."""
    with folder() as path:
        owner = find_owner()
        binaries = find_binaries(path, owner)

        def prepare(dsn: str) -> None:
            with psycopg.connect(f"{dsn} dbname=postgres", autocommit=True) as conn:
                conn.execute(b"CREATE DATABASE migrated")
            with psycopg.connect(f"{dsn} dbname=migrated", autocommit=True) as conn:
                store.migrate(conn)

        init_template(binaries, owner, path / "template", SUPERUSER, free_port(), prepare)
        port = free_port()
        make_data(path / "template", path / "region" / "data", owner, port, 24)
        found = Server(port)
        dsn = found.dsn("postgres").replace("dbname=postgres ", "")
        with running(binaries, owner, path / "region" / "data", dsn, path / "server.log"):
            yield found


TRIO = """
name: trio
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
failover: {automatic: false}
regions:
  eu-west-1: {country: IE}
  eu-central-1: {country: DE}
  us-east-1: {country: US}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1, eu-central-1]}
  us: {regulation: ccpa, regions: [us-east-1]}
  all: {regulation: gdpr, regions: [eu-west-1, eu-central-1, us-east-1], pair: none}
transfers:
  - {zone: us, to: eu-west-1, instrument: none_required, entities: [tenant, tenant_config, user_profile, agent, audit_event, message, approval, verdict, subscription, policy]}
  - {zone: eu, to: us-east-1, instrument: adequacy_dpf, entities: [user_profile], importer_certified: true}
"""


@pytest.fixture(scope="session")
def trio() -> Topology:
    """Three regions: a pair, one more, and a zone that all may hold."""
    return parse(TRIO)


@pytest.fixture(scope="module")
def databases(server: Server, trio: Topology) -> Iterator[Mapping[str, str]]:
    """Databases that are the regions of `trio`, linked."""
    with server.regions(trio) as names:
        yield names


def finish(cluster: Cluster) -> None:
    """Stop a cluster that nobody looks at any more, without waiting for what its databases still tell each other."""
    if cluster.running():
        for region in cluster.ask("status")["regions"]:
            cluster.ask("kill", region=region)
    cluster.down()


@contextmanager
def whole_trio() -> Iterator[Cluster]:
    """A whole local cluster of `trio`: processes, links with distances, servers."""
    with folder() as path:
        (path / "trio.yaml").write_text(TRIO, encoding="utf-8")
        running = up(path / "trio.yaml", path / "state")
        try:
            yield running
        finally:
            finish(running)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A whole local cluster that the tests of a module share."""
    with whole_trio() as running:
        yield running
