"""What health and metrics know of a region's database: asked seldom, by one at a time, and kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString, TypeVar, cast

import psycopg
from psycopg import sql
from psycopg_pool import AsyncConnectionPool

from acgs2.api.recent import Recent
from acgs2.model import entities
from acgs2.model.entity import Residency
from acgs2.store.templates import fragments

__all__ = ["FRESH_S", "Counts", "Facts", "Held", "Vital"]

_QUERIES = fragments("metrics.sql")
_POOL_S = 1.0
_PATIENCE_S = 1.0
#: A source that has not been heard for so long is not judged by its lag: it is away, or silent.
FRESH_S = 3.0
#: Tables up to this size are counted, in a few milliseconds; larger ones are estimated.
EXACT_BYTES = 4 * 1024 * 1024
#: What is counted beside records: table to the query that counts, and the column whose values are estimated.
_COUNTED = {
    "conflict": ("conflicts", "entity"),
    "delivery": ("deliveries", "state"),
    "dead_letter": ("dead_letters", "reason"),
}

Answer = TypeVar("Answer")
Connection = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Vital:
    """Whether the database is a region's that takes writes, and how late what just arrived was, by source."""

    origin: str | None
    read_only: bool
    lag_us: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """Open incidents by kind, quarantined rows by reason, lag and silence by source, log kept by peer."""

    incidents: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)
    lag_us: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    silence_s: Mapping[str, float] = field(default_factory=dict)
    retained_bytes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Held:
    """About how much is held: records by entity and zone, conflicts, deliveries, and dead letters."""

    records: Mapping[tuple[str, str], float] = field(default_factory=dict)
    conflicts: Mapping[str, float] = field(default_factory=dict)
    deliveries: Mapping[str, float] = field(default_factory=dict)
    dead_letters: Mapping[str, float] = field(default_factory=dict)


class Facts:
    """The database's answers; None where it does not give one in time.

    Args:
        pool: of the region's database, as the application.
        exact_bytes: up to which size tables are counted.
    """

    def __init__(self, pool: AsyncConnectionPool[Any], exact_bytes: int = EXACT_BYTES) -> None:
        self._pool = pool
        self._exact_bytes = exact_bytes
        self._vital = Recent(self._asked(_vital), 0.1)
        self._counts = Recent(self._asked(_counts), 1.0)
        self._held = Recent(self._asked(self._count_records), 15.0)
        self._last_counts = Counts()
        self._last_held = Held()

    async def vital(self) -> Vital | str:
        """Return what readiness rests on, at most 100 ms old; or why the database does not say."""
        return await _told(self._vital)

    async def counts(self) -> tuple[Counts, bool]:
        """Return what is counted, as last known, and whether the database answered now."""
        told = await _told(self._counts)
        if isinstance(told, Counts):
            self._last_counts = told
        return self._last_counts, isinstance(told, Counts)

    async def held(self) -> Held:
        """Return about how much is held, as last known."""
        told = await _told(self._held)
        if isinstance(told, Held):
            self._last_held = told
        return self._last_held

    async def close(self) -> None:
        """Ask nothing any more."""
        for each in (self._vital, self._counts, self._held):
            await each.close()

    def _asked(self, ask: Callable[[Connection], Awaitable[Answer]]) -> Callable[[], Awaitable[Answer | str]]:
        async def asked() -> Answer | str:
            try:
                async with self._pool.connection(timeout=_POOL_S) as conn:
                    return await ask(conn)
            except psycopg.Error as error:  # a pool that has none to give raises one as well
                return type(error).__name__

        return asked

    async def _count_records(self, conn: Connection) -> Held:
        kinds = [e.name for e in entities().values() if e.residency is Residency.ZONE]
        sizes: dict[str, int] = dict(await _rows(conn, "sizes", tables=[*kinds, *_COUNTED]))
        records: dict[tuple[str, str], float] = {}
        for kind in kinds:
            if sizes[kind] <= self._exact_bytes:
                text = cast(LiteralString, fragments("api.sql")["holdings"])
                query = sql.SQL(text).format(table=sql.Identifier("acgs", kind))
                counted = await (await conn.execute(query)).fetchall()
            else:
                counted = await _rows(conn, "estimate", table=kind, column="zone")
            records |= {(kind, zone): number for zone, number in counted}
        others: list[dict[str, float]] = []
        for table, (query, column) in _COUNTED.items():
            if sizes[table] <= self._exact_bytes:
                rows = await _rows(conn, query)
            else:
                rows = await _rows(conn, "estimate", table=table, column=column)
            others.append(dict(rows))
        return Held(records, *others)


async def _told(recent: Recent[Answer | str]) -> Answer | str:
    try:
        return await recent.get(_PATIENCE_S)
    except TimeoutError:
        return "no answer in time"


async def _rows(conn: Connection, query: str, **names: Any) -> list[tuple[Any, ...]]:
    return await (await conn.execute(_QUERIES[query].encode(), names)).fetchall()


async def _vital(conn: Connection) -> Vital:
    ((origin, read_only, lag_us),) = await _rows(conn, "health", fresh_s=FRESH_S)
    return Vital(origin, read_only, lag_us or {})


async def _counts(conn: Connection) -> Counts:
    lag = await _rows(conn, "lag")
    return Counts(
        dict(await _rows(conn, "incidents")),
        dict(await _rows(conn, "quarantine")),
        {source: (percentiles[0], percentiles[1]) for source, percentiles, _ in lag},
        {source: silence_s for source, _, silence_s in lag},
        dict(await _rows(conn, "slots")),
    )
