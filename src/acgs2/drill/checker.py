"""Judges a running cluster from its databases: where records are, whether regions agree, what was lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from acgs2.drill import checks
from acgs2.drill.history import Operation
from acgs2.drill.states import Final, read_held
from acgs2.model import entities

__all__ = ["Verdict", "agreement", "judge", "misplaced", "missing"]


@dataclass(frozen=True)
class Verdict:
    """What was found; all three empty means that every promise held."""

    disagreements: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def judge(databases: Mapping[str, psycopg.Connection[Any]], operations: Iterable[Operation]) -> Verdict:
    """Judge every database against the others and against what clients were told."""
    return Verdict(agreement(databases), misplaced(databases), missing(databases, operations))


def agreement(databases: Mapping[str, psycopg.Connection[Any]]) -> list[str]:
    """Return the records on which two regions that both may hold them differ, or that one of them lacks."""
    held = {region: read_held(conn) for region, conn in databases.items()}
    return [found.what for found in checks.agreement(Final(held))]


def misplaced(databases: Mapping[str, psycopg.Connection[Any]]) -> list[str]:
    """Return the records that a region holds and may not, by the residency that it has noted itself."""
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


def missing(databases: Mapping[str, psycopg.Connection[Any]], operations: Iterable[Operation]) -> list[str]:
    """Return the records that were acknowledged and that no region has."""
    wanted: dict[str, set[str]] = {}
    for op in operations:
        if op.ok and op.kind in ("create", "change"):
            wanted.setdefault(op.entity, set()).add(op.key or op.answer["record"]["id"])
    lost: list[str] = []
    for entity, keys in wanted.items():
        query = sql.SQL("SELECT key::text FROM {} WHERE key = ANY (%s::uuid[])").format(
            sql.Identifier("acgs", entity)
        )
        there = {k for conn in databases.values() for (k,) in conn.execute(query, (list(keys),)).fetchall()}
        lost += [f"{entity} {key}" for key in sorted(keys - there)]
    return lost
