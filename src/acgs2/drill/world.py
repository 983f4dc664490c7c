"""A running cluster as those see it who do things to it: processes, links, databases, answers."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg

from acgs2.api.tokens import mint
from acgs2.drill.history import History, Loss, Row
from acgs2.drill.states import read_held
from acgs2.local.cluster import Cluster
from acgs2.local.loopback import loopback
from acgs2.plan import Rights, known_in, rights_of

__all__ = ["World", "wait_until"]

#: Asks a PostgreSQL whether it speaks TLS: it answers one byte, and nothing is begun.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def wait_until(condition: Callable[[], Any], timeout_s: float, *, every_s: float = 0.05) -> Any:
    """Wait until a condition holds and return its value; the last one when time is up."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value or time.monotonic() > deadline_s:
            return value
        time.sleep(every_s)


class World:
    """The cluster, the history in which what is done to it is noted, and a way to ask all of its parts.

    Args:
        cluster: a running one.
        history: of the run.
        subject: who asks.
        lifetime_s: for how long its token is good.
        since: nothing that was written before is of this run; None where that is not known.
    """

    def __init__(
        self,
        cluster: Cluster,
        history: History,
        subject: str,
        *,
        lifetime_s: int,
        since: datetime | None = None,
    ) -> None:
        self.since = since
        self.cluster = cluster
        self.state = cluster.state
        self.history = history
        self.regions = tuple(cluster.state.topology.regions)
        #: What a fault that has begun needs to know at its end.
        self.remembered: dict[str, str] = {}
        token = mint(
            self.state.path / "secrets" / "signing.json",
            subject,
            "operator",
            self.state.topology.name,
            int(time.time()),
            lifetime_s=lifetime_s,
        )
        self._headers = {"authorization": f"Bearer {token}"}

    @contextmanager
    def database(self, region: str) -> Iterator[psycopg.Connection[Any]]:
        """Connect to a region's database as its superuser, past links and servers."""
        with psycopg.connect(self.state.dsn(region, "postgres"), autocommit=True, connect_timeout=3) as conn:
            yield conn

    @contextmanager
    def databases(self) -> Iterator[Mapping[str, psycopg.Connection[Any]]]:
        """Connect to all."""
        with ExitStack() as stack:
            yield {region: stack.enter_context(self.database(region)) for region in self.regions}

    def ask(
        self, region: str, method: str, path: str, *, timeout_s: float = 5.0, **more: Any
    ) -> httpx.Response | None:
        """Ask a region's server; None if it does not answer."""
        try:
            return loopback().request(
                method,
                f"{self.state.url(region)}{path}",
                headers=self._headers | more.pop("headers", {}),
                timeout=timeout_s,
                **more,
            )
        except httpx.HTTPError:
            return None

    def health(self, region: str) -> dict[str, Any]:
        """Return what a region says of itself; empty if it does not answer."""
        answer = self.ask(region, "GET", "/health")
        return answer.json() if answer is not None else {}

    def rights(self) -> Rights:
        """Return which regions may hold what, as all that say so do; by the topology where none does."""
        answers = [self.ask(region, "GET", "/api/v1/residency") for region in self.regions]
        said = [known_in(answer.json()) for answer in answers if answer is not None and answer.is_success]
        return Rights.shared(said) if said else rights_of(self.state.topology, datetime.now(UTC))

    def whole(self) -> bool:
        """Return whether every region is ready and takes in what all others send."""
        found = [self.health(region) for region in self.regions]
        return all(
            h.get("status") == "ready" and not h["links_missing"] and all(h["peers_connected"].values())
            for h in found
        )

    def settled(self) -> bool:
        """Return whether no region is still being given what it lacks, so that each disk can be spared."""
        if not self.whole():
            return False
        query = (
            b"SELECT (SELECT count(*) FROM acgs.acquisition) + (SELECT count(*) FROM acgs.provision)"
            b" + (SELECT count(*) FROM acgs.quarantine)"
        )
        try:
            with self.databases() as found:
                return all(conn.execute(query).fetchone() == (0,) for conn in found.values())
        except psycopg.Error:
            return False

    def part(self, region: str, component: str) -> dict[str, Any]:
        """Return what the supervisor says of one process."""
        parts = self.cluster.ask("status")["regions"][region]
        return next(p for p in parts if p["component"] == component)

    def answers_after_s(self, source: str, target: str, timeout_s: float) -> float | None:
        """Return how long a region's database takes to answer over a link; None if it does not in time."""
        began_s = time.monotonic()
        port = self.state.ports[f"egress/{source}/{target}"]
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as sock:
                sock.sendall(_SSL_REQUEST)
                return time.monotonic() - began_s if sock.recv(1) else None
        except OSError:
            return None

    def loss_of(self, region: str) -> Loss:
        """Return what the loss of a dead region's disk may take: what the others have is spared.

        Raises:
            psycopg.Error: one of them does not answer; then nobody knows.
        """
        at_s, others = self.history.now_s(), [r for r in self.regions if r != region]
        kept: dict[str, dict[str, dict[str, Any]]] = {}
        exposed: set[str] = set()
        for other in others:
            exposed |= self._survey(other, region, kept)
        survivors = {e: {k: list(rows.values()) for k, rows in found.items()} for e, found in kept.items()}
        return Loss(region, at_s, tuple(sorted(exposed)), tuple(others), survivors)

    def death_of(self, region: str) -> Loss:
        """Return what those that answer have of what a dead region had: which records, what was counted."""
        at_s = self.history.now_s()
        kept: dict[str, dict[str, dict[str, Any]]] = {}
        answered: list[str] = []
        exposed: set[str] = set()
        for other in (r for r in self.regions if r != region):
            try:
                exposed |= self._survey(other, region, kept, self.since)
            except psycopg.Error:
                continue  # dead or frozen itself
            answered.append(other)
        topology = self.state.topology
        paired = {zone for zone in topology.zones if region in topology.pair_of(zone)}
        survivors: dict[str, dict[str, list[Row]]] = {
            entity: {
                key: [_brief(row) for row in rows.values()]
                for key, rows in kept[entity].items()
                if any(row["zone"] in paired for row in rows.values())
            }
            for entity in ("tenant", "user_profile", "tenant_config", "audit_event", "agent", "message")
            if entity in kept
        }
        return Loss(region, at_s, tuple(sorted(exposed)), tuple(answered), survivors)

    def _survey(
        self,
        other: str,
        region: str,
        kept: dict[str, dict[str, dict[str, Any]]],
        since: datetime | None = None,
    ) -> set[str]:
        """Add what a database holds, and has set aside; return the zones that a region has alone."""
        with self.database(other) as conn:
            held = read_held(conn, since)
            aside = conn.execute(b"SELECT entity, records FROM acgs.quarantine WHERE kind = 'put'").fetchall()
            votes = conn.execute(b"SELECT key, value FROM acgs.vote WHERE key LIKE 'pair/%'").fetchall()
        found = [(entity, row) for entity, rows in held.items() for row in rows.values()]
        found += [(entity, row) for entity, records in aside for row in records]
        for entity, row in found:
            kept.setdefault(entity, {}).setdefault(row["key"], {})[json.dumps(row, sort_keys=True)] = row
        return {k.partition("/")[2] for k, v in votes if v is not None and v.get("alone") == region}


def _brief(row: Mapping[str, Any]) -> dict[str, Any]:
    counted = (row["meta"] or {}).get("login_count")
    return {"erased": row["erased"], "meta": {"login_count": counted} if counted else {}}
