"""The life of a region's data directory: whether it is the one that was left, or a restored or copied one.

A pulse is counted in the database once a second, noted in a file outside it, and told to every peer. A
database whose own count is behind what the file or a peer knows has lost its latest writes: it would use
their numbers again and acknowledge what others never got. It takes a new incarnation and is seeded first.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from acgs2.store.templates import fragments

__all__ = ["Heard", "Life", "awaken", "beat"]

_QUERIES = fragments("lives.sql")


@dataclass(frozen=True, slots=True)
class Heard:
    """What a peer has heard of this region: when its newest life began (µs) and its highest pulse."""

    born_us: int
    pulse: int


@dataclass(frozen=True, slots=True)
class Life:
    """One life: who, since when (µs since the epoch), how many pulses, whether it has its data, its time."""

    incarnation: str
    born_us: int
    pulse: int
    seeded: bool
    now_us: int


async def awaken(conn: psycopg.AsyncConnection, note: Path, heard: Iterable[Heard]) -> Life:
    """Begin a start of the region, before it writes anything; a database that is behind begins a new life.

    Args:
        conn: as acgs_owner.
        note: the file outside the database; it may be missing.
        heard: what peers that could be reached know of this region.

    Raises:
        psycopg.Error: the database cannot be asked.
    """
    others = list(heard)
    noted = _read(note)
    names = {
        "known": max([noted.pulse, *(h.pulse for h in others)]),
        "elder": max([noted.born_us, *(h.born_us for h in others)]),
        "fresh": secrets.token_hex(4),
    }
    await conn.execute(_QUERIES["awaken"].encode(), names)
    return await beat(conn, note)


async def beat(conn: psycopg.AsyncConnection, note: Path) -> Life:
    """Count one pulse and note it outside."""
    row = await (await conn.execute(_QUERIES["pulse"].encode())).fetchone()
    assert row is not None, "a region's database has its identity"
    life = Life(*row)
    _write(note, life)
    return life


def _read(note: Path) -> Heard:
    try:
        body = json.loads(note.read_text(encoding="ascii"))
        return Heard(int(body["born_us"]), int(body["pulse"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Heard(0, 0)  # lost: then peers know


def _write(note: Path, life: Life) -> None:
    making = note.with_suffix(".new")
    body = {"incarnation": life.incarnation, "born_us": life.born_us, "pulse": life.pulse}
    making.write_text(json.dumps(body), encoding="ascii")
    os.replace(making, note)
