"""Commits that many requests share: one statement and one flush for a batch, two batches at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from acgs2.bus.queue import FairQueue
from acgs2.errors import OutcomeUnknown, UnavailableError
from acgs2.logs.write import get_logger
from acgs2.store.templates import fragments

__all__ = ["Committer", "Row", "Stored"]

_LOG = get_logger("acgs2.bus")
_RETRIED = ("40P01", "40001")
_TRIES = 5
_RECONNECT_S = 0.2
_QUERIES = fragments("bus.sql")
_FLUSHED = fragments("api.sql")["flushed"].encode()


class Row(msgspec.Struct, kw_only=True):
    """One judged message, as `acgs.accept` takes it; `i` is its place in the batch."""

    i: int = 0
    key: UUID
    zone: str
    tenant_id: UUID
    conversation_id: UUID
    from_agent: UUID
    to_tenant_id: UUID | None
    to_agent: UUID | None
    topic: str | None
    message_type: str
    priority: int
    content: str
    payload: dict[str, Any]
    metadata: dict[str, str]
    constitutional_hash: str
    expires_at: datetime | None
    digest: str
    salt: str
    proposer: str
    decision: str
    impact: int
    basis: msgspec.Raw
    leaf: str
    from_hlc: int
    to_hlc: int | None


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a row; see acgs.accept for the outcomes. `accepted_us` is since the epoch."""

    outcome: str
    decision: str
    impact: int
    basis: dict[str, Any]
    accepted_us: int | None
    origin: str | None
    residency: tuple[str, ...]


_Waiting = tuple[Row, "asyncio.Future[Stored]"]


class Committer:
    """Takes rows, and answers each when it is durable.

    Args:
        dsn: of the region's database, as the role that serves requests.
        peers: returns the regions that must have a write of a zone too.
        confirmed: waits until those have a position of the log on disk; raises OutcomeUnknown.
        batch: how many rows share a commit at most.
        linger_s: how long a batch waits for company while another is under way.
        limit: how many rows wait at most; a quarter of them may be one tenant's.
    """

    def __init__(
        self,
        dsn: str,
        peers: Callable[[str], Sequence[str]],
        confirmed: Callable[[str, str, Sequence[str]], Awaitable[None]],
        *,
        batch: int = 128,
        linger_s: float = 0.001,
        in_flight: int = 2,
        limit: int = 2048,
    ) -> None:
        self._dsn = dsn
        self._peers = peers
        self._confirmed = confirmed
        self._batch = batch
        self._linger_s = linger_s
        self._in_flight = in_flight
        self._busy = 0
        self._queue: FairQueue[_Waiting] = FairQueue(limit, limit // 4)
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._confirming: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many rows wait."""
        return len(self._queue)

    async def submit(self, row: Row) -> Stored:
        """Store a row.

        Raises:
            OverloadedError: too many wait; nothing was stored.
            OutcomeUnknown: it may have been stored; a repeat tells.
            UnavailableError: it was not stored.
            psycopg.Error: the database refuses it.
        """
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._queue.put(str(row.tenant_id), row.priority, (row, future))
        self._arrived.set()
        if len(self._queue) >= self._batch:
            self._full.set()
        return await future

    async def run(self) -> None:
        """Commit until cancelled; what waits then is told that nothing was stored."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._in_flight):
                    group.create_task(self._worker())
        finally:
            self._refuse()
            for task in self._confirming:
                task.cancel()

    async def _worker(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._dsn, autocommit=True, connect_timeout=3
                ) as conn:
                    while True:
                        await self._serve(conn)
            except psycopg.Error as error:
                _LOG.warning("bus-database-away", error=type(error).__name__, sqlstate=error.sqlstate)
                self._refuse()
                await asyncio.sleep(_RECONNECT_S)

    async def _serve(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Commit the next batch."""
        while not len(self._queue):
            self._arrived.clear()
            await self._arrived.wait()
        if self._busy and len(self._queue) < self._batch:
            self._full.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger_s):
                    await self._full.wait()
        batch = [(r, f) for r, f in self._queue.take(self._batch) if not f.done()]
        if not batch:
            return
        self._busy += 1
        try:
            await self._commit(conn, batch)
        finally:
            self._busy -= 1

    async def _commit(self, conn: psycopg.AsyncConnection[Any], batch: list[_Waiting]) -> None:
        try:
            stored = await self._execute(conn, [row for row, _ in batch])
        except psycopg.Error as error:
            if conn.closed or isinstance(error, psycopg.InterfaceError):
                _fail(batch, _unknown())
                raise
            if len(batch) == 1:
                _fail(batch, error)
                return
            for one in batch:  # one of them is refused: the others need not be
                await self._commit(conn, [one])
            return
        except asyncio.CancelledError:
            _fail(batch, _unknown())
            raise
        zones = {row.zone for row, _ in batch}
        paired = {zone: peers for zone in zones if (peers := self._peers(zone))}
        alone = [(f, s) for (row, f), s in zip(batch, stored, strict=True) if row.zone not in paired]
        _answer(alone)
        if not paired:
            return
        try:
            row = await (await conn.execute(_FLUSHED, prepare=True)).fetchone()
        except (psycopg.Error, asyncio.CancelledError):
            _fail(batch, _unknown())
            raise
        position = row[0] if row else "FFFFFFFF/FFFFFFFF"
        for zone, peers in paired.items():
            waiting = [(f, s) for (r, f), s in zip(batch, stored, strict=True) if r.zone == zone]
            task = asyncio.create_task(self._confirm(zone, position, peers, waiting))
            self._confirming.add(task)
            task.add_done_callback(self._confirming.discard)

    async def _execute(self, conn: psycopg.AsyncConnection[Any], rows: list[Row]) -> list[Stored]:
        for number, row in enumerate(rows):
            row.i = number
        text = msgspec.json.encode(rows).decode()
        for attempt in range(_TRIES):
            try:
                cursor = await conn.execute(_QUERIES["accept"].encode(), (text,), prepare=True)
                found: dict[int, Stored] = {}
                for i, outcome, decision, impact, basis, at_us, origin, held_in in await cursor.fetchall():
                    residency = tuple(held_in or ())
                    found[i] = Stored(outcome, decision, impact, basis, at_us, origin, residency)
                return [found[number] for number in range(len(rows))]
            except psycopg.OperationalError as error:
                if error.sqlstate not in _RETRIED or attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    async def _confirm(
        self,
        zone: str,
        position: str,
        peers: Sequence[str],
        waiting: list[tuple[asyncio.Future[Stored], Stored]],
    ) -> None:
        try:
            await self._confirmed(zone, position, peers)
        except UnavailableError as error:
            for future, _ in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        except asyncio.CancelledError:
            for future, _ in waiting:
                if not future.done():
                    future.set_exception(_unknown())
            raise
        _answer(waiting)

    def _refuse(self) -> None:
        for _, future in self._queue.take(len(self._queue)):
            if not future.done():
                future.set_exception(
                    UnavailableError(
                        "database-unavailable",
                        "The database does not answer.",
                        hint="Try again; nothing was stored.",
                    )
                )


def _answer(waiting: list[tuple[asyncio.Future[Stored], Stored]]) -> None:
    for future, stored in waiting:
        if not future.done():
            future.set_result(stored)


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _unknown() -> OutcomeUnknown:
    return OutcomeUnknown(
        "outcome-unknown",
        "The connection broke while the message was stored.",
        hint="Send the same message again; it will not be stored twice.",
    )
