"""When one region of a pair may acknowledge alone: agreed by a majority first, recorded, and ended.

Both regions of a pair acknowledge a write together. When one is away the other may go on only if a majority
of voters has recorded it; then the first, should it still live somewhere, cannot do the same, and whoever
comes later knows that it may lack acknowledged writes.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import psycopg

from acgs2.api.region import RegionServer
from acgs2.errors import OutcomeUnknown, UnavailableError
from acgs2.logs.write import get_logger
from acgs2.store.templates import fragments

__all__ = ["run_pairs"]

_LOG = get_logger("acgs2.pairs")
_QUERIES = fragments("pairs.sql")
_TICK_S = 0.1
#: How long after its connection broke a peer is asked whether it still is there, and for how long.
_GONE_S = 0.3
_PROBE_S = 1.0
_CATCH_UP_S = 30.0


async def run_pairs(server: RegionServer) -> None:
    """Watch the pairs of this region until cancelled."""
    away_since_s: dict[str, float] = {}
    while True:
        await asyncio.sleep(_TICK_S)
        for zone, pair in server.rules.pairs.items():
            peers = [p for p in pair if p != server.region]
            if server.region not in pair or len(peers) != 1 or server.life is None or not server.life.seeded:
                continue
            try:
                await _watch(server, zone, peers[0], away_since_s)
            except UnavailableError as error:
                _LOG.info("pair-not-agreed", zone=zone, error=error.reference)
            except psycopg.Error as error:
                _LOG.warning("pair-not-recorded", zone=zone, error=type(error).__name__)


async def _watch(server: RegionServer, zone: str, peer: str, away_since_s: dict[str, float]) -> None:
    patience_s = server.topology.failover.failures * server.topology.failover.interval_s
    if not server.watcher.connected(peer):
        away_s = time.monotonic() - away_since_s.setdefault(zone, time.monotonic())
        if zone not in server.alone and (
            away_s >= patience_s or (away_s >= _GONE_S and await _is_gone(server, peer))
        ):
            await _go_alone(server, zone, peer)
        return
    away_since_s.pop(zone, None)
    if zone not in server.settled_pairs:
        # After a start: a window that this region opened before is still open.
        agreed = await server.register.read(_key(zone))
        if (agreed.value or {}).get("alone") == server.region:
            _hold(server, zone, agreed.value)
        server.settled_pairs.add(zone)
    if zone in server.alone:
        await _come_together(server, zone, peer)


async def _is_gone(server: RegionServer, peer: str) -> bool:
    """Return whether a peer refuses connections: then it is dead, while one that is cut off is silent."""
    try:
        async with asyncio.timeout(_PROBE_S):
            conn = await psycopg.AsyncConnection.connect(server.config.peer_databases[peer], autocommit=True)
    except TimeoutError:
        return False
    except psycopg.OperationalError as error:
        return error.sqlstate is None  # a database that is coming up says so
    await conn.close()
    return False


async def _go_alone(server: RegionServer, zone: str, peer: str) -> None:
    def decide(value: Any) -> Any:
        if value is not None and value["alone"] is not None:
            return value
        return {"alone": server.region, "since": datetime.now(UTC).isoformat()}

    agreed = await server.register.change(_key(zone), decide)
    if agreed.value["alone"] != server.region:
        _LOG.warning("pair-held-elsewhere", zone=zone, held_by=agreed.value["alone"])
        server.held_elsewhere[zone] = agreed.value["alone"]
        return
    await _record(server, "open", zone=zone, version=agreed.version, peer=peer)
    server.settled_pairs.add(zone)
    _hold(server, zone, agreed.value)
    _LOG.warning("pair-alone", zone=zone, without=peer, version=agreed.version)


def _hold(server: RegionServer, zone: str, agreed: Any) -> None:
    """Acknowledge a zone's writes alone, those that wait for the other region as well."""
    server.alone[zone] = agreed
    server.watcher.go_alone(zone)


async def _come_together(server: RegionServer, zone: str, peer: str) -> None:
    """Wait for the peer again, and close the window once it has all that was acknowledged without it."""
    value = server.alone.pop(zone)
    server.watcher.come_together(zone)
    try:
        async with server.pool.connection() as conn:
            row = await (await conn.execute(fragments("api.sql")["flushed"].encode())).fetchone()
        position = row[0] if row else "FFFFFFFF/FFFFFFFF"
        await server.watcher.wait(position, [peer], _CATCH_UP_S)
        await server.register.change(
            _key(zone), lambda v: {"alone": None, "since": None} if v and v["alone"] == server.region else v
        )
    except (OutcomeUnknown, UnavailableError, psycopg.Error):
        _hold(server, zone, value)  # it is still agreed
        raise
    await _record(server, "close", zone=zone, lsn=position)
    _LOG.warning("pair-together", zone=zone, peer=peer)


async def _record(server: RegionServer, query: str, **names: Any) -> None:
    async with await psycopg.AsyncConnection.connect(
        server.config.owner_database, autocommit=True, connect_timeout=3
    ) as conn:
        await conn.execute(_QUERIES[query].encode(), names)


def _key(zone: str) -> str:
    return f"pair/{zone}"
