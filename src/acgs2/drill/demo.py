"""The demo: what it does to a cluster, told step by step through a callback; printing is the caller's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

import psycopg

from acgs2.api.tokens import mint
from acgs2.drill.checker import Verdict, agreement, judge, missing
from acgs2.drill.history import History, Operation
from acgs2.drill.lag import lags
from acgs2.drill.workload import Client
from acgs2.local.cluster import Cluster
from acgs2.model import entities
from acgs2.model.entity import Residency
from acgs2.residency import decide, register_of

__all__ = ["Report", "run_demo"]

Say = Callable[[str], None]


@dataclass
class Report:
    """What the demo found, all of it read from databases or seen by clients."""

    acknowledged: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    write_ms: dict[str, tuple[float, float]] = field(default_factory=dict)
    placement: dict[str, dict[str, int]] = field(default_factory=dict)
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    lag: list[dict[str, Any]] = field(default_factory=list)
    converged_s: float | None = None
    verdict: Verdict = field(default_factory=Verdict)
    killed: str = ""
    paired_acknowledged: int = 0
    paired_lost: int = 0

    @property
    def good(self) -> bool:
        """Return whether every promise held."""
        bad = self.verdict.disagreements or self.verdict.misplaced or self.verdict.lost or self.paired_lost
        return not bad and self.converged_s is not None and self.acknowledged > 0


async def run_demo(cluster: Cluster, seconds: float, say: Say, rng: Random) -> Report:
    """Write everywhere, make conflicts behind a cut link, kill a region of a pair, and judge."""
    report, history = Report(), History()
    state, topology = cluster.state, cluster.state.topology
    token = mint(state.path / "secrets" / "signing.json", "demo", "operator", topology.name, int(time.time()))
    clients = {r: Client(r, state.url(r), token, history) for r in topology.regions}
    try:
        tenants = await _tenants(clients, topology.zones, say)
        for zone, tenant in tenants.items():
            for region in _writers(cluster, zone):
                async with asyncio.timeout(10):
                    while not await clients[region].sees(f"tenants/{tenant}"):  # noqa: ASYNC110 - another process
                        await asyncio.sleep(0.05)
        say(f"writing for {seconds:g} s from {len(topology.zones) * 4} clients, into every zone")
        jobs = [
            _write_for(clients[region], zone, tenants[zone], seconds, Random(rng.random()))
            for zone in tenants
            for region in _writers(cluster, zone)
            for _ in range(2)
        ]
        await asyncio.gather(*jobs, _conflict(cluster, clients, tenants, seconds, say))
        with ExitStack() as stack:
            databases = {
                r: stack.enter_context(psycopg.connect(state.dsn(r, "acgs_owner"), autocommit=True))
                for r in topology.regions
            }
            report.converged_s = await _converge(databases)
            say("regions agree" if report.converged_s is not None else "regions do not agree")
            report.verdict = judge(databases, history.operations)
            report.placement = _placement(databases)
            report.conflicts = _conflicts(databases)
            report.lag = lags(cluster.state.topology, databases, 60)
            await _kill(cluster, clients, tenants, history, databases, report, say)
    finally:
        for client in clients.values():
            await client.close()
    acknowledged = [op for op in history.operations if op.ok]
    report.acknowledged = len(acknowledged)
    for op in history.operations:
        if op.answer and not op.ok:
            what = f"{op.answer.get('status', '')} {op.answer['problem']}".strip()
            report.refused[what] = report.refused.get(what, 0) + 1
    for zone in tenants:
        took = sorted((op.completed_s - op.invoked_s) * 1000 for op in acknowledged if op.zone == zone)
        report.write_ms[zone] = (took[len(took) // 2], took[int(len(took) * 0.99)])
    return report


async def _tenants(clients: Mapping[str, Client], zones: Mapping[str, Any], say: Say) -> dict[str, str]:
    made: dict[str, str] = {}
    for name, zone in zones.items():
        # The pair's link may be a moment from being known as connected.
        for _ in range(100):
            record = await clients[zone.regions[0]].send("POST", "tenants", name, {"name": f"Demo {name}"})
            if record:
                made[name] = record["id"]
                break
            await asyncio.sleep(0.1)
    say(f"made a tenant in each of {', '.join(made)}")
    return made


def _writers(cluster: Cluster, zone: str) -> list[str]:
    """Return two regions that may write every entity of a zone."""
    register = register_of(cluster.state.topology)
    kinds = [e.name for e in entities().values() if e.residency is Residency.ZONE and not e.managed]
    now = datetime.now(UTC)
    whole = set.intersection(*(set(decide(k, zone, register, now).residency) for k in kinds))
    homes = cluster.state.topology.zones[zone].regions
    return [*homes, *sorted(whole - set(homes))][:2]


async def _conflict(
    cluster: Cluster, clients: Mapping[str, Client], tenants: Mapping[str, str], seconds: float, say: Say
) -> None:
    """Change the same profiles in two regions while the link between them is cut."""
    zone = next(z for z in tenants if not cluster.state.topology.pair_of(z) and len(_writers(cluster, z)) > 1)
    a, b = _writers(cluster, zone)
    profiles: list[str] = []
    for number in range(5):
        made = await clients[a].send(
            "POST", "users", zone, {"tenant_id": tenants[zone], "display_name": f"Shared {number}"}
        )
        if made:
            profiles.append(made["id"])
    await asyncio.sleep(seconds * 0.3)
    await asyncio.to_thread(cluster.link, "cut", a, b)
    say(f"cut the link {a} - {b}; both change the same {len(profiles)} profiles of zone {zone}")
    for profile in profiles:
        for region in (a, b):
            await clients[region].send(
                "PATCH",
                f"users/{profile}",
                zone,
                {
                    "display_name": f"named in {region}",
                    "preferences": {"add": [f"seen-in-{region}"]},
                    "login_count": {"increment": 1},
                },
            )
    await asyncio.sleep(seconds * 0.3)
    await asyncio.to_thread(cluster.link, "restore", a, b)
    say(f"restored the link {a} - {b}")


async def _converge(
    databases: Mapping[str, psycopg.Connection[Any]], timeout_s: float = 30.0
) -> float | None:
    began_s = time.monotonic()
    while time.monotonic() - began_s < timeout_s:
        if not await asyncio.to_thread(agreement, databases):
            return round(time.monotonic() - began_s, 2)
        await asyncio.sleep(0.1)
    return None


def _placement(databases: Mapping[str, psycopg.Connection[Any]]) -> dict[str, dict[str, int]]:
    placed: dict[str, dict[str, int]] = {}
    for region, conn in databases.items():
        for entity in (e for e in entities().values() if e.residency is Residency.ZONE):
            query = f"SELECT zone, count(*) FROM acgs.{entity.name} WHERE NOT erased GROUP BY zone"
            for zone, count in conn.execute(query.encode()).fetchall():
                row = placed.setdefault(region, {})
                row[zone] = row.get(zone, 0) + count
    return placed


def _conflicts(databases: Mapping[str, psycopg.Connection[Any]]) -> list[dict[str, Any]]:
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for region, conn in databases.items():
        query = (
            b"SELECT entity, field, strategy, zone, loser_origin, winner_origin, loser_value, key::text "
            b"FROM acgs.conflict"
        )
        for entity, name, strategy, zone, loser, winner, value, key in conn.execute(query).fetchall():
            row = rows.setdefault(
                (entity, key, name, loser),
                {
                    "entity": entity,
                    "key": key,
                    "field": name,
                    "strategy": strategy,
                    "zone": zone,
                    "lost": value,
                    "lost_in": loser.partition("#")[0],
                    "won_in": winner.partition("#")[0],
                    "kept_in": [],
                },
            )
            row["kept_in"].append(region)
    return list(rows.values())


async def _kill(
    cluster: Cluster,
    clients: Mapping[str, Client],
    tenants: Mapping[str, str],
    history: History,
    databases: dict[str, psycopg.Connection[Any]],
    report: Report,
    say: Say,
) -> None:
    """Kill the region that takes a pair's writes; the other must have every acknowledged one."""
    zone = next(z for z in tenants if cluster.state.topology.pair_of(z))
    taker, other = cluster.state.topology.pair_of(zone)
    before = _acknowledged(history)
    writers = [
        asyncio.create_task(_write_for(clients[taker], zone, tenants[zone], 3.0, Random(n))) for n in range(4)
    ]
    await asyncio.sleep(1.0)
    databases.pop(taker).close()
    say(f"kill -9 of {taker} while it takes writes of zone {zone}")
    await asyncio.to_thread(cluster.ask, "kill", region=taker)
    for writer in writers:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    acknowledged = [op for op in _acknowledged(history) if (op.zone, op.region) == (zone, taker)]
    report.killed = taker
    report.paired_acknowledged = len(acknowledged)
    report.paired_lost = len(missing({other: databases[other]}, acknowledged))
    say(
        f"{len(_acknowledged(history)) - len(before)} more writes had been acknowledged; "
        f"looking for all of them in {other}"
    )


