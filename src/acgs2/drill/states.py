"""What regions' databases hold, read as it is, past all of our code, into plain values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from acgs2.drill.history import Row
from acgs2.drill.plan import TOKEN
from acgs2.model import entities
from acgs2.model.entity import Entity, Residency
from acgs2.residency import Register, TransferRecord
from acgs2.topology import Topology

__all__ = [
    "Final",
    "Held",
    "Traces",
    "micros",
    "read_conflicts",
    "read_final",
    "read_held",
    "register_from",
    "zoned",
]

#: One region: per entity and key the row.
Held = Mapping[str, Mapping[str, Row]]
#: One region: per name of a record the tables in which some text of it is.
Traces = Mapping[str, list[str]]


@dataclass(frozen=True)
class Final:
    """All regions at the end of a run: their rows, their conflicts, and where which texts are.

    `pairs` are the regions that acknowledge a zone's writes together, `homes` where it is at home.
    """

    held: Mapping[str, Held] = field(default_factory=dict)
    conflicts: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    traces: Mapping[str, Traces] = field(default_factory=dict)
    pairs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    homes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    at: str = ""

    def rows(self, entity: str, key: str) -> dict[str, Row]:
        """Return a record as each region that has it has it."""
        return {
            region: held[entity][key] for region, held in self.held.items() if key in held.get(entity, {})
        }

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Final:
        """Return what was saved."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def zoned() -> list[Entity]:
    """Return the entities whose records grow in number as a cluster is used."""
    return [e for e in entities().values() if e.residency is Residency.ZONE and e.name != "consent"]


def read_held(
    conn: psycopg.Connection[Any],
    since: datetime | None = None,
    besides: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return every record of a region's database, tombstones too; times as ISO 8601.

    Args:
        conn: to the database.
        since: only records that were written since, by their own clock; of the register and of consents, all.
        besides: and records with these keys, however old, by entity.
    """
    partly = {entity.name for entity in zoned()} if since is not None else set[str]()
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for entity in entities().values():
        query = sql.SQL(
            "SELECT key::text, to_jsonb(t) FROM {} AS t WHERE hlc >= %s OR key = ANY (%s::uuid[])"
        ).format(sql.Identifier("acgs", entity.name))
        since_us = micros(since) if since is not None and entity.name in partly else 0
        rows = conn.execute(query, (since_us, list(besides.get(entity.name, ())))).fetchall()
        found[entity.name] = dict(rows)
    return found


def micros(at: datetime) -> int:
    """Return a moment as the clocks of records have it."""
    return int(at.timestamp() * 1e6)


def read_conflicts(conn: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Return the losing sides that a region keeps."""
    query = b"SELECT entity, key::text, field, loser_origin, winner_origin, loser_value FROM acgs.conflict"
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query).fetchall()


def read_traces(conn: psycopg.Connection[Any], run: str = "") -> dict[str, list[str]]:
    """Return of which records some text is in which tables; every row of every table is looked through.

    Args:
        conn: to a region's database.
        run: what the names that are looked for begin with.
    """
    tables = (
        b"SELECT oid::regclass::text FROM pg_class"
        b" WHERE relnamespace = 'acgs'::regnamespace AND relkind IN ('r', 'm')"
    )
    pattern = re.compile(TOKEN)
    found: dict[str, set[str]] = {}
    with conn.transaction():
        for (table,) in conn.execute(tables).fetchall():
            with conn.cursor("every_row") as cursor:
                query = f"SELECT t::text FROM {table} AS t WHERE strpos(t::text, %s) > 0"
                cursor.execute(query.encode(), (f"~{run}",))
                for (text,) in cursor:
                    for name in (each for each in pattern.findall(text) if each.startswith(run)):
                        found.setdefault(name, set()).add(table)
    return {name: sorted(where) for name, where in sorted(found.items())}


def register_from(held: Held, regions: frozenset[str]) -> Register:
    """Return the register as one region has it, read without the database's own decision."""
    zones = {r["name"]: tuple(r["regions"]) for r in held["zone"].values() if not r["erased"]}
    transfers = tuple(
        TransferRecord(
            r["from_zone"],
            r["to_region"],
            r["instrument"],
            frozenset(r["entities"]),
            _moment(r["begins"]),
            _moment(r["expires"]),
            _moment(r["revoked"]),
            bool(r["importer_certified"]),
        )
        for r in held["transfer"].values()
        if not r["erased"]
    )
    return Register(regions, zones, transfers)


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value is not None else None


def read_final(
    topology: Topology,
    databases: Mapping[str, psycopg.Connection[Any]],
    *,
    traced: bool = True,
    run: str = "",
    held: Mapping[str, Held] | None = None,
) -> Final:
    """Read all regions.

    Args:
        topology: of the cluster.
        databases: of every region.
        traced: whether texts are searched for, which takes the longest.
        run: what the names that are searched for begin with.
        held: the rows, where they have been read.
    """
    return Final(
        held=held or {region: read_held(conn) for region, conn in databases.items()},
        conflicts={region: read_conflicts(conn) for region, conn in databases.items()},
        traces={region: read_traces(conn, run) for region, conn in databases.items()} if traced else {},
        pairs={zone: topology.pair_of(zone) for zone in topology.zones},
        homes={name: zone.regions for name, zone in topology.zones.items()},
        at=datetime.now(UTC).isoformat(),
    )
