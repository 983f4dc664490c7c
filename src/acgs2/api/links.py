"""Keeps this region alive in the eyes of its peers, and its incoming links fit to both lives."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psycopg
from psycopg.types.json import Jsonb

from acgs2.api.region import RegionServer
from acgs2.consensus.voters import relearn
from acgs2.logs.write import get_logger
from acgs2.model.clock import Offset, is_apart
from acgs2.store.life import Heard, Life, awaken, beat
from acgs2.store.links import greet, incoming, link, why_relink
from acgs2.store.templates import fragments

__all__ = ["run_links"]

_LOG = get_logger("acgs2.links")
_QUERIES = fragments("lives.sql")
_VOTES = fragments("votes.sql")
_PULSE_S = 1.0
_REACH_S = 3.0
#: A new life that cannot reach a peer for so long goes on without what only that peer could give.
_AWAY_S = 10.0


async def run_links(server: RegionServer) -> None:
    """Awaken the region, then beat, greet and relink until cancelled; again when the database was away."""
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                server.config.owner_database, autocommit=True, connect_timeout=3
            ) as conn:
                await _live(server, conn)
        except psycopg.Error as error:
            _LOG.warning("links-failed", error=type(error).__name__, sqlstate=error.sqlstate)
        finally:
            server.life = None
        await asyncio.sleep(_PULSE_S / 2)


async def _live(server: RegionServer, conn: psycopg.AsyncConnection) -> None:
    server.behind = False
    note = Path(server.config.life_path)
    heard = await asyncio.gather(*(_heard(server, peer) for peer in server.config.peer_databases))
    life = await awaken(conn, note, [h for h in heard if h is not None])
    server.clock_read = (time.monotonic(), life.now_us)
    row = await (await conn.execute(_QUERIES["clock_apart"].encode())).fetchone()
    server.clock_apart = bool(row and row[0])
    _LOG.info("awake", incarnation=life.incarnation, seeded=life.seeded)
    server.watcher.incarnation = life.incarnation
    last_met_s = dict.fromkeys(server.config.peer_databases, time.monotonic())
    while True:
        server.life = life
        met = await asyncio.gather(
            *(_meet(server, conn, peer, life) for peer in server.config.peer_databases)
        )
        if server.behind:
            return  # it awakens anew, and is told so by the peer that knows
        now_s = time.monotonic()
        missing = [peer for peer, fine in zip(server.config.peer_databases, met, strict=True) if not fine]
        last_met_s |= {peer: now_s for peer in last_met_s if peer not in missing}
        server.links_missing = tuple(missing)
        waited_for = [peer for peer in missing if now_s - last_met_s[peer] < _AWAY_S]
        await _vote(server, conn)
        await _compare_clocks(server, conn)
        if not life.seeded and not waited_for and (len(missing) < len(met) or not met):
            await conn.execute(_QUERIES["note_seeded"].encode(), {"away": missing})
        await asyncio.sleep(_PULSE_S if life.seeded and not missing else _PULSE_S / 5)
        life = await beat(conn, note)
        server.clock_read = (time.monotonic(), life.now_us)


async def _compare_clocks(server: RegionServer, conn: psycopg.AsyncConnection) -> None:
    """Refuse writes while this region's time is far from that of most."""
    now_s = time.monotonic()
    server.offsets = {p: (o, at_s) for p, (o, at_s) in server.offsets.items() if now_s - at_s < _AWAY_S}
    heard = {peer: offset for peer, (offset, _) in server.offsets.items()}
    apart = is_apart(heard, len(server.topology.regions), server.clock_apart)
    if apart != server.clock_apart:
        _LOG.error("clock-apart" if apart else "clock-together")
    server.clock_apart = apart
    ahead_ms = {peer: round(offset.ahead_us / 1000, 1) for peer, offset in heard.items()}
    names = {"apart": apart, "offsets_ms": Jsonb(ahead_ms)}
    await conn.execute(_QUERIES["note_clock"].encode(), names)


def _offset(server: RegionServer, asked_s: float, answered_s: float, there_us: int) -> Offset:
    """Return how far a peer's time, asked for and answered between two moments, is ahead of ours."""
    read_s, here_us = server.clock_read
    middle_s = (asked_s + answered_s) / 2
    return Offset(
        there_us - here_us - round((middle_s - read_s) * 1e6), round((answered_s - asked_s) / 2 * 1e6)
    )


async def _vote(server: RegionServer, conn: psycopg.AsyncConnection) -> None:
    """Learn the votes again if this region votes and this life has forgotten them."""
    row = await (await conn.execute(_VOTES["forgotten"].encode())).fetchone()
    if row is not None and row[0]:
        others = {name: voter for name, voter in server.voters.items() if name != server.region}
        if await relearn(conn, server.region, others):
            _LOG.info("votes-learned")


async def _heard(server: RegionServer, peer: str) -> Heard | None:
    try:
        async with asyncio.timeout(_REACH_S), server.peers.using(peer) as there:
            cursor = await there.execute(_QUERIES["heard"].encode(), {"region": server.region})
            row = await cursor.fetchone()
    except (psycopg.Error, TimeoutError):
        await server.peers.drop(peer)
        return None
    return Heard(*row) if row else None


async def _meet(server: RegionServer, conn: psycopg.AsyncConnection, peer: str, life: Life) -> bool:
    """Greet a peer and make the link from it anew if it must be; return whether it is as it should be."""
    try:
        have = await incoming(conn, server.region, peer)
        async with asyncio.timeout(_REACH_S), server.peers.using(peer) as there:
            asked_s = time.monotonic()
            met = await greet(there, server.region, life)
        answered_s = time.monotonic()
        server.offsets[peer] = (_offset(server, asked_s, answered_s, met.now_us), answered_s)
        if met.behind:
            _LOG.error("behind", incarnation=life.incarnation, peer=peer)
            server.behind = True
            return False
        if met.replaced:
            _LOG.error("replaced", incarnation=life.incarnation, peer=peer)
            await conn.execute(_QUERIES["stand_down"].encode())
            server.replaced = True
            return False
        reason = why_relink(have, met, seeded=life.seeded)
        if reason is not None:
            _LOG.info("linking", peer=peer, reason=reason)
            conninfo = server.config.peer_databases[peer]
            connecting = psycopg.AsyncConnection.connect(
                server.config.owner_database, autocommit=True, connect_timeout=3
            )  # its own: making a link takes several round trips
            async with await connecting as here, server.peers.using(peer) as there:
                await link(here, there, server.region, peer, conninfo, met.incarnation, reason)
        return True
    except (psycopg.Error, TimeoutError) as error:
        if conn.closed:
            raise
        _LOG.info("peer-away", peer=peer, error=type(error).__name__)
        await server.peers.drop(peer)
        return False