def _acknowledged(history: History) -> list[Operation]:
    return [op for op in history.operations if op.ok]


async def _write_for(client: Client, zone: str, tenant: str, seconds: float, rng: Random) -> None:
    """Write as a tenant's applications do: users, their changes, agents, events; until the time is over."""
    ends_s = time.monotonic() + seconds
    users: list[str] = []
    while time.monotonic() < ends_s:
        choice = rng.random()
        if choice < 0.4 or not users:
            body: dict[str, Any] = {"tenant_id": tenant, "display_name": f"Person {rng.randrange(10**9)}"}
            body["preferences"] = rng.sample(["dark", "compact", "beta", "mail", "sms"], 2)
            made = await client.send("POST", "users", zone, body)
            if made:
                users.append(made["id"])
        elif choice < 0.7:
            await client.send("PATCH", f"users/{rng.choice(users)}", zone, {"login_count": {"increment": 1}})
        elif choice < 0.85:
            await client.send(
                "POST", "agents", zone, {"tenant_id": tenant, "name": f"agent {rng.randrange(10**6)}"}
            )
        else:
            body = {"tenant_id": tenant, "actor": "demo", "action": "looked", "subject": rng.choice(users)}
            await client.send("POST", "audit-events", zone, body)
        await asyncio.sleep(0)
