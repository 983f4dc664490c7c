"""What was written before a drill: compared where it lies, by digests, so that only what is newer is read.

Nothing is left out by it: where a digest differs, or is where it may not be, everything is read and judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from acgs2.drill.checks.records import OWN
from acgs2.drill.states import Held, micros, read_final, read_held, register_from, zoned
from acgs2.model.entity import Entity
from acgs2.residency import Register, decide
from acgs2.store.compile import columns_of
from acgs2.topology import Topology

__all__ = ["read_newer"]

Databases = Mapping[str, psycopg.Connection[Any]]
#: The zone, and the regions that may hold it as the record itself has it.
_Group = tuple[str, tuple[str, ...]]


def read_newer(topology: Topology, databases: Databases, since: datetime) -> Mapping[str, Held]:
    """Return the rows of every region that were written since a moment; all rows unless the others agree.

    Rows of the register, consents and tombstones are always there, and with a tombstone its record elsewhere.

    Args:
        topology: of the cluster.
        databases: of every region.
        since: more than clocks of regions differ before anything that is to be judged.
    """
    erased = {entity.name: _erased(databases, entity) for entity in zoned()}
    held = {region: read_held(conn, since, erased) for region, conn in databases.items()}
    if _agree(databases, held, micros(since)):
        return held
    return read_final(topology, databases, traced=False).held


def _erased(databases: Databases, entity: Entity) -> list[str]:
    query = sql.SQL("SELECT key::text FROM {} WHERE erased").format(sql.Identifier("acgs", entity.name))
    return sorted({key for conn in databases.values() for (key,) in conn.execute(query).fetchall()})


def _agree(databases: Databases, held: Mapping[str, Held], since_us: int) -> bool:
    """Return whether what is older is the same wherever it may be, and nowhere else."""
    if any(not row["erased"] for each in held.values() for row in each["consent"].values()):
        return False  # who may hold what is then a question about persons
    register = register_from(next(iter(held.values())), frozenset(held))
    return all(_same(databases, entity, register, since_us) for entity in zoned())


def _same(databases: Databases, entity: Entity, register: Register, since_us: int) -> bool:
    found: dict[_Group, dict[str, tuple[int, int]]] = {}
    query = _digests(entity)
    for region, conn in databases.items():
        for zone, residency, count, digest in conn.execute(query, (since_us,)).fetchall():
            found.setdefault((zone, tuple(residency)), {})[region] = (count, int(digest))
    now = datetime.now(UTC)
    return all(
        set(held) == set(residency) == set(decide(entity.name, zone, register, now).holders())
        and len(set(held.values())) == 1
        for (zone, residency), held in found.items()
    )


def _digests(entity: Entity) -> sql.Composed:
    columns = [name for name in columns_of(entity) if name not in OWN]
    return sql.SQL(
        "SELECT t.zone, s.residency, count(*), sum(hashtextextended(ROW({columns})::text, 0)::numeric)"
        " FROM {table} AS t"
        " CROSS JOIN LATERAL (SELECT array_agg(r ORDER BY r) AS residency FROM unnest(t.residency) AS r) AS s"
        " WHERE NOT t.erased AND t.hlc < %s GROUP BY 1, 2"
    ).format(
        columns=sql.SQL(", ").join(sql.Identifier("t", name) for name in columns),
        table=sql.Identifier("acgs", entity.name),
    )
