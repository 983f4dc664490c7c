"""What a region's server does unasked: heartbeats, rules, quarantine, partitions, leading."""

from __future__ import annotations

import asyncio
import time

import psycopg

from acgs2.api.region import RegionServer
from acgs2.consensus import PaxosRegister
from acgs2.consensus.members import level
from acgs2.errors import AcgsError
from acgs2.logs.write import get_logger

__all__ = ["run_committer", "run_leader", "run_mender", "run_tasks"]

_LOG = get_logger("acgs2.tasks")
_TICK_S = 0.5
_MEND_S = 5.0
#: Statement and how many ticks lie between two runs of it.
_DUTIES = (
    (b"SELECT acgs.beat()", 1),
    (b"SELECT acgs.refresh_rules()", 2),
    (b"SELECT acgs.watch_links()", 2),
    (b"SELECT acgs.retry_quarantine()", 2),
    (b"SELECT acgs.maintain()", 120),
)


async def run_tasks(server: RegionServer) -> None:
    """Do the region's duties until cancelled; an absent database is waited for."""
    away_since_s: float | None = None
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                server.config.owner_database, autocommit=True, connect_timeout=3
            ) as conn:
                if away_since_s is not None:
                    _LOG.warning("database-back", after_s=round(time.monotonic() - away_since_s, 1))
                    away_since_s = None
                await _duties(server, conn)
        except psycopg.Error as error:
            if away_since_s is None:
                away_since_s = time.monotonic()
                _LOG.warning("database-away", error=type(error).__name__, sqlstate=error.sqlstate)
            await asyncio.sleep(_TICK_S)


async def run_leader(server: RegionServer) -> None:
    """Contend for the lead until cancelled; see `Leader`."""
    await server.leader.run()


async def run_mender(server: RegionServer) -> None:
    """Go on with what others left half-way, while this region leads, until cancelled.

    That is a document whose pointer was never raised, and a voter that was away when something was agreed.
    """
    while True:
        await asyncio.sleep(_MEND_S)
        if not server.leader.held():
            continue
        try:
            await server.governance.documents.mend()
            if isinstance(server.register, PaxosRegister):
                await level(server.register, server.voters)
        except AcgsError as error:
            _LOG.info("not-mended", error=error.reference)


async def run_committer(server: RegionServer) -> None:
    """Commit messages until cancelled; see `Committer`."""
    await server.committer.run()


async def _duties(server: RegionServer, conn: psycopg.AsyncConnection) -> None:
    tick = 0
    while True:
        for statement, every in _DUTIES:
            if tick % every == 0:
                await conn.execute(statement)
        if tick % 2 == 0:
            await server.read_rules(conn)
        tick += 1
        await asyncio.sleep(_TICK_S)
