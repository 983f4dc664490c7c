"""A region's log as it is read: checkpoints with their cosignatures, tiles, leaves and proofs."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from acgs2.audit.checkpoint import Checkpoint, is_signed_by
from acgs2.audit.cosignature import cosigned_at_s, line
from acgs2.audit.keys import Trusted
from acgs2.audit.note import Note
from acgs2.audit.remote import answered
from acgs2.audit.tiles import WIDTH, Tile
from acgs2.audit.tree import inclusion_proof
from acgs2.store.templates import fragments

__all__ = ["LogReader", "Place", "Proven"]

_QUERIES = fragments("audit.sql")


@dataclass(frozen=True, slots=True)
class Place:
    """A leaf and where it is; log and index are None until the sequencer has come to it."""

    log: int | None
    index: int | None
    entry: bytes


@dataclass(frozen=True, slots=True)
class Proven:
    """A leaf with the proof that it is in a checkpoint."""

    place: Place
    proof: list[bytes]
    checkpoint: str
    witnesses: tuple[str, ...]


class LogReader:
    """Reads the logs of one region.

    Args:
        conn: as acgs_app.
        trusted: whose cosignatures count.
        needed: how many make a checkpoint witnessed.
    """

    def __init__(self, conn: psycopg.AsyncConnection[Any], trusted: Trusted, needed: int) -> None:
        self._conn = conn
        self._trusted = trusted
        self._needed = needed

    async def checkpoint(self, log: int, size: int | None = None) -> Note | None:
        """Return a checkpoint with its cosignatures.

        Args:
            log: which log.
            size: at how many leaves; else the newest that is witnessed, or the newest of all.
        """
        if size is None:
            row = await self._row("last_cosigned", log=log, needed=self._needed) if self._needed else None
            row = row or await self._row("newest_size", log=log)
            size = row[0] if row else 0
        row = await self._row("checkpoint", log=log, size=size)
        if row is None:
            return None
        checkpoint, signature = Checkpoint(row[0], row[1], bytes(row[2])), bytes(row[3])
        notes = [checkpoint.signed(key, signature) for key in self._trusted.of_log(checkpoint.origin)]
        note = next(
            (n for n in notes for k in self._trusted.of_log(checkpoint.origin) if is_signed_by(n, k)),
            Note(checkpoint.text, ()),
        )
        witnesses = self._trusted.witnesses(checkpoint.origin)
        for name, time_s, body in await self._rows("cosignatures_of", log=log, size=size):
            lines = [line(key, time_s, bytes(body)) for key in witnesses if key.name == name]
            note = note.with_signatures(*lines)
        return note

    def witnesses(self, note: Note) -> tuple[str, ...]:
        """Return who has cosigned a note, each once."""
        origin = Checkpoint.parse(note.text).origin
        keys = self._trusted.witnesses(origin)
        return tuple(sorted({k.name for k in keys if cosigned_at_s(note, k) is not None}))

    async def history(self, log: int, after: int, limit: int) -> list[Note]:
        """Return witnessed checkpoints in order, from the first with more leaves than `after`."""
        sizes = await self._rows("cosigned_sizes", log=log, after=after, needed=self._needed, limit=limit)
        found = [await self.checkpoint(log, size) for size, _ in sizes]
        return [note for note in found if note is not None]

    async def tile(self, log: int, tile: Tile) -> bytes | None:
        """Return the hashes of a tile; None where no checkpoint has come so far."""
        if not await self._has(log, (tile.number * WIDTH + tile.width) << (8 * tile.level)):
            return None
        names = {"log": log, "level": tile.level, "number": tile.number, "width": tile.width}
        row = await self._row("hashes", **names)
        return bytes(row[0]) if row and row[0] is not None else None

    async def entries(self, log: int, number: int, width: int) -> bytes | None:
        """Return a bundle of leaves, each after its length in two bytes; None as for tiles."""
        first = number * WIDTH
        if not await self._has(log, first + width):
            return None
        rows = await self._rows("entries", log=log, **{"from": first, "to": first + width})
        return b"".join(struct.pack(">H", len(entry)) + entry for (entry,) in rows)

    async def places(self, subject: UUID, tenant: UUID | None) -> list[Place]:
        """Return the leaves about a subject, of one tenant or of all, at most a hundred."""
        rows = await self._rows("places", subject=subject, tenant=tenant)
        return [Place(log, index, bytes(entry)) for log, index, entry in rows]

    async def prove(self, place: Place) -> Proven | None:
        """Return the proof of a leaf in the newest witnessed checkpoint that has it, else in the newest."""
        if place.log is None or place.index is None:
            return None
        note = await self.checkpoint(place.log)
        if note is not None and Checkpoint.parse(note.text).size <= place.index:
            row = await self._row("newest_size", log=place.log)
            note = await self.checkpoint(place.log, row[0] if row else 0)
        if note is None:
            return None
        size, index = Checkpoint.parse(note.text).size, place.index
        proof = await answered(self._conn, place.log, size, lambda nodes: inclusion_proof(index, size, nodes))
        return Proven(place, proof, str(note), self.witnesses(note)) if proof is not None else None

    async def cosigned_here(self) -> list[dict[str, Any]]:
        """Return what this region cosigned last of every other log."""
        rows = await self._rows("cosigned_here")
        return [{"origin": o, "region": r, "note": note, "time_s": t} for o, r, note, t in rows]

    async def logs(self) -> Sequence[tuple[int, str]]:
        """Return every log of this region, oldest first, by number and origin."""
        return [(number, origin) for number, origin in await self._rows("logs")]

    async def _has(self, log: int, size: int) -> bool:
        row = await self._row("newest_size", log=log)
        return row is not None and size <= row[0]

    async def _row(self, query: str, **names: Any) -> tuple[Any, ...] | None:
        return await (await self._conn.execute(_QUERIES[query].encode(), names)).fetchone()

    async def _rows(self, query: str, **names: Any) -> list[tuple[Any, ...]]:
        return await (await self._conn.execute(_QUERIES[query].encode(), names)).fetchall()
