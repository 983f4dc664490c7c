"""What clients see when a region is killed; `python benchmarks/edge.py failover` runs it."""

from __future__ import annotations

import argparse
import asyncio
import ssl
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import httpx
import uvloop
from clusters import bearer, running, say

from acgs2.errors import AcgsError
from acgs2.local.cluster import Cluster
from acgs2.local.latency import spread
from acgs2.local.loopback import loopback

WEST, CENTRAL, PLACE = "eu-west-1", "eu-central-1", "dublin"
THREE = """
name: failover
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
  eu-central-1: {country: DE}
  ca-central-1: {country: CA, role: witness}
zones:
  paired: {regulation: gdpr, regions: [eu-west-1, eu-central-1]}
  alone: {regulation: gdpr, regions: [eu-west-1, eu-central-1], pair: none}
places:
  dublin: {location: [53.35, -6.26], zone: paired}
"""
ZONES = ("paired", "alone")
#: Nothing failed for so long: it is over.
QUIET_S, AT_LEAST_S, AT_MOST_S = 6.0, 10.0, 90.0
STEADY_S, BACK_S = 2.0, 300.0

Act = Callable[[], Awaitable[object]]


@dataclass
class Stream:
    """Requests of one kind about one zone, by one client.

    Args:
        answered: when each answered request was sent, and how long it took; on the clock of `perf_counter`.
        failed_s: when each of the others failed.
    """

    client: str
    request: str
    zone: str
    act: Act
    answered: list[tuple[float, float]] = field(default_factory=list)
    failed_s: list[float] = field(default_factory=list)
    why: Counter[str] = field(default_factory=Counter)
    under_way: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, rate_per_s: float, over: asyncio.Event) -> None:
        """Send at a rate, whether or not those before have been answered, until it is over; wait for the last."""
        due_s = time.perf_counter()
        while not over.is_set():
            task = asyncio.create_task(self._one())
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)
            due_s += 1 / rate_per_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        await asyncio.gather(*self.under_way)

    async def _one(self) -> None:
        began_s = time.perf_counter()
        try:
            await self.act()
        except (AcgsError, httpx.HTTPError) as error:
            self.failed_s.append(time.perf_counter())
            self.why[_why(error)] += 1
        else:
            self.answered.append((began_s, time.perf_counter() - began_s))


