"""The taking end of a link: subscription here, slot there, both made anew when either side has changed.

A slot and a subscription that belong to different lives lose rows without an error: the one has gone on
where the other has not. So a link is made for one life of the peer, and all that both may hold is asked for.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from acgs2.store.durability import lsn_number
from acgs2.store.life import Life
from acgs2.store.region import link_name
from acgs2.store.templates import fragments

__all__ = ["Greeting", "Incoming", "greet", "incoming", "link", "unsubscribe_now", "why_relink"]

_QUERIES = fragments("lives.sql")
_SUBSCRIPTION = fragments("region.sql")
_SLOT_TRIES = 50


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a peer answers: its life, whether ours is over or behind what it heard, position, slot, time."""

    incarnation: str
    replaced: bool
    behind: bool
    position: str
    slot: str | None
    now_us: int


async def greet(there: psycopg.AsyncConnection, region: str, life: Life) -> Greeting:
    """Tell a peer who lives here and learn who lives there."""
    names = {"region": region, "incarnation": life.incarnation, "born_us": life.born_us, "pulse": life.pulse}
    row = await (await there.execute(_QUERIES["greet"].encode(), names)).fetchone()
    assert row is not None, "greet returns one row"
    return Greeting(*row)


@dataclass(frozen=True, slots=True)
class Incoming:
    """The link from a peer as it is here: for which life of the peer it was made, and how far it has come."""

    made_for: str
    progress: str | None


async def incoming(here: psycopg.AsyncConnection, region: str, peer: str) -> Incoming | None:
    """Return the link from a peer as it is here, None if there never was one; read it before greeting."""
    names = {"peer": peer, "name": link_name(peer, region)}
    row = await (await here.execute(_QUERIES["incoming"].encode(), names)).fetchone()
    return Incoming(*row) if row else None


def why_relink(have: Incoming | None, met: Greeting, *, seeded: bool) -> str | None:
    """Return why the link from a peer must be made anew, None if it is as it should be.

    `first` means that nothing was ever taken over it: the slot that the peer founded is good.
    """
    if have is None:
        return "first" if seeded and met.slot == "there" else "new-here"
    if have.made_for != met.incarnation:
        return "peer-has-a-new-life"
    if met.slot is None:
        return "slot-missing"
    if met.slot == "lost":
        return "slot-lost"
    if have.progress is not None and lsn_number(have.progress) > lsn_number(met.position):
        return "progress-does-not-fit"
    return None


async def link(
    here: psycopg.AsyncConnection,
    there: psycopg.AsyncConnection,
    region: str,
    peer: str,
    conninfo: str,
    incarnation: str,
    reason: str,
) -> None:
    """Make the link from a peer for one life of it, and ask for all that both regions may hold.

    Args:
        here: this region's database, as acgs_owner, in autocommit mode.
        there: the peer's, as acgs_link, in autocommit mode.
        region: this region.
        peer: where changes come from.
        conninfo: how this region's database reaches the peer's.
        incarnation: the peer's life, part of the reader's name: another life's reader confirms nothing.
        reason: why, as `why_relink` says.
    """
    name = link_name(peer, region)
    identifier = sql.Identifier(name)
    subscribed = await (await here.execute(_SUBSCRIPTION["subscribed"].encode(), {"name": name})).fetchone()
    if subscribed:
        for statement in _unsubscribing(name):
            await here.execute(statement)
    if reason != "first":
        await _slot_anew(there, name)
    info = sql.Literal(f"{conninfo} application_name={name}_{incarnation}")
    statement = sql.SQL(cast(LiteralString, _SUBSCRIPTION["subscribe"])).format(name=identifier, info=info)
    await here.execute(statement)
    await here.execute(
        _QUERIES["note_link"].encode(), {"peer": peer, "incarnation": incarnation, "reason": reason}
    )


def unsubscribe_now(here: psycopg.Connection[Any], region: str, peer: str) -> None:
    """Drop the link from a peer that is gone for good; its slot is gone with it."""
    name = link_name(peer, region)
    if here.execute(_SUBSCRIPTION["subscribed"].encode(), {"name": name}).fetchone():
        for statement in _unsubscribing(name):
            here.execute(statement)


def _unsubscribing(name: str) -> list[sql.Composed]:
    """Return the statements that drop a subscription without asking the other side for its slot."""
    texts = (
        "ALTER SUBSCRIPTION {} DISABLE",
        "ALTER SUBSCRIPTION {} SET (slot_name = NONE)",
        "DROP SUBSCRIPTION {}",
    )
    return [sql.SQL(text).format(sql.Identifier(name)) for text in texts]


async def _slot_anew(there: psycopg.AsyncConnection, name: str) -> None:
    for attempt in range(_SLOT_TRIES):
        await there.execute(_QUERIES["end_readers"].encode(), {"name": name})
        try:
            await there.execute(_QUERIES["drop_slot"].encode(), {"name": name})
            break
        except psycopg.errors.ObjectInUse:
            if attempt == _SLOT_TRIES - 1:
                raise
            await asyncio.sleep(0.1)
    await there.execute(_QUERIES["make_slot"].encode(), {"name": name})
