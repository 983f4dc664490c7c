"""What each stage of a governed message costs: token, verdict, row, commit with its parts, and what waits beside it.

    python benchmarks/stages.py [--rounds 5] [--json]

The first table is processor time of one message in the region's server, the second what a message of a batch of 128
adds to its transaction in the database: the whole, the same with the trigger of one part switched off (in a
transaction of its own that is rolled back), and a bare insert of the same rows into a table with the same columns
and a primary key. Medians of rounds by turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
from bus import CONSTITUTION, TOPOLOGY, WEST, Stand, show
from clusters import running
from psycopg import sql
from psycopg.rows import dict_row

from acgs2.api.tokens import Verifier
from acgs2.bus.accept import Parties, judged, row_of
from acgs2.bus.agents import Known
from acgs2.bus.committer import Row
from acgs2.bus.request import SendRequest, decode
from acgs2.model.ids import uuid7
from acgs2.policy import Bundle, Judge, default_platform, load
from acgs2.store.templates import fragments

BATCH = 128
_ACCEPT = fragments("bus.sql")["accept"].encode()


def body(tenant: str, sender: UUID, receiver: UUID, number: int) -> bytes:
    """Return a message as it comes over the wire; no two are alike to policies."""
    message = {
        "message_id": str(uuid7(time.time_ns() // 1_000_000, os.urandom(10))),
        "conversation_id": str(uuid4()),
        "tenant_id": tenant,
        "from_agent": str(sender),
        "to_agent": str(receiver),
        "message_type": f"greeting-{number}",
        "content": "x" * 200,
        "payload": {"order": number, "note": "as agreed"},
        "constitutional_hash": CONSTITUTION,
    }
    return json.dumps(message).encode()


def each_us(act: Callable[[Any], object], given: list[Any]) -> float:
    """Return the median processor time of one call, in microseconds."""
    took: list[float] = []
    for one in given:
        began_ns = time.thread_time_ns()
        act(one)
        took.append((time.thread_time_ns() - began_ns) / 1000)
    return median(took)


class Door:
    """What a region's server does with a message, one stage at a time."""

    def __init__(self, stand: Stand, known: list[Known]) -> None:
        self.token = stand.plan("alone", "direct")["token"]
        self.tenant = stand.tenants["alone"]
        self.jwks = stand.cluster.state.path / "secrets" / "jwks.json"
        self.audience = stand.cluster.state.topology.name
        constitution = load()
        self.judge = Judge(constitution, Bundle.load(default_platform(), shared=constitution.groups))
        self.known = known
        self.count = 0

    def bodies(self, count: int) -> list[bytes]:
        made: list[bytes] = []
        for _ in range(count):
            self.count += 1
            sender, receiver = (self.known[(self.count + n) % len(self.known)].key for n in (0, 1))
            made.append(body(self.tenant, sender, receiver, self.count))
        return made

    def between(self, request: SendRequest) -> Parties:
        sender, receiver = (
            next(k for k in self.known if k.key == key) for key in (request.from_agent, request.to_agent)
        )
        return Parties(sender, receiver)

    def rows(self, count: int) -> list[Row]:
        """Return rows of as many new messages, as the server makes them."""
        now = datetime.now(UTC)
        made: list[Row] = []
        for number, each in enumerate(self.bodies(count)):
            request = decode(each, now)
            between = self.between(request)
            row = row_of(request, "alone", "bench", between, judged(request, "alone", between, self.judge))
            row.i = number
            made.append(row)
        return made

    def round(self, count: int) -> dict[str, float]:
        """Measure every stage once."""
        now = datetime.now(UTC)
        fresh = [Verifier(self.jwks, self.audience) for _ in range(50)]
        verifier = fresh[0]
        verifier.verify(self.token)
        bodies = self.bodies(count)
        requests = [decode(each, now) for each in bodies]
        sides = [(request, self.between(request)) for request in requests]
        judge = self.judge.forgetting()

        def verdict(side: tuple[SendRequest, Parties]) -> Any:
            return judged(side[0], "alone", side[1], judge)

        found = {
            "token, first time": each_us(lambda v: v.verify(self.token), fresh[1:]),
            "token, seen before": each_us(lambda _: verifier.verify(self.token), [None] * count),
            "read the body": each_us(lambda each: decode(each, now), bodies),
            "verdict, cold": each_us(verdict, sides),
            "verdict, cached": each_us(verdict, sides),
        }
        given = [(request, side, verdict((request, side))) for request, side in sides]
        found["digest, commitment and leaf"] = each_us(
            lambda g: row_of(g[0], "alone", "bench", g[1], g[2]), given
        )
        rows = [row_of(request, "alone", "bench", side, said) for request, side, said in given[:BATCH]]
        found["encode a batch, each"] = each_us(lambda _: msgspec.json.encode(rows), [None] * 20) / BATCH
        return found


