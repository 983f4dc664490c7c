"""Replication with merge from one source to two regions, beside raw native logical replication in the same run.

    python benchmarks/replication.py [--rows 20000] [--rounds 5] [--regions 4 8 12] [--json]

Both carry the same rows. Rounds of both kinds alternate; medians and ratios are printed. Stages: capture is what the
source spends on a statement with its triggers; decode is reading the publication from the WAL; merge is calling the
merge function on the same batches. Added lag is measured at 1,000 rows a second, one row a statement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg

from acgs2 import store
from acgs2.local.postgres import find_binaries, find_owner, init_template, make_data, running
from acgs2.local.state import choose_ports
from acgs2.store.region import link_name
from acgs2.topology import Topology, load, parse

PASSWORDS = {"acgs_owner": "owner", "acgs_app": "app", "acgs_link": "link"}
SOURCE = "eu-west-1"


def topology_of(regions: int) -> Topology:
    """Return a topology with so many regions and one zone that all of them hold."""
    names = [SOURCE, *sorted(set(load("guide").regions) - {SOURCE})][:regions]
    declared = "".join(f"  {name}: {{country: IE}}\n" for name in names)
    return parse(
        "name: bench\ndomain: acgs2.example\nconstitution: {id: cdd01ef066bc6cf2}\nregions:\n"
        + declared
        + f"zones:\n  all: {{regulation: gdpr, regions: [{', '.join(names)}], pair: none}}\n"
    )


COLUMNS = "key, zone, tenant_id, name, status, capabilities, description"
VALUES = "k, 'all', %s, 'agent ' || k, 'active', '[\"read\", \"write\"]', 'some words on what it does and for whom'"


async def _link(here_dsn: str, there_dsn: str, target: str) -> None:
    async with (
        await psycopg.AsyncConnection.connect(here_dsn, autocommit=True) as here,
        await psycopg.AsyncConnection.connect(there_dsn, autocommit=True) as there,
    ):
        await store.link(here, there, target, SOURCE, there_dsn, "00000000", "first")


class Bench:
    """Three servers, a raw publication and ours between them."""

    def __init__(self, dsns: Mapping[str, str], topology: Topology) -> None:
        self.dsns = dsns
        self.targets = [r for r in dsns if r != SOURCE]
        for number, (region, dsn) in enumerate(dsns.items()):
            with psycopg.connect(dsn.format("postgres", "postgres"), autocommit=True) as conn:
                conn.execute(b"CREATE DATABASE acgs2 TEMPLATE migrated")
            with psycopg.connect(dsn.format("acgs2", "postgres"), autocommit=True) as conn:
                store.migrate(conn)
                store.found(conn, topology, region, f"{number:08x}", PASSWORDS, first=True)
                conn.execute(b"SELECT acgs.awaken(0, 0, '')")
                conn.execute(
                    b"CREATE TABLE raw (key uuid PRIMARY KEY, zone text, tenant_id uuid, name text, status text,"
                    b" capabilities jsonb, description text)"
                )
                conn.execute(b"CREATE TABLE acgs.benched (key uuid)")
        self.conns = {
            r: psycopg.connect(d.format("acgs2", "postgres"), autocommit=True) for r, d in dsns.items()
        }
        self.source = self.conns[SOURCE]
        self.source.execute(b"CREATE PUBLICATION raw FOR TABLE raw")
        for number, target in enumerate(self.targets):
            self.source.execute(
                b"SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (f"raw{number}",)
            )
            info = dsns[SOURCE].format("acgs2", "acgs_link").replace("superuser", PASSWORDS["acgs_link"])
            self.conns[target].execute(
                f"CREATE SUBSCRIPTION raw{number} CONNECTION '{info} application_name=raw{number}' PUBLICATION raw"
                " WITH (create_slot=false, copy_data=false, origin=none, streaming=off, synchronous_commit=local)".encode()
            )
            asyncio.run(
                _link(
                    dsns[target].format("acgs2", "acgs_owner").replace("superuser", PASSWORDS["acgs_owner"]),
                    info,
                    target,
                )
            )
        for target in self.targets:
            for peer in (t for t in self.conns if t != target):
                self.conns[target].execute(b"SELECT pg_drop_replication_slot(%s)", (link_name(target, peer),))
        self.tenant = uuid4()
        self.source.execute(
            b"INSERT INTO acgs.tenant (key, zone, name) VALUES (%s, 'all', 'T')", (self.tenant,)
        )

    def use(self, kind: str) -> None:
        """Let only one kind of subscription run, and begin with empty tables."""
        for number, target in enumerate(self.targets):
            ours, raw = link_name(SOURCE, target), f"raw{number}"
            on, off = (raw, ours) if kind == "raw" else (ours, raw)
            self.conns[target].execute(f"ALTER SUBSCRIPTION {off} DISABLE".encode())
            self.conns[target].execute(f"ALTER SUBSCRIPTION {on} ENABLE".encode())
        lsn = self.source.execute(b"SELECT pg_current_wal_lsn()").fetchone()
        like = "raw%" if kind == "raw" else "acgs%"
        while self.source.execute(
            b"SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= %s AND application_name LIKE %s",
            (lsn[0] if lsn else None, like),
        ).fetchone() != (len(self.targets),):
            time.sleep(0.02)
        for conn in self.conns.values():
            conn.execute(b"TRUNCATE raw, acgs.agent, acgs.journal")

    def statement(self, kind: str, update: bool) -> bytes:
        table = "raw" if kind == "raw" else "acgs.agent"
        if update:
            return f"UPDATE {table} SET name = 'u' || name, description = 'changed' WHERE tenant_id = %s AND key = ANY (%s)".encode()
        return f"INSERT INTO {table} ({COLUMNS}) SELECT {VALUES} FROM unnest(%s::uuid[]) AS k".encode()

    def run(self, kind: str, rows: int, batch: int, update: bool, keys: list[UUID]) -> tuple[float, float]:
        """Return rows/s at the source alone, and until both targets have the last row."""
        table = "raw" if kind == "raw" else "acgs.agent"
        began_s = time.perf_counter()
        with self.source.pipeline():
            for start in range(0, rows, batch):
                self.source.execute(
                    self.statement(kind, update), (self.tenant, keys[start : start + batch]), prepare=True
                )
        source_s = time.perf_counter() - began_s
        query = f"SELECT 1 FROM {table} WHERE key = %s AND (NOT %s OR description = 'changed')".encode()
        for target in self.targets:
            while not self.conns[target].execute(query, (keys[-1], update)).fetchone():
                time.sleep(0.003)
        return rows / source_s, rows / (time.perf_counter() - began_s)

    def stages(self, rows: int, batch: int) -> dict[str, float]:
        """Return microseconds a row: writing raw, writing with capture, decoding, merging new and known rows."""
        for target in self.targets:
            self.conns[target].execute(f"ALTER SUBSCRIPTION {link_name(SOURCE, target)} DISABLE".encode())
        self.source.execute(b"SELECT pg_create_logical_replication_slot('stage', 'pgoutput')")
        took: dict[str, float] = {}
        for kind in ("raw", "ours"):
            keys = [uuid4() for _ in range(rows)]
            began_s = time.perf_counter()
            with self.source.pipeline():
                for start in range(0, rows, batch):
                    self.source.execute(
                        self.statement(kind, False), (self.tenant, keys[start : start + batch]), prepare=True
                    )
            took[f"write {kind}"] = (time.perf_counter() - began_s) / rows * 1e6
        for kind, publication in (("raw", "raw"), ("ours", link_name(SOURCE, self.targets[0]))):
            began_s = time.perf_counter()
            self.source.execute(
                b"SELECT count(*) FROM pg_logical_slot_peek_binary_changes('stage', NULL, NULL,"
                b" 'proto_version', '4', 'publication_names', %s)",
                (publication,),
            ).fetchone()
            took[f"decode {kind}"] = (time.perf_counter() - began_s) / rows * 1e6
        self.source.execute(b"SELECT pg_drop_replication_slot('stage')")
        target = self.conns[self.targets[0]]
        parts = self.source.execute(
            b"SELECT records::text FROM acgs.journal WHERE entity = 'agent' ORDER BY seq"
        ).fetchall()
        target.execute(b"SET session_replication_role = replica")
        for name, change in (("merge new", False), ("merge known", True)):
            bodies = [body if not change else _later(body) for (body,) in parts]
            began_s = time.perf_counter()
            with target.pipeline():
                for body in bodies:
                    target.execute(b"SELECT acgs.merge_batch('agent', %s, '{}')", (body,), prepare=True)
            took[name] = (time.perf_counter() - began_s) / rows * 1e6
        target.execute(b"RESET session_replication_role")
        for each in self.targets:
            self.conns[each].execute(f"ALTER SUBSCRIPTION {link_name(SOURCE, each)} ENABLE".encode())
        return took

    def lag(self, rate: int, seconds: float) -> dict[str, float]:
        """Return percentiles of the time from the writing statement to the merge, in milliseconds."""
        for target in self.targets:
            self.conns[target].execute(b"TRUNCATE acgs.link_lag")
        began_s = time.perf_counter()
        for number in range(int(rate * seconds)):
            self.source.execute(self.statement("ours", False), (self.tenant, [uuid4()]), prepare=True)
            ahead_s = (number + 1) / rate - (time.perf_counter() - began_s)
            if ahead_s > 0:
                time.sleep(ahead_s)
        achieved = rate * seconds / (time.perf_counter() - began_s)
        time.sleep(0.5)
        found = [
            ms
            for t in self.targets
            for (ms,) in self.conns[t].execute(b"SELECT lag_us / 1000.0 FROM acgs.link_lag").fetchall()
        ]
        cuts = statistics.quantiles([float(ms) for ms in found], n=100)
        return {
            "rows_per_s": round(achieved),
            "samples": len(found),
            "p50_ms": cuts[49],
            "p90_ms": cuts[89],
            "p99_ms": cuts[98],
        }


def _later(body: str) -> str:
    rows = json.loads(body)
    for row in rows:
        row["hlc"] += 1_000_000
        row["vv"] = {row["origin"]: row["vv"][row["origin"]] + 1}
    return json.dumps(rows)


@contextmanager
def servers(topology: Topology) -> Iterator[Mapping[str, str]]:
    """Start a PostgreSQL per region; yields a DSN template (database, role) per region."""
    path = Path(tempfile.mkdtemp(prefix="acgs2-bench-"))
    path.chmod(0o711)
    owner = find_owner()
    ports = choose_ports(topology)
    binaries = find_binaries(path, owner)

    def prepare(dsn: str) -> None:
        with psycopg.connect(f"{dsn} dbname=postgres", autocommit=True) as conn:
            conn.execute(b"CREATE DATABASE migrated")
        with psycopg.connect(f"{dsn} dbname=migrated", autocommit=True) as conn:
            store.migrate(conn)

    try:
        init_template(binaries, owner, path / "template", "superuser", ports["links"], prepare)
        with ExitStack() as stack:
            dsns: dict[str, str] = {}
            for region in topology.regions:
                port = ports[f"postgres/{region}"]
                make_data(path / "template", path / region / "data", owner, port, 16)
                dsns[region] = f"host=127.0.0.1 port={port} dbname={{}} user={{}} password=superuser"
                plain = dsns[region].format("", "postgres").replace("dbname= ", "")
                stack.enter_context(running(binaries, owner, path / region / "data", plain))
            yield dsns
    finally:
        shutil.rmtree(path, ignore_errors=True)


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--regions", type=int, nargs="*", default=[4, 8, 12])
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    topology = topology_of(3)
    result: dict[str, Any] = {"rows": [], "regions": []}
    with servers(topology) as dsns:
        bench = Bench(dsns, topology)
        for batch in (100, 10, 1):
            rows = chosen.rows if batch > 1 else chosen.rows // 4
            found: dict[tuple[str, str], list[tuple[float, float]]] = {}
            for _ in range(chosen.rounds):
                for kind in ("raw", "ours"):
                    bench.use(kind)
                    keys = sorted(uuid4() for _ in range(rows))
                    for what, update in (("insert", False), ("update", True)):
                        found.setdefault((kind, what), []).append(bench.run(kind, rows, batch, update, keys))
            for what in ("insert", "update"):
                raw, ours = ([r[1] for r in found[k, what]] for k in ("raw", "ours"))
                ratios = [o / r for o, r in zip(ours, raw, strict=True)]
                result["rows"].append(
                    {
                        "what": what,
                        "rows_a_statement": batch,
                        "raw_rows_s": round(statistics.median(raw)),
                        "ours_rows_s": round(statistics.median(ours)),
                        "ratio": round(statistics.median(ratios), 2),
                        "ratio_min": round(min(ratios), 2),
                        "ratio_max": round(max(ratios), 2),
                    }
                )
        bench.use("ours")
        result["stages_us_a_row"] = {k: round(v, 1) for k, v in bench.stages(chosen.rows, 100).items()}
        bench.use("ours")
        result["lag"] = {k: round(v, 2) for k, v in bench.lag(1000, 5).items()}
        for conn in bench.conns.values():
            conn.close()
    for regions in chosen.regions:
        result["regions"].append(_spread(regions, chosen.rows, chosen.rounds))
    print(json.dumps(result, indent=1) if chosen.json else _table(result))


def _spread(regions: int, rows: int, rounds: int) -> dict[str, Any]:
    """Return rows/s until every one of many regions has them, raw and ours."""
    found: dict[str, list[float]] = {"raw": [], "ours": []}
    topology = topology_of(regions)
    with servers(topology) as dsns:
        bench = Bench(dsns, topology)
        for _ in range(rounds):
            for kind, each in found.items():
                bench.use(kind)
                each.append(bench.run(kind, rows, 100, False, sorted(uuid4() for _ in range(rows)))[1])
        for conn in bench.conns.values():
            conn.close()
    raw, ours = (statistics.median(found[k]) for k in ("raw", "ours"))
    ratio = statistics.median(o / r for r, o in zip(found["raw"], found["ours"], strict=True))
    return {
        "regions": regions,
        "raw_rows_s": round(raw),
        "ours_rows_s": round(ours),
        "ratio": round(ratio, 2),
    }


def _table(result: dict[str, Any]) -> str:
    lines = [
        "| what | rows a statement | raw rows/s | with merge rows/s | ratio (min-max) |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['what']} | {r['rows_a_statement']} | {r['raw_rows_s']} | {r['ours_rows_s']} | {r['ratio']}"
        f" ({r['ratio_min']}-{r['ratio_max']}) |"
        for r in result["rows"]
    ]
    lines += [
        "",
        "| stage | µs a row |",
        "|---|---|",
        *(f"| {k} | {v} |" for k, v in result["stages_us_a_row"].items()),
    ]
    lines += [
        "",
        f"Added lag at {result['lag']['rows_per_s']:.0f} rows/s: p50 {result['lag']['p50_ms']}, p90 {result['lag']['p90_ms']},"
        f" p99 {result['lag']['p99_ms']} ms ({result['lag']['samples']:.0f} samples).",
    ]
    if result["regions"]:
        lines += ["", "| regions | raw rows/s | with merge rows/s | ratio |", "|---|---|---|---|"]
        lines += [
            f"| {r['regions']} | {r['raw_rows_s']} | {r['ours_rows_s']} | {r['ratio']} |"
            for r in result["regions"]
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
