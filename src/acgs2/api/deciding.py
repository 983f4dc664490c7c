"""Ends what waits for people, in the region that serves the zone's inboxes: once at a time, and in time."""

from __future__ import annotations

import asyncio

import psycopg

from acgs2.api.deliberations import conclude
from acgs2.api.region import RegionServer
from acgs2.errors import UnavailableError
from acgs2.logs.write import get_logger
from acgs2.store.templates import fragments

__all__ = ["run_deciding"]

_LOG = get_logger("acgs2.deliberations")
_QUERIES = fragments("bus.sql")
_CHANNEL = b"LISTEN acgs_held"
#: How often what waits is looked through when nobody says anything: deadlines pass in silence.
_LOOK_S = 0.5
_RETRY_S = 0.2
_AT_ONCE = 200


async def run_deciding(server: RegionServer) -> None:
    """Decide until cancelled; an absent database is waited for."""
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                server.config.database, autocommit=True, connect_timeout=3
            ) as conn:
                await conn.execute(_CHANNEL)
                while True:
                    await _look(server, conn)
                    async for _ in conn.notifies(timeout=_LOOK_S, stop_after=1):
                        pass
        except (psycopg.Error, UnavailableError) as error:
            _LOG.info("deciding-waits", error=type(error).__name__)
            await asyncio.sleep(_RETRY_S)


async def _look(server: RegionServer, conn: psycopg.AsyncConnection) -> None:
    zones = [zone for zone in server.rules.pairs if server.inboxes.serves(zone)]
    if not zones:
        return
    governed = server.governance.require()
    names = {"zones": zones, "tenant": None, "limit": _AT_ONCE}
    rows = await (await conn.execute(_QUERIES["waiting"].encode(), names)).fetchall()
    if rows:
        await conclude(server, [key for (key,) in rows], governed)
