"""Versions of one record as random histories over a few regions make them: writes, erasures, deliveries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from acgs2.errors import RefusedError
from acgs2.merge import erase, merge, write
from acgs2.model.entity import Entity, Field, FieldType, parse
from acgs2.model.record import Record

ORIGINS = ("ap-southeast-1#0000000a", "eu-west-1#0000000b", "us-east-1#0000000c")
KEY = UUID("018f0000-0000-7000-8000-000000000001")

#: A synthetic entity with the rules that no shipped one uses.
EXTREMES = parse(
    """
entity: extremes
path: extremes
residency: zone
scope: tenant
strategy: merge
fields:
  highest: {type: integer, rule: max}
  lowest: {type: integer, rule: min}
  first_seen: {type: timestamp, rule: min}
  labels: {type: map, rule: map}
  tags: {type: set, rule: union}
  count: {type: counter, rule: counter}
  note: {type: text, rule: latest}
"""
)
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_JSON = st.dictionaries(
    st.sampled_from("abc"), st.integers(0, 3) | st.sampled_from(["x", "y"]) | st.none(), max_size=2
)


@cache
def values(field: Field) -> st.SearchStrategy[Any]:
    """Return values of a field, few enough that they collide."""
    match field.type:
        case FieldType.UUID:
            return st.sampled_from([UUID(int=1), UUID(int=2)])
        case FieldType.TEXT:
            return st.sampled_from(["alpha", "beta", "gamma", "ünïcode ✓"])
        case FieldType.ENUM:
            return st.sampled_from(field.values)
        case FieldType.INTEGER | FieldType.COUNTER:
            return st.integers(-5, 5)
        case FieldType.BOOLEAN:
            return st.booleans()
        case FieldType.TIMESTAMP:
            return st.integers(0, 3).map(lambda n: _EPOCH + timedelta(seconds=n))
        case FieldType.JSON | FieldType.MAP:
            return _JSON
        case FieldType.SET:
            return st.lists(st.sampled_from(["a", "b", "c", "é"]), unique=True).map(sorted)


@st.composite
def histories(draw: st.DrawFn, entity: Entity, *, erasures: bool = True) -> list[Record]:
    """Draw the versions, in the order in which they came to be, of one record written in three regions."""
    held: dict[str, Record | None] = dict.fromkeys(ORIGINS)
    made: list[Record] = []
    now_us = 1_000_000
    for _ in range(draw(st.integers(1, 7))):
        origin = draw(st.sampled_from(ORIGINS))
        now_us += draw(st.integers(-2, 3))
        old = held[origin]
        if made and draw(st.booleans()):
            held[origin] = merge(entity, old, draw(st.sampled_from(made))).record
            continue
        try:
            if erasures and old is not None and draw(st.integers(0, 9)) == 0:
                new = erase(entity, old, origin, now_us)
            else:
                new = write(entity, old, KEY, draw(_changes(entity, old)), origin, now_us)
        except RefusedError:
            continue
        held[origin] = new
        made.append(new)
    return made


@st.composite
def _changes(draw: st.DrawFn, entity: Entity, old: Record | None) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for field in entity.fields:
        if field.name == entity.version_field:
            changes[field.name] = (old.data[field.name] or 0) + 1 if old is not None else None
        elif (field.required and old is None) or draw(st.booleans()):
            changes[field.name] = draw(values(field))
    return changes
