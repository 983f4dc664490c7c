"""Register and lease over five voters with distances between them, beside one locally flushed row.

    python benchmarks/agreement.py [--changes 200] [--rounds 3] [--json]

One proposer next to the first of five voters, reached over links; the floor of a change is two round trips to the
third-nearest voter (a majority of five, itself among them). Taking over is timed from the holder's last renewal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from acgs2.consensus import Lease, PaxosRegister
from acgs2.consensus.voters import DatabaseVoter
from acgs2.local.cluster import Cluster, up
from acgs2.topology import locate

ME = "eu-west-1"


def registers(cluster: Cluster, me: str) -> tuple[PaxosRegister, dict[str, DatabaseVoter]]:
    state = cluster.state
    voters = {
        region: DatabaseVoter(
            state.dsn(region, "acgs_owner") if region == ME else state.link_dsn(ME, region, "acgs_link")
        )
        for region in state.topology.regions
    }
    return PaxosRegister(voters, me), voters


async def measure(cluster: Cluster, changes: int, rounds: int) -> dict[str, Any]:
    """Return latencies of changes and of the baseline, operations a second over many keys, and takeovers."""
    register, voters = registers(cluster, "bench")
    took: dict[str, list[float]] = {"change": [], "baseline": []}
    async with await psycopg.AsyncConnection.connect(
        cluster.state.dsn(ME, "postgres"), autocommit=True
    ) as conn:
        await conn.execute(b"CREATE TABLE baseline (key text PRIMARY KEY, n bigint)")
        for _ in range(rounds):
            for number in range(changes):
                began_s = time.perf_counter()
                await register.change(f"bench/{number % 10}", lambda v: (v or 0) + 1)
                took["change"].append((time.perf_counter() - began_s) * 1000)
                began_s = time.perf_counter()
                await conn.execute(
                    b"INSERT INTO baseline VALUES ('k', 1) ON CONFLICT (key) DO UPDATE SET n = baseline.n + 1"
                )
                took["baseline"].append((time.perf_counter() - began_s) * 1000)
    began_s = time.perf_counter()
    await asyncio.gather(*(_repeat(register, f"many/{n}", changes // 10) for n in range(8)))
    per_s = 8 * (changes // 10) / (time.perf_counter() - began_s)
    takeovers = [await _takeover(cluster, number) for number in range(rounds)]
    for voter in voters.values():
        await voter.close()
    nearest = sorted(n.rtt_ms for n in cluster.state.topology.links() if ME in (n.a, n.b))
    return {
        "floor_ms": round(2 * nearest[1], 1),
        **{name: _percentiles(values) for name, values in took.items()},
        "changes_per_s_8_keys": round(per_s, 1),
        "takeover_s_of_a_3_s_lease": [round(t, 2) for t in takeovers],
    }


async def _repeat(register: PaxosRegister, key: str, times: int) -> None:
    for _ in range(times):
        await register.change(key, lambda v: (v or 0) + 1)


async def _takeover(cluster: Cluster, number: int) -> float:
    """Return the seconds from a holder's last renewal until another holds the lease."""
    (one, first), (two, second) = registers(cluster, "one"), registers(cluster, "two")
    holder, taker = Lease(one, f"lease/{number}", "one", 3.0), Lease(two, f"lease/{number}", "two", 3.0)
    for _ in range(3):
        if not await holder.step() or await taker.step():
            raise SystemExit("two held one lease")
        await asyncio.sleep(1)
    began_s = time.perf_counter()
    await holder.step()
    taken = False
    while not taken:
        await asyncio.sleep(0.1)
        taken = await taker.step()
    took_s = time.perf_counter() - began_s
    for voter in (*first.values(), *second.values()):
        await voter.close()
    return took_s


def _percentiles(took_ms: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(took_ms, n=100)
    return {"p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="acgs2-bench-"))
    folder.chmod(0o711)
    cluster = up(locate("local"), folder / "state")
    try:
        found = asyncio.run(measure(cluster, given.changes, given.rounds))
    finally:
        cluster.down()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
