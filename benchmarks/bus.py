"""The bus: durable governed messages, beside a bare insert-and-commit of the same row in the same run.

    python benchmarks/bus.py load [--seconds 10] [--long 60] [--rounds 3] [--json]
    python benchmarks/bus.py fairness [--json]

`load`: messages at 1,000/s, as fast as they are answered, and for a minute at 80 % of that; directly to the region's
server and through the edge; in a zone whose writes two regions acknowledge, and in one without a pair. The baseline
is the same row inserted into a plain table, one commit each, by as many connections.  `fairness`: what a quiet tenant waits while another sends as much as it can.

Two regions and the load generator share the machine: with two processors that is what bounds it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import uvloop
from clusters import bearer, running, say

from acgs2.api.tokens import mint
from acgs2.local.cluster import Cluster
from acgs2.local.loopback import loopback

WEST, PLACE = "eu-west-1", "dublin"
CONSTITUTION = "cdd01ef066bc6cf2"
TOPOLOGY = """
name: bus
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
  eu-central-1: {country: DE}
zones:
  paired: {regulation: gdpr, regions: [eu-west-1, eu-central-1]}
  alone: {regulation: gdpr, regions: [eu-west-1], pair: none}
places:
  dublin: {location: [53.35, -6.26], zone: alone, access_ms: 0}
links:
  - {a: dublin, b: eu-west-1, rtt_ms: 0, jitter_ms: 0}
  - {a: eu-west-1, b: eu-central-1, jitter_ms: 0}
"""
#: Connections at saturation; a gateway takes 100 requests at a time (the guide's limit) and refuses the rest.
MOST = {"direct": 128, "edge": 96}
SENDERS = Path(__file__).parent / "senders.py"


class Stand:
    """A tenant with agents in every zone of a running cluster, and how to load it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.tenants: dict[str, str] = {}
        self.agents: dict[str, list[str]] = {}
        for zone in cluster.state.topology.zones:
            self.tenants[zone], self.agents[zone] = self.tenant(zone)

    def tenant(self, zone: str, agents: int = 16) -> tuple[str, list[str]]:
        """Make a tenant with agents."""
        headers = {"authorization": f"Bearer {bearer(self.cluster)}", "x-data-sovereignty": zone}
        with httpx.Client(base_url=self.cluster.state.url(WEST), headers=headers, timeout=30) as http:
            tenant = http.post("/api/v1/tenants", json={"name": "Acme"}).json()["id"]
            made = [
                http.post("/api/v1/agents", json={"tenant_id": tenant, "name": f"agent {n}"}).json()["id"]
                for n in range(agents)
            ]
        return tenant, made

    def plan(self, zone: str, way: str, **more: Any) -> dict[str, Any]:
        """Return what a sender is told."""
        state = self.cluster.state
        key = state.path / "secrets" / "signing.json"
        token = mint(
            key, "bench", "service", state.topology.name, int(time.time()), tenant=self.tenants[zone]
        )
        url = state.url(WEST) if way == "direct" else f"https://localhost:{state.ports[f'edge/{PLACE}']}"
        return {
            "url": url,
            "ca": str(state.trust),
            "token": token,
            "zone": zone,
            "tenant": self.tenants[zone],
            "agents": self.agents[zone],
            "constitution": CONSTITUTION,
        } | more

    def run(self, *plans: dict[str, Any]) -> list[dict[str, Any]]:
        """Run senders side by side and return what each saw."""
        with tempfile.TemporaryDirectory() as folder:
            started: list[subprocess.Popen[str]] = []
            for number, plan in enumerate(plans):
                path = Path(folder) / f"{number}.json"
                path.write_text(json.dumps(plan), encoding="utf-8")
                command = [sys.executable, str(SENDERS), str(path)]
                started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            return [json.loads(process.communicate(timeout=300)[0]) for process in started]


