"""Tells when a peer has a commit on its disk, without ever holding a lock or a transaction for it.

`synchronous_standby_names` is not used: two regions that update one record and wait for each other inside
their commits deadlock across the link, and a cancelled wait there reports success. Here a request commits
locally; its reply is released when the peer's apply worker has reported the position as flushed.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg

from acgs2.errors import OutcomeUnknown
from acgs2.store.region import link_name
from acgs2.store.templates import fragments

__all__ = ["FlushWatcher", "lsn_number"]

#: How often positions are read while nobody waits; only for `connected`.
_IDLE_S = 0.2
_FASTEST_S = 0.0005
_SLOWEST_S = 0.005


def lsn_number(lsn: str) -> int:
    """Return a log position such as `0/16B3748` as a number that orders like the log."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) | int(low, 16)


@dataclass(slots=True)
class _Peer:
    flushed: int = 0
    reply: object = None
    moved_at_s: float = float("-inf")
    waiting: list[tuple[int, int, asyncio.Future[None], str]] = field(default_factory=list)


class FlushWatcher:
    """One connection that reads `pg_stat_replication` and releases those who wait for a position.

    Args:
        dsn: of this region's database, as a role with pg_monitor.
        region: this region's name.
        incarnation: its life; a reader that was made for another one confirms nothing. May be set later.
        stale_s: a peer that has not been heard for so long is not connected.
    """

    def __init__(self, dsn: str, region: str, *, incarnation: str = "", stale_s: float = 3.0) -> None:
        self._dsn = dsn
        self._region = region
        self._stale_s = stale_s
        self._peers: dict[str, _Peer] = {}
        self._wake = asyncio.Event()
        self.incarnation = incarnation
        self._alone: set[str] = set()
        self._order = itertools.count()
        self._typical_s = 0.002
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin watching; returns once the first positions are known or the database is away."""
        first = asyncio.Event()
        self._task = asyncio.create_task(self._run(first), name="flush-watcher")
        await first.wait()

    async def stop(self) -> None:
        """Stop watching; those who still wait get `outcome-unknown`."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for name, peer in self._peers.items():
            for _, _, waiter, _ in peer.waiting:
                if not waiter.done():
                    waiter.set_exception(_unknown(name, "the region stops"))

    def connected(self, peer: str) -> bool:
        """Return whether the peer is taking this region's changes now."""
        known = self._peers.get(peer)
        return known is not None and time.monotonic() - known.moved_at_s < self._stale_s

    def go_alone(self, zone: str) -> None:
        """Ask no peer for writes of a zone any more, nor for those that wait now; a majority has agreed."""
        self._alone.add(zone)
        for peer in self._peers.values():
            for _, _, waiter, about in peer.waiting:
                if about == zone and not waiter.done():
                    waiter.set_result(None)

    def come_together(self, zone: str) -> None:
        """Ask peers for writes of a zone again."""
        self._alone.discard(zone)

    async def wait(self, lsn: str, peers: Sequence[str], timeout_s: float, *, zone: str = "") -> None:
        """Wait until every peer has flushed the position, or until the zone needs none of them.

        Args:
            lsn: `pg_current_wal_flush_lsn()` read after the commit returned.
            peers: regions that must have it; none: returns at once.
            timeout_s: how long to wait.
            zone: of the write; none for what peers must have whatever is agreed about a zone.

        Raises:
            OutcomeUnknown: a peer did not report it in time; the change is committed here.
        """
        if zone in self._alone:
            return
        position = lsn_number(lsn)
        began_s = time.monotonic()
        waiters: list[asyncio.Future[None]] = []
        for name in peers:
            peer = self._peers.setdefault(name, _Peer())
            if peer.flushed >= position:
                continue
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(peer.waiting, (position, next(self._order), waiter, zone))
            waiters.append(waiter)
        if not waiters:
            return
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                for waiter in waiters:
                    await waiter
        except TimeoutError:
            raise _unknown(", ".join(peers), f"not confirmed within {timeout_s:g} s") from None
        finally:
            for waiter in waiters:
                waiter.cancel()
        self._typical_s += (time.monotonic() - began_s - self._typical_s) / 16

    async def _run(self, first: asyncio.Event) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                    while True:
                        await self._read(conn)
                        first.set()
                        await self._pause()
            except psycopg.Error:
                # The database is away: nobody is released, waiters time out, and we try again. What it
                # had reported is forgotten: it may come back from a backup, with lower positions.
                for peer in self._peers.values():
                    peer.flushed, peer.moved_at_s = 0, float("-inf")
                first.set()
                await asyncio.sleep(_IDLE_S)

    async def _read(self, conn: psycopg.AsyncConnection) -> None:
        query = fragments("durability.sql")["positions"]
        cursor = await conn.execute(query.encode(), prepare=True)
        now_s = time.monotonic()
        rows = {name: (flushed, reply) for name, flushed, reply in await cursor.fetchall()}
        for name, (flushed, reply) in rows.items():
            target = self._adopt(name)
            if target is None:
                continue
            peer = self._peers[target]
            if reply is not None and reply != peer.reply:
                peer.reply, peer.moved_at_s = reply, now_s
            peer.flushed = lsn_number(flushed) if flushed else 0
            while peer.waiting and (peer.waiting[0][2].done() or peer.waiting[0][0] <= peer.flushed):
                waiter = heapq.heappop(peer.waiting)[2]
                if not waiter.done():
                    waiter.set_result(None)
        for name, peer in self._peers.items():
            if f"{link_name(self._region, name)}_{self.incarnation}" not in rows:
                peer.flushed, peer.moved_at_s = 0, float("-inf")

    def _adopt(self, name: str) -> str | None:
        """Return the peer that reads under a name, None if it reads another life or is no peer."""
        prefix, suffix = link_name(self._region, ""), f"_{self.incarnation}"
        if not name.startswith(prefix) or not name.endswith(suffix):
            return None
        target = name.removeprefix(prefix).removesuffix(suffix).replace("_", "-")
        self._peers.setdefault(target, _Peer())
        return target

    async def _pause(self) -> None:
        if any(not w.done() for p in self._peers.values() for _, _, w, _ in p.waiting):
            await asyncio.sleep(min(max(self._typical_s / 20, _FASTEST_S), _SLOWEST_S))
            return
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_S):
                await self._wake.wait()


def _unknown(peers: str, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        "outcome-unknown",
        f"The change is stored here, but {peers} has not confirmed it: {why}.",
        hint="Repeat the request with the same Idempotency-Key; it will not be done twice.",
        peers=peers,
    )
