"""Judges a cluster from its databases alone: where records are, whether regions agree, what was lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from acgs2.drill.workload import Acknowledged
from acgs2.model import entities
from acgs2.store.compile import columns_of

__all__ = ["Verdict", "agreement", "judge", "misplaced", "missing"]

_PATHS = {entity.path: entity.name for entity in entities().values()}


@dataclass(frozen=True)
class Verdict:
    """What was found; all three empty means that every promise held."""

    disagreements: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def judge(databases: Mapping[str, psycopg.Connection[Any]], acknowledged: Iterable[Acknowledged]) -> Verdict:
    """Judge every database against the others and against what clients were told."""
    return Verdict(agreement(databases), misplaced(databases), missing(databases, acknowledged))


def agreement(databases: Mapping[str, psycopg.Connection[Any]]) -> list[str]:
    """Return the records on which two regions that both may hold them differ, or that one of them lacks."""
    found: list[str] = []
    for entity in entities().values():
        columns = [c for c in columns_of(entity) if c not in ("sent_to", "rights")]
        # Of a tombstone only that it is one: the zone in which it was learned of is each region's own.
        query = sql.SQL(
            "SELECT key::text, residency, CASE WHEN erased THEN 'erased' ELSE md5(row({})::text) END FROM {}"
        ).format(sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier("acgs", entity.name))
        held = {
            region: {k: (r, d) for k, r, d in conn.execute(query).fetchall()}
            for region, conn in databases.items()
        }
        for key in sorted({k for rows in held.values() for k in rows}):
            versions = {region: rows[key][1] for region, rows in held.items() if key in rows}
            holders = next(rows[key][0] for rows in held.values() if key in rows)
            lacking = [r for r in holders if r in databases and r not in versions]
            lacking = [] if "erased" in versions.values() else lacking
            if len(set(versions.values())) > 1 or lacking:
                found.append(f"{entity.name} {key}: versions {versions}, lacking in {lacking}")
    return found


def misplaced(databases: Mapping[str, psycopg.Connection[Any]]) -> list[str]:
    """Return the records, conflicts and set-aside rows that a region holds and may not."""
    found: list[str] = []
    for region, conn in databases.items():
        for entity in entities().values():
            query = sql.SQL("SELECT key::text FROM {} WHERE NOT erased AND NOT %s = ANY (residency)").format(
                sql.Identifier("acgs", entity.name)
            )
            found += [
                f"{region}: {entity.name} {key}" for (key,) in conn.execute(query, (region,)).fetchall()
            ]
    return found


def missing(
    databases: Mapping[str, psycopg.Connection[Any]], acknowledged: Iterable[Acknowledged]
) -> list[str]:
    """Return the acknowledged records that no region has."""
    wanted: dict[str, set[str]] = {}
    for each in acknowledged:
        if each.key:
            wanted.setdefault(_PATHS[each.entity], set()).add(each.key)
    lost: list[str] = []
    for entity, keys in wanted.items():
        query = sql.SQL("SELECT key::text FROM {} WHERE key = ANY (%s::uuid[])").format(
            sql.Identifier("acgs", entity)
        )
        there = {k for conn in databases.values() for (k,) in conn.execute(query, (list(keys),)).fetchall()}
        lost += [f"{entity} {key}" for key in sorted(keys - there)]
    return lost
