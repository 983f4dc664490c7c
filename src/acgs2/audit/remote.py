"""Another region's log as its witness reads it: over the connection between their databases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg

from acgs2.audit.checkpoint import Checkpoint
from acgs2.audit.leaf import Leaf
from acgs2.audit.note import Key, Note
from acgs2.audit.tiles import Tile, node_in, tile_of
from acgs2.audit.tree import (
    Node,
    Nodes,
    consistency_proof,
    inclusion_proof,
    is_included,
    leaf_hash,
    needed,
    tree_root,
)
from acgs2.audit.witness import Known, Proof
from acgs2.store.templates import fragments

__all__ = ["Offer", "answered", "known_there", "newest", "proof_between", "roots", "what_came_before"]

_QUERIES = fragments("audit.sql")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Offer:
    """A log's newest checkpoint, by its number there, not checked yet."""

    log: int
    checkpoint: Checkpoint
    signature: bytes

    def signed_by(self, keys: Sequence[Key]) -> Note | None:
        """Return the note, if one of the keys signed it."""
        text = self.checkpoint.text.encode()
        for key in keys:
            if key.accepts(self.signature, text):
                return self.checkpoint.signed(key, self.signature)
        return None


async def newest(conn: psycopg.AsyncConnection) -> Offer | None:
    """Return a region's newest checkpoint; None where its log has not begun."""
    row = await (await conn.execute(_QUERIES["newest"].encode())).fetchone()
    return Offer(row[0], Checkpoint(row[1], row[2], bytes(row[3])), bytes(row[4])) if row else None


async def answered(conn: psycopg.AsyncConnection, log: int, size: int, ask: Callable[[Nodes], T]) -> T | None:
    """Return the answer to a question about a log's tree; None where the log does not have the hashes.

    Args:
        conn: to the region whose log it is.
        log: its number there.
        size: of the tree.
        ask: the question, of a function that gives nodes.
    """
    tiles = sorted({tile_of(node, size) for node in needed(ask)})
    names = {"log": log, "levels": [t.level for t in tiles], "numbers": [t.number for t in tiles]}
    names["widths"] = [t.width for t in tiles]
    rows = await (await conn.execute(_QUERIES["tiles"].encode(), names)).fetchall() if tiles else []
    hashes = {(level, number): bytes(found) for level, number, found in rows if found is not None}

    def node(at: Node) -> bytes:
        tile: Tile = tile_of(at, size)
        return node_in(hashes.get((tile.level, tile.number), b""), tile, at)

    try:
        return ask(node)
    except ValueError:
        return None


async def proof_between(conn: psycopg.AsyncConnection, log: int, old: int, new: int) -> Proof | None:
    """Return what a log of `new` leaves has as its root at `old`, and the proof from there."""

    def ask(nodes: Nodes) -> Proof:
        return Proof(tree_root(old, nodes), tuple(consistency_proof(old, new, nodes)))

    return await answered(conn, log, new, ask)


async def roots(conn: psycopg.AsyncConnection, log: int, sizes: Sequence[int]) -> list[bytes] | None:
    """Return the roots that a log has now at sizes."""
    return await answered(conn, log, max(sizes), lambda nodes: [tree_root(size, nodes) for size in sizes])


async def what_came_before(conn: psycopg.AsyncConnection, offer: Offer) -> dict[str, Any] | None:
    """Return what a log's first leaf says of the log before it; None where that is not proven."""
    row = await (await conn.execute(_QUERIES["first"].encode(), {"log": offer.log})).fetchone()
    size = offer.checkpoint.size
    proof = await answered(conn, offer.log, size, lambda nodes: inclusion_proof(0, size, nodes))
    if row is None or row[0] is None or proof is None:
        return None
    entry = row[0].encode()
    if not is_included(leaf_hash(entry), 0, size, proof, offer.checkpoint.root):
        return None
    before = Leaf.parse(entry).body.get("before")
    return before if isinstance(before, dict) else None


async def known_there(conn: psycopg.AsyncConnection) -> list[tuple[str, Known]]:
    """Return what a region knows as a witness, each with the region whose log it is."""
    rows = await (await conn.execute(_QUERIES["known"].encode())).fetchall()
    return [
        (region, Known(Checkpoint(origin, size, bytes(root)), note, time_s))
        for origin, region, size, root, note, time_s in rows
    ]
