"""The sequencer: gives leaves their order, keeps full tiles, signs checkpoints.

A leaf's place is settled once no transaction that runs could still insert one before it: those below the
snapshot's horizon, in the order of transaction and leaf. So a position in that order is all that has to be
kept, and nothing is written to a leaf twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg
import rfc8785

from acgs2.audit.checkpoint import Checkpoint, origin_of
from acgs2.audit.note import Signer
from acgs2.audit.tiles import Growth
from acgs2.audit.tree import HASH_BYTES
from acgs2.errors import RuntimeFault
from acgs2.store.templates import fragments

__all__ = ["COSIGNED", "OFFERED", "Before", "Cut", "Looked", "Sequencer"]

_QUERIES = fragments("audit.sql")
#: Told by the database: to witnesses when there is a checkpoint to cosign, to the log when one has.
OFFERED = "acgs_audit_offered"
COSIGNED = "acgs_audit_cosigned"
#: A cut has at most so many leaves: what is looked up within one is counted.
_CUT_LEAVES = 8192


@dataclass(frozen=True, slots=True)
class Before:
    """The last checkpoint of the log before, as its witnesses or this database know it."""

    origin: str
    size: int
    root: bytes
    known_by: str


@dataclass(frozen=True, slots=True)
class Cut:
    """One checkpoint that was just signed; `full` when as many leaves as a cut may have were waiting."""

    checkpoint: Checkpoint
    added: int
    oldest_us: int
    full: bool


@dataclass(frozen=True, slots=True)
class Looked:
    """The log at a glance: its newest checkpoint, whether leaves wait, what was cosigned and is offered."""

    log: int
    origin: str
    size: int
    waiting: bool
    cosignatures: int
    offered: int | None
    offered_for_us: int


@dataclass(slots=True)
class _Log:
    """The log that is written now."""

    number: int
    origin: str
    growth: Growth = field(default_factory=Growth)


@dataclass(slots=True)
class Sequencer:
    """The sequencer of one region; any number may run, one at a time has its turn."""

    signer: Signer
    _log: _Log | None = None

    async def begin(self, conn: psycopg.AsyncConnection, incarnation: str, before: Before | None) -> bool:
        """Begin the log of a life unless it has begun; returns whether it began now.

        Args:
            conn: as acgs_owner, in autocommit mode.
            incarnation: of this life.
            before: what is known of the log of the life before; else what this database has of it.
        """
        origin = origin_of(self.signer.key.name, incarnation)
        async with conn.transaction():
            if not await _value(conn, "turn"):
                return False
            if await _value(conn, "log_of", origin=origin) is not None:
                return False
            last = await _row(conn, "log")
            number, xid, position = 1, "0", 0
            if last is not None:
                number, xid, position = last[0] + 1, last[3], last[4]
                cut = await _row(conn, "last_cut", log=last[0])
                if cut is not None:
                    xid, position = cut[1], cut[2]
                    if before is None:
                        before = Before(last[1], cut[0], bytes(cut[3]), "database")
            names = {"number": number, "origin": origin, "incarnation": incarnation}
            names |= {"key_name": self.signer.key.name, "xid": xid, "id": position}
            await conn.execute(_QUERIES["begin"].encode(), names)
            body = {"before": _shown(before), "incarnation": incarnation, "origin": origin}
            first = bytes(await _value(conn, "begin_leaf", number=number, body=rfc8785.dumps(body).decode()))
            growth = Growth()
            growth.add([first])
            await self._sign(conn, number, Checkpoint(origin, 1, growth.root()), xid, position)
        return True

    async def look(self, conn: psycopg.AsyncConnection) -> Looked | None:
        """Return the log at a glance, by one query; None where it has not begun."""
        row = await _row(conn, "look")
        return Looked(*row) if row is not None else None

    async def offer(self, conn: psycopg.AsyncConnection, log: int, size: int) -> None:
        """Show witnesses another checkpoint."""
        async with conn.transaction():
            await conn.execute(_QUERIES["offer"].encode(), {"log": log, "size": size})
            await conn.execute(f"NOTIFY {OFFERED}".encode())

    async def cut(self, conn: psycopg.AsyncConnection) -> Cut | None:
        """Give the leaves that wait their places and sign; None where none wait, or another has its turn.

        Raises:
            RuntimeFault: what is stored is not what was signed (`audit-damaged`): nothing is signed then.
        """
        async with conn.transaction():
            end = await self._end(conn)
            if end is None:
                return None
            log, xid, position = end
            names = {"xid": xid, "id": position, "limit": _CUT_LEAVES}
            pending = await _row(conn, "pending", **names)
            if pending is None or pending[0] is None:
                return None
            hashes, upto, upto_id, oldest_us = bytes(pending[0]), pending[1], pending[2], pending[3]
            leaves = [hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)]
            for tile, content, above in log.growth.add(leaves):
                names = {"log": log.number, "level": tile.level, "number": tile.number}
                names |= {"root": above, "hashes": content}
                await conn.execute(_QUERIES["keep_tile"].encode(), names)
            checkpoint = Checkpoint(log.origin, log.growth.size, log.growth.root())
            await self._sign(conn, log.number, checkpoint, upto, upto_id)
        return Cut(checkpoint, len(leaves), oldest_us, len(leaves) == _CUT_LEAVES)

    async def check(self, conn: psycopg.AsyncConnection) -> bool:
        """Read the end of the log anew, and hold it against what was signed; False if not now.

        The end are the leaves since the last full tile, and the roots of the tiles before. Another may have
        its turn meanwhile: then nothing is read.

        Raises:
            RuntimeFault: what is stored is not what was signed (`audit-damaged`).
        """
        self._log = None
        async with conn.transaction():
            return await self._end(conn) is not None

    async def _end(self, conn: psycopg.AsyncConnection) -> tuple[_Log, str, int] | None:
        """Take the turn, and return the log at its last checkpoint and the place of its last leaf."""
        if not await _value(conn, "turn"):
            return None
        row = await _row(conn, "log")
        last = await _row(conn, "last_cut", log=row[0]) if row is not None else None
        if row is None or last is None:
            return None
        log = await self._resumed(conn, row[0], row[1], last[0], bytes(last[3]))
        return log, last[1], last[2]

    async def _sign(
        self, conn: psycopg.AsyncConnection, log: int, checkpoint: Checkpoint, xid: str, position: int
    ) -> None:
        signature = checkpoint.sign(self.signer).signatures[0].body
        names = {"log": log, "size": checkpoint.size, "xid": xid, "id": position}
        await conn.execute(
            _QUERIES["cut"].encode(), {**names, "root": checkpoint.root, "signature": signature}
        )

    async def _resumed(
        self, conn: psycopg.AsyncConnection, number: int, origin: str, size: int, root: bytes
    ) -> _Log:
        """Return the log at its last checkpoint: as it is in memory, if nobody else went on meanwhile."""
        log = self._log
        if log is not None and log.number == number and log.growth.size == size and log.growth.root() == root:
            return log
        self._log = None
        edge: dict[int, bytes] = {}
        for tile in Growth.edge_tiles(size):
            names = {"log": number, "level": tile.level, "number": tile.number, "width": tile.width}
            edge[tile.level] = bytes(await _value(conn, "hashes", **names) or b"")
        try:
            growth = Growth.resume(size, edge)
        except ValueError as error:
            raise _damaged(origin, size, str(error)) from error
        if growth.root() != root:
            raise _damaged(origin, size, "the leaves do not have the root that was signed")
        self._log = _Log(number, origin, growth)
        return self._log


def _shown(before: Before | None) -> dict[str, str | int] | None:
    if before is None:
        return None
    return {
        "known_by": before.known_by,
        "origin": before.origin,
        "root": before.root.hex(),
        "size": before.size,
    }


def _damaged(origin: str, size: int, why: str) -> RuntimeFault:
    return RuntimeFault(
        "audit-damaged",
        f"The log {origin} is not what was signed at {size} leaves: {why}.",
        hint="Nothing is signed any more; export the log, verify it, and restore the region.",
        origin=origin,
        size=size,
    )


async def _row(conn: psycopg.AsyncConnection, query: str, **names: object) -> tuple[Any, ...] | None:
    return await (await conn.execute(_QUERIES[query].encode(), names)).fetchone()


async def _value(conn: psycopg.AsyncConnection, query: str, **names: object) -> Any:
    row = await _row(conn, query, **names)
    return row[0] if row else None
