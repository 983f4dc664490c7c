"""An acknowledged write in a pair beside one in a zone without a pair, in the same region and run.

    python benchmarks/pair.py [--writes 300] [--rounds 3] [--rtt-ms 0 27.46] [--json]

One client writes to eu-west-1 over its HTTP API, by turns into a zone with a pair and one without. The floor of a
paired write is the link's round trip time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from acgs2.api.tokens import mint
from acgs2.local.cluster import Cluster, up

TOPOLOGY = """
name: pair
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
  eu-central-1: {country: DE}
zones:
  paired: {regulation: gdpr, regions: [eu-west-1, eu-central-1]}
  alone: {regulation: gdpr, regions: [eu-west-1, eu-central-1], pair: none}
"""


def write_ms(http: httpx.Client, zone: str) -> float:
    """Return how long one acknowledged write took, in milliseconds."""
    began_s = time.perf_counter()
    answer = http.post("/api/v1/tenants", json={"name": "Acme"}, headers={"x-data-sovereignty": zone})
    took_ms = (time.perf_counter() - began_s) * 1000
    if answer.status_code != 201:
        raise SystemExit(f"{answer.status_code}: {answer.text}")
    return took_ms


def measure(cluster: Cluster, rtt_ms: float, writes: int, rounds: int) -> dict[str, object]:
    """Write by turns and return percentiles of both kinds."""
    cluster.link("set", "eu-west-1", "eu-central-1", rtt_ms=rtt_ms, jitter_ms=0)
    token = mint(
        cluster.state.path / "secrets" / "signing.json",
        "bench",
        "operator",
        "pair",
        int(time.time()),
        lifetime_s=3600,
    )
    took: dict[str, list[float]] = {"paired": [], "alone": []}
    with httpx.Client(
        base_url=cluster.state.url("eu-west-1"), headers={"authorization": f"Bearer {token}"}, timeout=30
    ) as http:
        while not http.get("/health").json().get("peers_connected", {}).get("eu-central-1"):
            time.sleep(0.05)
        for _ in range(20):
            write_ms(http, "paired")
        for _ in range(rounds):
            for _ in range(writes):
                for zone, each in took.items():
                    each.append(write_ms(http, zone))
    cuts = {zone: statistics.quantiles(each, n=100) for zone, each in took.items()}
    return {"rtt_ms": rtt_ms} | {
        f"{z}_p{p}_ms": round(c[p - 1], 2) for z, c in cuts.items() for p in (50, 99)
    }


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--writes", type=int, default=300)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--rtt-ms", type=float, nargs="+", default=[0.0, 27.46])
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    path = Path(tempfile.mkdtemp(prefix="acgs2-bench-"))
    path.chmod(0o711)
    try:
        (path / "pair.yaml").write_text(TOPOLOGY, encoding="utf-8")
        cluster = up(path / "pair.yaml", path / "state")
        found = [measure(cluster, rtt_ms, chosen.writes, chosen.rounds) for rtt_ms in chosen.rtt_ms]
        cluster.destroy()
    finally:
        shutil.rmtree(path, ignore_errors=True)
    if chosen.json:
        print(json.dumps(found, indent=1))
        return
    print("| link RTT ms | paired p50 | paired p99 | alone p50 | alone p99 |\n|---|---|---|---|---|")
    for row in found:
        print(
            "| {rtt_ms} | {paired_p50_ms} | {paired_p99_ms} | {alone_p50_ms} | {alone_p99_ms} |".format(**row)
        )


if __name__ == "__main__":
    main()
