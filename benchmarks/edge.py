"""The way in: what edge and gateway cost.

    python benchmarks/edge.py [--rounds 3] [--seconds 3] [--clients 1 16 64] [--json]

Requests through edge and gateway, through the gateway alone and directly to the region's server, by turns; one
region, no distance, TLS as in production. Needs `h2load` (Debian: nghttp2-client; Homebrew: nghttp2).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusters import bearer, running, say

from acgs2.local.latency import spread
from acgs2.local.loopback import loopback

WEST, PLACE = "eu-west-1", "dublin"
ONE = """
name: throughput
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1], pair: none}
places:
  dublin: {location: [53.35, -6.26], zone: eu, access_ms: 0}
links:
  - {a: dublin, b: eu-west-1, rtt_ms: 0, jitter_ms: 0}
"""
#: Opens connections and caches; what the proxies refuse while many are opened at once is not what is measured.
WARM_UP_S = 1
HANGS_S = 10


@dataclass
class Cell:
    """What one way, kind of request and number of clients gave, over all rounds."""

    per_s: list[float] = field(default_factory=list)
    took_ms: list[float] = field(default_factory=list)
    failed: int = 0
    generator: list[float] = field(default_factory=list)


def load(
    url: str, headers: dict[str, str], body: Path | None, clients: int, seconds: int, into: Cell
) -> None:
    """Have h2load keep so many clients busy, each with one request at a time; raises SystemExit if it fails.

    It is in C and takes a few per cent of a processor, writes every request's status and duration down, and warms up
    on the connections that it measures on. A client in Python would have competed with what it measures, and wrk
    has neither of the last two.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "requests"
        command = ["h2load", "--h1", f"--clients={clients}", f"--duration={seconds}"]
        command += [f"--warm-up-time={WARM_UP_S}", f"--log-file={log}"]
        command += [f"--data={body}"] if body else []
        command += [f"--header={name}: {value}" for name, value in headers.items()]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            subprocess.run(
                [*command, url], capture_output=True, check=True, timeout=WARM_UP_S + seconds + HANGS_S
            )
        except subprocess.TimeoutExpired:
            pass  # it may hang in its last step; what it measured is written down
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"h2load: {error.stderr or error.stdout}") from error
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = [line.split("\t") for line in log.read_text(encoding="ascii").splitlines()]
    well = [int(took_us) / 1000 for _, status, took_us in lines if status in ("200", "201")]
    into.per_s.append(len(well) / seconds)
    into.took_ms += well
    into.failed += len(lines) - len(well)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    into.generator.append(used_s / (seconds + WARM_UP_S))


def until_well(url: str, headers: dict[str, str]) -> None:
    """Wait until a way leads to the region: the edge leaves alone for a while whom load kept from its probes."""
    deadline_s = time.monotonic() + 60
    while loopback().get(url, headers=headers).status_code != 200:
        if time.monotonic() > deadline_s:
            raise SystemExit(f"{url} does not answer")
        time.sleep(0.1)


def throughput(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Load every way by turns and return what each gave."""
    if shutil.which("h2load") is None:
        raise SystemExit(
            "h2load is missing. Debian: apt-get install nghttp2-client; Homebrew: brew install nghttp2."
        )
    with running(ONE) as cluster, tempfile.TemporaryDirectory() as folder:
        ports, state = cluster.state.ports, cluster.state
        ways = {
            "edge and gateway": f"https://localhost:{ports[f'edge/{PLACE}']}",
            "gateway, over a link of no length": f"https://localhost:{ports[f'route/{PLACE}/{WEST}']}",
            "gateway": state.gateway_url(WEST),
            "server": state.url(WEST),
        }
        headers = {"authorization": f"Bearer {bearer(cluster)}", "x-data-sovereignty": "eu"}
        made = (
            loopback()
            .post(f"{state.url(WEST)}/api/v1/tenants", json={"name": "Acme"}, headers=headers)
            .json()
        )
        body = Path(folder) / "body.json"
        body.write_text(json.dumps({"tenant_id": made["id"], "name": "agent"}), encoding="ascii")
        kinds: dict[str, tuple[str, Path | None]] = {
            "read": (f"/api/v1/tenants/{made['id']}", None),
            "durable write": ("/api/v1/agents", body),
        }
        keys = [(kind, clients, way) for kind in kinds for clients in chosen.clients for way in ways]
        cells = {key: Cell() for key in keys}
        for number in range(chosen.rounds):
            for kind, clients, way in keys:
                path, data = kinds[kind]
                sent = headers | ({"content-type": "application/json"} if data else {})
                until_well(f"{ways[way]}/api/v1/tenants/{made['id']}", headers)
                load(ways[way] + path, sent, data, clients, chosen.seconds, cells[kind, clients, way])
            say(f"round {number + 1} of {chosen.rounds}")
    rows: list[dict[str, Any]] = []
    for (kind, clients, way), cell in cells.items():
        found, per_s = spread(cell.took_ms), statistics.median(cell.per_s)
        row = {"request": kind, "clients": clients, "way": way, "per_s": round(per_s)}
        row["of_direct"] = round(per_s / statistics.median(cells[kind, clients, "server"].per_s), 2)
        row |= {"p50_ms": round(found.p50_ms, 2), "p99_ms": round(found.p99_ms, 2), "failed": cell.failed}
        rows.append(row | {"generator": round(statistics.median(cell.generator), 2)})
    return rows


def show_throughput(rows: Sequence[dict[str, Any]]) -> None:
    print("| request | clients | through | requests/s | of direct | p50 ms | p99 ms | failed |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        names = ("request", "clients", "way", "per_s", "of_direct", "p50_ms", "p99_ms", "failed")
        print(f"| {' | '.join(str(row[name]) for name in names)} |")
    print(f"h2load itself used up to {max(row['generator'] for row in rows):.0%} of a processor.")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=3, help="of each measurement")
    options.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    rows = throughput(chosen)
    if chosen.json:
        print(json.dumps(rows, indent=1))
    else:
        show_throughput(rows)


if __name__ == "__main__":
    main()
