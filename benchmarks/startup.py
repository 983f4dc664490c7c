"""Time of `acgs2 up` for five and twelve regions, and memory per region once idle.

    python benchmarks/startup.py [--rounds 3] [--json]

Memory is the proportional set size (PSS, proc(5)) of a region's processes: database and server. The links process is
shared and shown beside them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from acgs2.local.cluster import Cluster, up
from acgs2.topology import load


def pss_mb(pid: int) -> float:
    """Return the PSS of a process and its descendants in MB."""
    root = psutil.Process(pid)
    return sum(p.memory_full_info().pss for p in (root, *root.children(recursive=True))) / 1e6


def measure(topology: Path, rounds: int) -> dict[str, Any]:
    """Bring a topology up, cold and again, and weigh it."""
    cold, warm, weights = [], [], []
    links_mb = 0.0
    for _ in range(rounds):
        path = Path(tempfile.mkdtemp(prefix="acgs2-bench-"))
        path.chmod(0o711)
        try:
            began_s = time.monotonic()
            cluster = up(topology, path / "state", timeout_s=300)
            cold.append(time.monotonic() - began_s)
            time.sleep(5)
            weights += weigh(cluster)
            links_mb = next(
                pss_mb(c["pid"])
                for c in cluster.ask("status")["regions"]["links"]
                if c["component"] == "links"
            )
            cluster.down()
            began_s = time.monotonic()
            cluster = up(topology, path / "state", timeout_s=300)
            warm.append(time.monotonic() - began_s)
            cluster.destroy()
        finally:
            shutil.rmtree(path, ignore_errors=True)
    return {
        "regions": len(load(topology).regions),
        "first_up_s": [round(min(cold), 1), round(statistics.median(cold), 1), round(max(cold), 1)],
        "second_up_s": [round(min(warm), 1), round(statistics.median(warm), 1), round(max(warm), 1)],
        "pss_mb_a_region": [round(min(weights)), round(statistics.median(weights)), round(max(weights))],
        "pss_mb_links": round(links_mb),
    }


def weigh(cluster: Cluster) -> list[float]:
    """Return the PSS of each region in MB."""
    regions = cluster.ask("status")["regions"]
    shared = ("links", "edge")
    return [sum(pss_mb(c["pid"]) for c in parts) for name, parts in regions.items() if name not in shared]


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    twelve = Path(tempfile.mkdtemp(prefix="acgs2-bench-")) / "twelve.yaml"
    guide = load("guide")
    regions = "".join(f"  {name}: {{country: {r.country}}}\n" for name, r in guide.regions.items())
    twelve.write_text(
        "name: twelve\ndomain: acgs2.example\nconstitution: {id: cdd01ef066bc6cf2}\nregions:\n"
        + regions
        + "zones:\n  eu: {regulation: gdpr, regions: [eu-west-1, eu-central-1]}\n",
        encoding="utf-8",
    )
    from acgs2.topology import builtin

    found = [measure(builtin("local"), chosen.rounds), measure(twelve, chosen.rounds)]
    shutil.rmtree(twelve.parent)
    if chosen.json:
        print(json.dumps(found, indent=1))
        return
    print(
        "| regions | first up s (min, median, max) | second up s | PSS a region MB | links MB |\n|---|---|---|---|---|"
    )
    for row in found:
        print(
            f"| {row['regions']} | {row['first_up_s']} | {row['second_up_s']} | {row['pss_mb_a_region']} | {row['pss_mb_links']} |"
        )


if __name__ == "__main__":
    main()
