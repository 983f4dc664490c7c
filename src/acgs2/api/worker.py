"""What follows from changed rights and merges, done as soon as the database says that there is something."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg

from acgs2.api.region import RegionServer
from acgs2.logs.write import get_logger
from acgs2.store.templates import fragments
from acgs2.store.work import CHANNEL, work

__all__ = ["run_worker"]

_LOG = get_logger("acgs2.worker")
_IDLE_S = 1.0
_RETRY_S = 0.2
#: What a region of an older release says of an entity that it does not know.
_UNKNOWN_ENTITY = "AC016"
_QUERIES = fragments("work.sql")


async def run_worker(server: RegionServer) -> None:
    """Work until cancelled; an absent database is waited for, a step that fails is tried again."""
    failing = False
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                server.config.owner_database, autocommit=True, connect_timeout=3
            ) as conn:
                await conn.execute(f"LISTEN {CHANNEL}".encode())
                while True:
                    async for _ in work(conn):
                        failing = False
                    await acquire(server, conn)
                    async for _ in conn.notifies(timeout=_IDLE_S, stop_after=1):
                        pass
        except psycopg.Error as error:
            if not failing:
                _LOG.warning("work-failed", error=type(error).__name__, sqlstate=error.sqlstate)
            failing = True
            await asyncio.sleep(_RETRY_S)


async def acquire(server: RegionServer, conn: psycopg.AsyncConnection) -> None:
    """Ask for what this region may hold and has not been given; ask another when one does not answer."""
    wanted = await (await conn.execute(_QUERIES["wanted"].encode())).fetchall()
    for number, asked_of, request, entity, zone, sources, everything in wanted:
        if asked_of is not None and await _is_busy(server, asked_of, request):
            await conn.execute(_QUERIES["still_asked"].encode(), {"request": request})
            continue
        refusals: set[str | None] = set()
        for source in sources:
            asked = uuid4()
            names = {"id": number, "entity": entity, "zone": zone, "source": source, "request": asked}
            names["everything"] = everything
            # Noted first: the answer may arrive before the call returns.
            await conn.execute(_QUERIES["asking"].encode(), names)
            refusal = await _ask(server, source, names)
            refusals.add(refusal)
            if refusal is None:
                _LOG.info("acquiring", entity=entity, zone=zone, source=source)
                break
        if refusals == {_UNKNOWN_ENTITY}:
            # All others run an older release: what they were sent of it waits in their quarantine.
            await conn.execute(_QUERIES["nobody_knows"].encode(), {"id": number})


async def _ask(server: RegionServer, source: str, names: dict[str, object]) -> str | None:
    """Ask one region; return None if it gives, else why not, as SQLSTATE."""
    try:
        async with server.peers.using(source) as there:
            await there.execute(_QUERIES["ask"].encode(), {**names, "target": server.region})
    except psycopg.Error as error:
        _LOG.info("not-given", source=source, sqlstate=error.sqlstate)
        return error.sqlstate or "away"
    return None


async def _is_busy(server: RegionServer, source: str, request: object) -> bool:
    """Return whether a region that was asked is still about it."""
    try:
        async with server.peers.using(source) as there:
            row = await (await there.execute(_QUERIES["asked"].encode(), {"request": request})).fetchone()
    except psycopg.Error:
        return False
    return row is not None and row[0] is not None