def summed(zone: str, way: str, load: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one row of the table from several rounds; percentiles over all of them."""
    took = sorted(ms for each in found for ms in each["took_ms"])
    failed = sum(
        n for each in found for status, n in each["statuses"].items() if status not in ("200", "201")
    )
    per_s = [len(each["took_ms"]) / each["seconds"] for each in found]
    return {
        "zone": zone,
        "way": way,
        "load": load,
        "per_s": round(statistics.median(per_s)),
        "p50_ms": round(took[len(took) // 2], 2),
        "p99_ms": round(took[int(len(took) * 0.99)], 2),
        "failed": failed,
        "generator": round(statistics.median(each["generator"] for each in found), 2),
    }


async def bare(dsn: str, connections: int, seconds: float) -> dict[str, Any]:
    """Insert the row of a message into a plain table, one commit each; no triggers, nobody told."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute(b"CREATE TABLE IF NOT EXISTS public.bare (LIKE acgs.message)")
        await conn.execute(b"ALTER TABLE public.bare DROP CONSTRAINT IF EXISTS bare_pkey")
        await conn.execute(b"ALTER TABLE public.bare ADD CONSTRAINT bare_pkey PRIMARY KEY (key)")
    took: list[float] = []
    statement = b"INSERT INTO public.bare SELECT (r).* FROM (SELECT m AS r FROM jsonb_populate_record(NULL::public.bare, %s) AS m) AS one"
    text = json.dumps(
        {
            "zone": "alone", "residency": [WEST], "sent_to": [WEST], "hlc": 1, "origin": f"{WEST}#00000000", "vv": {"a": 1},
            "erased": False, "rights": {}, "meta": {}, "tenant_id": str(uuid4()), "conversation_id": str(uuid4()),
            "from_agent": str(uuid4()), "to_agent": str(uuid4()), "message_type": "greeting", "priority": 1,
            "content": "x" * 200, "payload": {"order": 1, "note": "as agreed"}, "metadata": {}, "constitutional_hash": CONSTITUTION,
            "digest": "0" * 64, "salt": "0" * 32, "proposer": "bench", "decision": "allow", "impact": 0,
            "basis": {"policies": ["within-a-tenant"], "reasons": ["Agents of one tenant may speak with each other."]},
        }
    )[1:]  # fmt: skip
    until_s = time.perf_counter() + seconds

    async def one() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            while time.perf_counter() < until_s:
                began_s = time.perf_counter()
                await conn.execute(statement, (f'{{"key": "{uuid4()}", {text}',), prepare=True)
                took.append((time.perf_counter() - began_s) * 1000)

    await asyncio.gather(*(one() for _ in range(connections)))
    return {"took_ms": took, "seconds": seconds, "statuses": {"201": len(took)}, "generator": 0.0}


def load(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every zone and way under every load, by turns."""
    with running(TOPOLOGY) as cluster:
        stand = Stand(cluster)
        _until_well(stand)
        dsn = cluster.state.dsn(WEST, "postgres")
        cells: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        ways = [(zone, way) for zone in ("alone", "paired") for way in ("direct", "edge")]
        for number in range(chosen.rounds):
            for zone, way in ways:
                steady = stand.plan(zone, way, rate=1000, connections=48, seconds=chosen.seconds)
                cells.setdefault((zone, way, "1,000/s"), []).extend(stand.run(steady))
                full = stand.plan(zone, way, connections=MOST[way], seconds=chosen.seconds)
                cells.setdefault((zone, way, "saturation"), []).extend(stand.run(full))
            found = uvloop.run(bare(dsn, 24, chosen.seconds))
            cells.setdefault(("-", "bare insert", "saturation"), []).append(found)
            say(f"round {number + 1} of {chosen.rounds}")
        for zone, way in ways:
            most = summed(zone, way, "", cells[zone, way, "saturation"])["per_s"]
            plan = stand.plan(zone, way, rate=most * 0.8, connections=MOST[way], seconds=chosen.long)
            cells[zone, way, f"80 % for {chosen.long} s"] = stand.run(plan)
            say(f"{zone} {way} at 80 %")
        return [summed(*key, found) for key, found in cells.items()]


def fairness(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure what a quiet tenant waits, alone and beside one that sends as much as it can."""
    with running(TOPOLOGY) as cluster:
        stand = Stand(cluster)
        _until_well(stand)
        quiet = stand.plan("alone", "direct", rate=50, connections=8, seconds=chosen.seconds)
        other, agents = stand.tenant("alone")
        loud = stand.plan("alone", "direct", connections=256, seconds=chosen.seconds)
        key = cluster.state.path / "secrets" / "signing.json"
        loud |= {"tenant": other, "agents": agents}
        loud["token"] = mint(key, "loud", "service", "bus", int(time.time()), tenant=other)
        alone, beside, noise = [], [], []
        for _ in range(chosen.rounds):
            alone += stand.run(quiet)
            both = stand.run(quiet, loud)
            beside.append(both[0])
            noise.append(both[1])
    return [
        summed("alone", "direct", "50/s of a quiet tenant", alone),
        summed("alone", "direct", "the same beside a loud one", beside),
        summed("alone", "direct", "the loud one", noise),
    ]


def _until_well(stand: Stand) -> None:
    """Wait until all that is measured works, and has been warmed."""
    state = stand.cluster.state
    url = f"https://localhost:{state.ports[f'edge/{PLACE}']}/health/ready"
    while loopback().get(url).status_code != 200:
        time.sleep(0.1)
    for zone in ("alone", "paired"):
        for way in ("direct", "edge"):
            stand.run(stand.plan(zone, way, rate=300, connections=16, seconds=2))


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table in Markdown."""
    names = list(rows[0])
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(str(row[name]) for name in names)} |")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = options.add_subparsers(required=True, metavar="load|fairness")
    for name, measure in (("load", load), ("fairness", fairness)):
        each = kinds.add_parser(name, help=(measure.__doc__ or "").partition("\n")[0])
        each.add_argument("--rounds", type=int, default=3)
        each.add_argument("--seconds", type=float, default=10, help="of each measurement")
        each.add_argument("--long", type=float, default=60, help="seconds at 80 % of saturation")
        each.add_argument("--json", action="store_true")
        each.set_defaults(measure=measure)
    chosen = options.parse_args()
    rows = chosen.measure(chosen)
    print(json.dumps(rows, indent=1)) if chosen.json else show(rows)


if __name__ == "__main__":
    main()