def _why(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        try:
            return f"{error.response.status_code} {error.response.json()['type'].rpartition('/')[2]}"
        except (ValueError, KeyError):
            return str(error.response.status_code)
    return str(getattr(error, "reference", type(error).__name__))


@dataclass(frozen=True)
class Site:
    """What clients need to know."""

    cluster: Cluster
    token: str
    tenants: dict[str, str]

    @property
    def url(self) -> str:
        """Return where clients of the dead region's own place reach the edge."""
        return self.cluster.state.edge_url(PLACE)

    def ask(self, region: str, path: str) -> Any:
        """Ask a region itself; None if it does not answer."""
        try:
            url = self.cluster.state.url(region) + path
            return loopback().get(url, headers={"authorization": f"Bearer {self.token}"}, timeout=2).json()
        except (httpx.HTTPError, ValueError):
            return None


async def plain(site: Site, zone: str, open_in: AsyncExitStack) -> dict[str, Act]:
    """Return what a client does that knows nothing but HTTP, and never repeats."""
    trust = ssl.create_default_context(cafile=site.cluster.state.trust)
    http = httpx.AsyncClient(
        base_url=site.url,
        headers={"authorization": f"Bearer {site.token}", "x-data-sovereignty": zone},
        verify=trust,
        trust_env=False,
        timeout=30,
        limits=httpx.Limits(max_connections=None),
    )
    await open_in.enter_async_context(http)

    async def read() -> object:
        return (await http.get(f"/api/v1/tenants/{site.tenants[zone]}")).raise_for_status()

    async def create() -> object:
        body = {"tenant_id": site.tenants[zone], "name": "agent"}
        headers = {"idempotency-key": str(uuid.uuid4())}
        return (await http.post("/api/v1/agents", json=body, headers=headers)).raise_for_status()

    return {"read": read, "keyed create": create}


async def sdk(site: Site, zone: str, open_in: AsyncExitStack) -> dict[str, Act]:
    """Return the same as the SDK does it: each call has a key of its own, and 30 s."""
    from acgs2 import Client

    client = Client(site.url, zone=zone, token=site.token, ca=site.cluster.state.trust)
    await open_in.enter_async_context(client)
    tenant = site.tenants[zone]
    return {
        "read": lambda: client.tenants.get(tenant),
        "keyed create": lambda: client.agents.create(tenant_id=tenant, name="agent"),
    }


CLIENTS = {"plain": plain, "SDK": sdk}


async def kill_once(site: Site, client: str, rate_per_s: float) -> tuple[list[Stream], float, float]:
    """Kill the region under the load of a client, shared evenly by its streams.

    Returns:
        What each stream saw, when it was killed, and how long the slowest answer before that took, in ms.
    """
    async with AsyncExitStack() as open_in:
        streams = [
            Stream(client, request, zone, act)
            for zone in ZONES
            for request, act in (await CLIENTS[client](site, zone, open_in)).items()
        ]
        over = asyncio.Event()
        loads = [asyncio.create_task(s.run(rate_per_s / len(streams), over)) for s in streams]
        await asyncio.sleep(STEADY_S)
        before_ms = max((took_s for s in streams for _, took_s in s.answered), default=0.0) * 1000
        killed_s = time.perf_counter()
        await asyncio.to_thread(site.cluster.ask, "kill", region=WEST)
        while (now_s := time.perf_counter()) < killed_s + AT_MOST_S:
            last_s = max((s.failed_s[-1] for s in streams if s.failed_s), default=killed_s)
            if now_s > max(killed_s + AT_LEAST_S, last_s + QUIET_S):
                break
            await asyncio.sleep(0.2)
        over.set()
        await asyncio.gather(*loads)
    return streams, killed_s, before_ms


def whole(site: Site) -> bool:
    """Return whether both regions serve, the pair acknowledges together, and the edge sends to the first."""
    for region in (WEST, CENTRAL):
        health = site.ask(region, "/health")
        if not health or health["status"] != "ready" or health["links_missing"] or health["alone"]:
            return False
    trust = ssl.create_default_context(cafile=site.cluster.state.trust)
    with httpx.Client(base_url=site.url, verify=trust, trust_env=False, timeout=5) as http:
        for zone in ZONES:
            headers = {"authorization": f"Bearer {site.token}", "x-data-sovereignty": zone}
            answer = http.get(f"/api/v1/tenants/{site.tenants[zone]}", headers=headers)
            if answer.status_code != 200 or answer.headers.get("x-acgs2-region") != WEST:
                return False
            body = {"tenant_id": site.tenants[zone], "name": "agent"}
            answer = http.post("/api/v1/agents", headers=headers, json=body)
            if answer.status_code != 201 or answer.headers.get("x-acgs2-region") != WEST:
                return False
    return True


def until_whole(site: Site) -> float:
    """Wait until everything is as before a kill; return the seconds; raises SystemExit if it does not end."""
    began_s = time.monotonic()
    while not whole(site):
        if time.monotonic() > began_s + BACK_S:
            raise SystemExit(f"{WEST} was not served again within {BACK_S:.0f} s")
        time.sleep(0.25)
    return time.monotonic() - began_s


def found_tenants(cluster: Cluster, token: str) -> dict[str, str]:
    """Make a tenant in each zone and return their ids."""
    tenants: dict[str, str] = {}
    for zone in ZONES:
        headers = {"authorization": f"Bearer {token}", "x-data-sovereignty": zone}
        url = f"{cluster.state.url(WEST)}/api/v1/tenants"
        tenants[zone] = loopback().post(url, json={"name": "Acme"}, headers=headers).json()["id"]
    return tenants


def failover(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Kill, measure and start again, round after round; return a row per client, request and zone."""
    rounds: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    whys: dict[tuple[str, str, str], Counter[str]] = {}
    with running(THREE) as cluster:
        token = bearer(cluster)
        site = Site(cluster, token, found_tenants(cluster, token))
        until_whole(site)
        for number, client in product(range(chosen.rounds), chosen.clients):
            streams, killed_s, before_ms = uvloop.run(kill_once(site, client, chosen.rate))
            cluster.ask("start", region=WEST)
            back_s = until_whole(site)
            for stream in streams:
                key = (client, stream.request, stream.zone)
                rounds.setdefault(key, []).append(seen(stream, killed_s))
                whys.setdefault(key, Counter()).update(stream.why)
            failed = sum(len(s.failed_s) for s in streams)
            say(
                f"round {number + 1} of {chosen.rounds}, {client}: slowest answer before {before_ms:.0f} ms, "
                f"{failed} failed, whole again {back_s:.1f} s after the start"
            )
    rows: list[dict[str, Any]] = []
    for key, each in rounds.items():
        row: dict[str, Any] = dict(zip(("client", "request", "zone"), key, strict=True))
        for name in each[0]:
            found = spread([one[name] for one in each])
            row[name] = [round(found.p50_ms, 2), round(found.p99_ms, 2), round(found.max_ms, 2)]
        rows.append(row | {"failed_in_all": sum(int(r["failed"]) for r in each), "why": dict(whys[key])})
    return rows


def seen(stream: Stream, killed_s: float) -> dict[str, float]:
    """Return what one round was like for a stream."""
    return {
        "last_failed_s": max(0.0, max(stream.failed_s, default=killed_s) - killed_s),
        "failed": len(stream.failed_s),
        "slowest_s": max((took_s for _, took_s in stream.answered), default=0.0),
    }


def show_failover(rows: Sequence[dict[str, Any]]) -> None:
    print("| client | request | zone | last failure after s | failed requests | slowest answer s |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        cells = [" / ".join(f"{n:g}" for n in row[name]) for name in ("last_failed_s", "failed", "slowest_s")]
        print(f"| {row['client']} | {row['request']} | {row['zone']} | {' | '.join(cells)} |")
    for row in rows:
        if row["why"]:
            what = ", ".join(f"{count} times {why}" for why, count in row["why"].items())
            print(f"{row['client']}, {row['request']}, {row['zone']}: {what}")