async def triggers(conn: psycopg.AsyncConnection[Any]) -> list[str]:
    """Return the triggers that fire after a message is inserted, by name."""
    cursor = await conn.execute(
        b"SELECT tgname FROM pg_trigger WHERE tgrelid = 'acgs.message'::regclass AND NOT tgisinternal AND tgtype & 6 = 4"
    )
    return sorted(row[0] for row in await cursor.fetchall())


async def batch_us(conn: psycopg.AsyncConnection[Any], door: Door, without: str | None = None) -> float:
    """Return what a message of a batch takes in the database, and keep nothing of it."""
    took: list[float] = []
    for _ in range(6):
        text = msgspec.json.encode(door.rows(BATCH)).decode()
        async with conn.transaction(force_rollback=True):
            if without is not None:
                off = sql.SQL("ALTER TABLE acgs.message DISABLE TRIGGER {}").format(sql.Identifier(without))
                await conn.execute(off)
            began_s = time.perf_counter()
            await (await conn.execute(_ACCEPT, (text,), prepare=True)).fetchall()
            took.append((time.perf_counter() - began_s) * 1e6 / BATCH)
    return median(took[1:])


async def leaves_us(conn: psycopg.AsyncConnection[Any], door: Door) -> float:
    took: list[float] = []
    for _ in range(6):
        rows = door.rows(BATCH)
        text = msgspec.json.encode(
            [{"s": str(row.key), "t": str(row.tenant_id), "b": row.leaf} for row in rows]
        ).decode()
        async with conn.transaction(force_rollback=True):
            began_s = time.perf_counter()
            await conn.execute(
                b"INSERT INTO acgs.audit_leaf (kind, subject, tenant, body) SELECT 'message', s, t, b"
                b" FROM json_to_recordset(%s) AS r (s uuid, t uuid, b text)",
                (text,),
                prepare=True,
            )
            took.append((time.perf_counter() - began_s) * 1e6 / BATCH)
    return median(took[1:])


async def bare_us(conn: psycopg.AsyncConnection[Any], door: Door) -> float:
    """Return what the same rows take in a plain table with a primary key."""
    await conn.execute(b"CREATE TABLE IF NOT EXISTS public.plain (LIKE acgs.message, PRIMARY KEY (key))")
    for column in ("residency", "sent_to", "hlc", "origin", "vv", "erased", "rights", "meta"):
        drop = sql.SQL("ALTER TABLE public.plain ALTER COLUMN {} DROP NOT NULL")
        await conn.execute(drop.format(sql.Identifier(column)))
    took: list[float] = []
    for _ in range(6):
        text = msgspec.json.encode(door.rows(BATCH)).decode()
        async with conn.transaction(force_rollback=True):
            began_s = time.perf_counter()
            await conn.execute(
                b"INSERT INTO public.plain SELECT (r).* FROM json_populate_recordset(NULL::public.plain, %s) AS r",
                (text,),
                prepare=True,
            )
            took.append((time.perf_counter() - began_s) * 1e6 / BATCH)
    return median(took[1:])


async def measure(stand: Stand, rounds: int) -> dict[str, dict[str, float]]:
    """Return the two tables."""
    dsn = stand.cluster.state.dsn(WEST, "postgres")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, row_factory=dict_row) as conn:
        cursor = await conn.execute(
            fragments("bus.sql")["agents"].encode(), ([UUID(a) for a in stand.agents["alone"]],)
        )
        door = Door(stand, [Known.of(row) for row in await cursor.fetchall()])
    server: dict[str, list[float]] = {}
    database: dict[str, list[float]] = {}
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        names = await triggers(conn)
        for _ in range(rounds):
            for stage, us in door.round(1000).items():
                server.setdefault(stage, []).append(us)
            whole = await batch_us(conn, door)
            database.setdefault("accept, whole", []).append(whole)
            for name in names:
                database.setdefault(f"of it trigger {name}", []).append(
                    whole - await batch_us(conn, door, name)
                )
            database.setdefault("of it the audit leaf", []).append(await leaves_us(conn, door))
            database.setdefault("bare insert", []).append(await bare_us(conn, door))
    return {
        name: {stage: round(median(values), 1) for stage, values in table.items()}
        for name, table in (("server", server), ("database", database))
    }


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    with running(TOPOLOGY) as cluster:
        tables = asyncio.run(measure(Stand(cluster), chosen.rounds))
    if chosen.json:
        print(json.dumps(tables, indent=1))
        return
    for name, table in tables.items():
        show([{f"in the {name}": stage, "µs a message": us} for stage, us in table.items()])
        print()


if __name__ == "__main__":
    main()
