"""Anti-entropy: compares by ranges what two regions may both hold, and repairs what differs.

Links lose nothing, but a dead region's last changes may have reached one survivor and not another, and a row
may be changed by hand. Digests of ranges travel, never content; what differs is sent by the journal, both
ways, and merged. A record whose history is the same and whose content is not was changed past the triggers:
the copy that most holders have is right; where they are even, that of the region that wrote it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg

from acgs2.store.templates import fragments

__all__ = ["Found", "reconcile", "shared"]

_QUERIES = fragments("repair.sql")
_RANGE_ROWS = 2000
_LEAF_ROWS = 64
_FAN_OUT = 16
_BATCH = 32
Range = tuple[UUID | None, UUID | None]


@dataclass
class Found:
    """What a comparison of one entity of a zone with one peer came to."""

    entity: str
    zone: str
    peer: str
    compared: int = 0
    ranges: int = 0
    differing: int = 0
    doubted: int = 0
    skipped: str | None = None
    keys: list[UUID] = field(default_factory=list)


@dataclass(frozen=True)
class _Side:
    """Two connections and what is compared over them; a third holder, where there is one, decides."""

    here: psycopg.AsyncConnection
    there: psycopg.AsyncConnection
    region: str
    found: Found
    others: Mapping[str, psycopg.AsyncConnection]

    def names(self, peer: str, **more: Any) -> dict[str, Any]:
        return {"entity": self.found.entity, "zone": self.found.zone, "peer": peer, **more}


async def shared(here: psycopg.AsyncConnection, peer: str) -> list[tuple[str, str]]:
    """Return (entity, zone) of everything that this region and a peer may both hold, the register first."""
    return await (await here.execute(_QUERIES["shared"].encode(), {"peer": peer})).fetchall()


async def reconcile(
    here: psycopg.AsyncConnection,
    there: psycopg.AsyncConnection,
    region: str,
    found: Found,
    others: Mapping[str, psycopg.AsyncConnection],
) -> AsyncIterator[Found]:
    """Compare one entity of a zone with a peer and have the differences repaired, yielding as it goes.

    Args:
        here: this region's database, as acgs_owner.
        there: the peer's, as acgs_link.
        region: this region.
        found: which entity, zone and peer; counts are added to it.
        others: further holders, to decide which of two copies with one history is right.
    """
    side = _Side(here, there, region, found, others)
    shapes = [await _value(c, "shape", entity=found.entity) for c in (here, there)]
    if shapes[0] != shapes[1]:
        found.skipped = "the regions run different releases"
        yield found
        return
    pending: list[Range] = _cut(None, None, await _boundaries(side, None, None, _RANGE_ROWS))
    while pending:
        batch, pending = pending[:_BATCH], pending[_BATCH:]
        for (after, upto), count in await _differing(side, batch):
            if count > _LEAF_ROWS:
                parts = await _boundaries(side, after, upto, max(count // _FAN_OUT, 1))
                smaller = _cut(after, upto, [p for p in parts if p != upto])
                if len(smaller) > 1:
                    pending = smaller + pending
                    continue
            found.differing += 1
            await _repair(side, after, upto)
        yield found


async def _differing(side: _Side, ranges: list[Range]) -> list[tuple[Range, int]]:
    """Return the ranges whose digests differ, with how many records this region has in each."""
    bounds = {"after": [r[0] for r in ranges], "upto": [r[1] for r in ranges]}
    mine, theirs = await asyncio.gather(
        _rows(side.here, "digests", **side.names(side.found.peer, **bounds)),
        _rows(side.there, "digests", **side.names(side.region, **bounds)),
    )
    side.found.ranges += len(ranges)
    side.found.compared += sum(n for n, _ in mine)
    return [(r, m[0]) for r, m, t in zip(ranges, mine, theirs, strict=True) if m != t]


async def _repair(side: _Side, after: UUID | None, upto: UUID | None) -> None:
    """Have both sides send what they have in a range, after giving up copies that are wrong."""
    bounds = {"after": after, "upto": upto}
    mine, theirs = (
        {key: (vv, origin, digest) for key, vv, origin, digest in rows}
        for rows in await asyncio.gather(
            _rows(side.here, "details", **side.names(side.found.peer, **bounds)),
            _rows(side.there, "details", **side.names(side.region, **bounds)),
        )
    )
    different = [k for k in {*mine, *theirs} if mine.get(k, (0, 0, 0))[2] != theirs.get(k, (0, 0, 0))[2]]
    side.found.keys += different
    for key in different:
        if key in mine and key in theirs and mine[key][0] == theirs[key][0]:
            if await _is_wrong_here(side, key, mine[key], theirs[key]):
                side.found.doubted += 1
                await side.here.execute(_QUERIES["doubt"].encode(), side.names(side.found.peer, key=key))
                mine.pop(key)
            else:
                mine.pop(key)  # the peer finds out by itself
    if any(k in theirs for k in different):
        await side.there.execute(_QUERIES["ask"].encode(), side.names("", region=side.region, **bounds))
    ours = [k for k in different if k in mine]
    if ours:
        await side.here.execute(_QUERIES["give"].encode(), side.names(side.found.peer, keys=ours))


async def _is_wrong_here(side: _Side, key: UUID, mine: tuple[Any, ...], theirs: tuple[Any, ...]) -> bool:
    copies = Counter([mine[2], theirs[2]])
    for conn in side.others.values():
        rows = await _rows(conn, "details", **side.names(side.region, after=UUID(int=key.int - 1), upto=key))
        copies.update(digest for _, _, _, digest in rows)
    if copies[mine[2]] != copies[theirs[2]]:
        return copies[mine[2]] < copies[theirs[2]]
    return str(theirs[1]).partition("#")[0] != side.region


async def _boundaries(side: _Side, after: UUID | None, upto: UUID | None, every: int) -> list[UUID]:
    return await _value(side.here, "boundaries", **side.names("", after=after, upto=upto, every=every))


def _cut(after: UUID | None, upto: UUID | None, at: list[UUID]) -> list[Range]:
    edges = [after, *at, upto]
    return list(pairwise(edges))


async def _rows(conn: psycopg.AsyncConnection, query: str, **names: Any) -> list[Any]:
    return await (await conn.execute(_QUERIES[query].encode(), names)).fetchall()


async def _value(conn: psycopg.AsyncConnection, query: str, **names: Any) -> Any:
    return (await _rows(conn, query, **names))[0][0]
