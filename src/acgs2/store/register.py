"""Carries a changed topology into the register of a running cluster, and regions out of it for good."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from acgs2.model import entities
from acgs2.model.entity import Residency
from acgs2.model.ids import uuid7
from acgs2.residency.decide import instant
from acgs2.store.links import unsubscribe_now
from acgs2.store.region import register_key
from acgs2.store.templates import fragments
from acgs2.topology import Topology
from acgs2.topology.diff import Changes
from acgs2.topology.models import Transfer

__all__ = ["amend", "forget", "unfinished", "wanting"]

_QUERIES = fragments("register.sql")


def amend(conn: psycopg.Connection[Any], after: Topology, changes: Changes) -> None:
    """Write changed zones and transfers, in one transaction; every region obeys as soon as it hears of it.

    What is new comes before what is revoked: a transfer that is only replaced never ends in between.

    Args:
        conn: to the database of any region that may write, as acgs_app.
        after: the topology as it shall be.
        changes: what leads to it; what is carried out already is not done again.

    Raises:
        psycopg.Error: the region takes no writes now; nothing was changed.
    """
    with conn.transaction():
        conn.execute(fragments("api.sql")["act_as"].encode(), {"actor": "operator@cli"})
        for name in changes.zones:
            zone = after.zones[name]
            names = {"key": register_key("zone", name), "name": name, "regulation": zone.regulation}
            lists = {"regions": Jsonb(list(zone.regions)), "pair": Jsonb(list(after.pair_of(name)))}
            conn.execute(_QUERIES["put_zone"].encode(), {**names, **lists})
        for transfer in changes.transfers_added:
            key = uuid7(time.time_ns() // 1_000_000, os.urandom(10))
            conn.execute(_QUERIES["add_transfer"].encode(), {"key": key, **_values(transfer)})
        for transfer in changes.transfers_removed:
            conn.execute(_QUERIES["revoke_transfer"].encode(), _values(transfer))


def _values(transfer: Transfer) -> dict[str, Any]:
    return {
        "zone": transfer.zone,
        "to": transfer.to,
        "instrument": transfer.instrument,
        "entities": Jsonb(list(transfer.entities)),
        "begins": instant(transfer.begins),
        "expires": instant(transfer.expires),
        "certified": transfer.importer_certified,
    }


def wanting(conn: psycopg.Connection[Any]) -> int:
    """Return how many kinds of records a region still waits to be given."""
    return int(_value(conn, "wanting"))


def unfinished(conn: psycopg.Connection[Any], peers: Sequence[str]) -> str | None:
    """Return why a region that lost all its zones cannot be removed yet, None if it can.

    Args:
        conn: to its database, as acgs_owner.
        peers: the regions that stay: each must have read all that this one ever wrote.
    """
    position = _value(conn, "position")
    if _value(conn, "busy"):
        return "it is still forgetting what it held"
    for entity in (e for e in entities().values() if e.residency is Residency.ZONE):
        query = sql.SQL("SELECT count(*) FROM {} WHERE NOT erased").format(
            sql.Identifier("acgs", entity.name)
        )
        row = conn.execute(query).fetchone()
        if row and row[0]:
            return f"it still holds {row[0]} records of {entity.name}"
    unread = _value(conn, "unread", peers=list(peers), position=position)
    return f"{unread} regions have not read all that it wrote" if unread else None


def forget(conn: psycopg.Connection[Any], region: str, name: str, principal: str) -> None:
    """Take a region that is gone for good out of another one's database: links, duties, names.

    Args:
        conn: to the database of a region that stays, a superuser's, in autocommit mode.
        region: that region.
        name: the one that is gone.
        principal: who answers for it being gone, and its data with it.
    """
    unsubscribe_now(conn, region, name)
    conn.execute(_QUERIES["forget_region"].encode(), {"name": name, "principal": principal})


def _value(conn: psycopg.Connection[Any], query: str, **names: Any) -> Any:
    row = conn.execute(_QUERIES[query].encode(), names).fetchone()
    return row[0] if row else None
