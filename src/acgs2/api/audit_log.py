"""The region's duty to its audit log: order, checkpoints, and what others say of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg

from acgs2.api.region import RegionServer
from acgs2.audit.keys import read_own
from acgs2.audit.sequencer import Sequencer
from acgs2.logs.write import get_logger

__all__ = ["run_audit"]

_LOG = get_logger("acgs2.audit")
#: How often a checkpoint is cut while leaves come.
_CUT_S = 0.1
#: How long after the last leaf a region looks less often.
_IDLE_AFTER_S = 2.0
_IDLE_S = 0.4


async def run_audit(server: RegionServer) -> None:
    """Cut checkpoints while leaves come until cancelled; an absent database is waited for."""
    config = server.config
    if config.audit_key_path is None:
        _LOG.warning("audit-without-keys")
        await asyncio.Event().wait()
        return
    sequencer = Sequencer(read_own(Path(config.audit_key_path)).log)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                config.owner_database, autocommit=True, connect_timeout=3
            ) as conn:
                await _sequence(server, sequencer, conn)
        except psycopg.Error as error:
            _LOG.warning("audit-waits", error=type(error).__name__, sqlstate=error.sqlstate)
        await asyncio.sleep(_IDLE_S)


async def _sequence(server: RegionServer, sequencer: Sequencer, conn: psycopg.AsyncConnection) -> None:
    begun: str | None = None
    loop = asyncio.get_running_loop()
    busy_s = loop.time()
    while True:
        life = server.life
        if life is None or server.replaced:
            await asyncio.sleep(_CUT_S)
            continue
        if begun != life.incarnation:
            if await sequencer.begin(conn, life.incarnation, None):
                _LOG.info("audit-log-began", incarnation=life.incarnation)
            begun = life.incarnation
        while await sequencer.is_waiting(conn) and (cut := await sequencer.cut(conn)):
            busy_s = loop.time()
            if not cut.full:
                break
        await asyncio.sleep(_CUT_S if loop.time() - busy_s < _IDLE_AFTER_S else _IDLE_S)
