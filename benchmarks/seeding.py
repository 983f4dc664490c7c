"""Seeding a destroyed region, and comparing two regions by ranges, beside native copying and counting.

    python benchmarks/seeding.py [--records 100000] [--json]

Two regions without distance. The second's data directory is deleted; seeding is timed from its database being back
to the region being ready. The baselines, in the same run: `CREATE SUBSCRIPTION ... copy_data` of a plain table with
the same rows, and one `count(*)` over it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg

from acgs2.local.cluster import Cluster, up
from acgs2.store.repair import Found, reconcile

TOPOLOGY = """
name: seeding
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
  eu-central-1: {country: DE}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1, eu-central-1], pair: none}
links:
  - {a: eu-west-1, b: eu-central-1, rtt_ms: 0, jitter_ms: 0}
"""
WEST, CENTRAL = "eu-west-1", "eu-central-1"


def connect(cluster: Cluster, region: str, role: str = "postgres") -> psycopg.Connection[Any]:
    return psycopg.connect(cluster.state.dsn(region, role), autocommit=True)


def until(condition: Any, timeout_s: float = 600) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise SystemExit("it did not end")
        time.sleep(0.02)


def count(conn: psycopg.Connection[Any]) -> int:
    return int((conn.execute(b"SELECT count(*) FROM acgs.agent").fetchone() or (0,))[0])


def fill(cluster: Cluster, records: int) -> None:
    with connect(cluster, WEST) as conn, connect(cluster, CENTRAL) as other:
        conn.execute(b"INSERT INTO acgs.tenant (key, zone, name) VALUES (uuidv7(), 'eu', 'T')")
        for _ in range(records // 1000):
            conn.execute(
                b"INSERT INTO acgs.agent (key, zone, tenant_id, name) SELECT uuidv7(), 'eu', t.key, 'agent ' || n"
                b" FROM acgs.tenant AS t, generate_series(1, 1000) AS n"
            )
        until(lambda: count(other) == count(conn))


def native(cluster: Cluster) -> dict[str, float]:
    """Return how fast PostgreSQL itself copies the same rows as a plain table, and counts them."""
    with connect(cluster, WEST) as conn, connect(cluster, CENTRAL) as other:
        conn.execute(b"CREATE TABLE plain AS SELECT * FROM acgs.agent")
        conn.execute(b"ALTER TABLE plain ADD PRIMARY KEY (key)")
        conn.execute(b"CREATE PUBLICATION plain FOR TABLE plain")
        other.execute(b"CREATE TABLE plain (LIKE acgs.agent)")
        other.execute(b"ALTER TABLE plain ADD PRIMARY KEY (key)")
        rows = count(conn)
        other.execute(b"ALTER SYSTEM SET max_sync_workers_per_subscription = 1")
        other.execute(b"SELECT pg_reload_conf()")
        began_s = time.perf_counter()
        dsn = cluster.state.dsn(WEST, "postgres")
        other.execute(f"CREATE SUBSCRIPTION plain CONNECTION '{dsn}' PUBLICATION plain".encode())
        query = b"SELECT count(*) FROM plain"
        until(lambda: other.execute(query).fetchone() == (rows,))
        copied_s = time.perf_counter() - began_s
        began_s = time.perf_counter()
        conn.execute(query)
        counted_s = time.perf_counter() - began_s
        other.execute(b"DROP SUBSCRIPTION plain")
        other.execute(b"ALTER SYSTEM RESET max_sync_workers_per_subscription")
    return {
        "copy_rows_per_s": round(rows / copied_s),
        "count_s_per_million": round(counted_s / rows * 1e6, 2),
    }


async def compare(cluster: Cluster) -> tuple[float, Found]:
    async with (
        await psycopg.AsyncConnection.connect(cluster.state.dsn(WEST, "acgs_owner"), autocommit=True) as here,
        await psycopg.AsyncConnection.connect(
            cluster.state.dsn(CENTRAL, "acgs_link"), autocommit=True
        ) as there,
    ):
        found = Found("agent", "eu", CENTRAL)
        began_s = time.perf_counter()
        async for _ in reconcile(here, there, WEST, found, {}):
            pass
        return time.perf_counter() - began_s, found


def seed(cluster: Cluster) -> float:
    """Destroy the second region and return the seconds from its database being back to it being ready."""
    rows = count(connect(cluster, WEST))
    cluster.ask("kill", region=CENTRAL, component="all")
    shutil.rmtree(cluster.state.data_path(CENTRAL))
    cluster.ask("start", region=CENTRAL, component="postgres")
    began_s = time.perf_counter()
    cluster.ask("start", region=CENTRAL, component="server")

    def ready() -> bool:
        try:
            return httpx.get(f"{cluster.state.url(CENTRAL)}/health", timeout=5).json()["seeded"]
        except (httpx.HTTPError, KeyError):
            return False

    until(ready)
    took_s = time.perf_counter() - began_s
    if count(connect(cluster, CENTRAL)) != rows:
        raise SystemExit("seeded, and not everything is there")
    return took_s


def measure(cluster: Cluster, records: int) -> dict[str, Any]:
    fill(cluster, records)
    equal_s, equal = asyncio.run(compare(cluster))
    with connect(cluster, CENTRAL) as conn:
        conn.execute(b"SET session_replication_role = replica")
        conn.execute(
            b"DELETE FROM acgs.agent WHERE key = (SELECT key FROM acgs.agent ORDER BY key LIMIT 1 OFFSET 5000)"
        )
        rows = count(connect(cluster, WEST))
        differ_s, differ = asyncio.run(compare(cluster))
        began_s = time.perf_counter()
        until(lambda: count(conn) == rows)
        repaired_s = time.perf_counter() - began_s
    baseline = native(cluster)
    seeded_s = seed(cluster)
    return {
        "records": rows,
        "seeding_rows_per_s": round(rows / seeded_s),
        "native_copy_rows_per_s": baseline["copy_rows_per_s"],
        "compare_equal_s_per_million": round(equal_s / equal.compared * 1e6, 2),
        "compare_one_differs_s_per_million": round(differ_s / differ.compared * 1e6, 2),
        "ranges_equal": equal.ranges,
        "ranges_one_differs": differ.ranges,
        "repaired_after_s": round(repaired_s, 3),
        "native_count_s_per_million": baseline["count_s_per_million"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="acgs2-bench-"))
    folder.chmod(0o711)
    (folder / "seeding.yaml").write_text(TOPOLOGY, encoding="utf-8")
    cluster = up(folder / "seeding.yaml", folder / "state")
    try:
        found = measure(cluster, given.records)
    finally:
        cluster.down()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
