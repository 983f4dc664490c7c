"""Local writes, as the database's row trigger stamps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from acgs2.errors import ConflictError, RefusedError
from acgs2.merge.fields import counter_value, map_value, union_value
from acgs2.model.clock import next_hlc
from acgs2.model.entity import Entity, Field, Rule, Strategy
from acgs2.model.record import Record

__all__ = ["CREATED", "erase", "write"]

#: Whom the count that a record begins with is of: nobody's region.
CREATED = "created"


def write(
    entity: Entity, old: Record | None, key: UUID, changes: Mapping[str, Any], origin: str, now_us: int
) -> Record:
    """Return the version that a local write makes.

    Args:
        entity: the declaration.
        old: the version before, None for a new record.
        key: of the record.
        changes: new values by field; a counter's is its new total, as in SQL.
        origin: who writes, `region#incarnation`.
        now_us: microseconds since the epoch.

    Raises:
        ConflictError: a versioned record was changed without naming old + 1 (`version-mismatch`), or the
            record was erased (`erased`).
        RefusedError: an append-only record was to be changed (`append-only`).
    """
    if old is not None and old.erased:
        raise ConflictError("erased", "The record was erased; its id is not used again.")
    if old is not None and entity.strategy is Strategy.APPEND_ONLY:
        raise RefusedError("append-only", "Records of this kind are never changed.")
    before = old.data if old is not None else dict.fromkeys(f.name for f in entity.fields)
    data = {**before, **changes}
    if entity.version_field:
        have = before[entity.version_field] or 0
        if old is None:
            data[entity.version_field] = 1
        elif data[entity.version_field] != have + 1:
            raise ConflictError("version-mismatch", f"The record has version {have}.", version=have)
    stamped = _stamped(old, key, origin, now_us)
    meta = dict(old.meta) if old is not None else {}
    if entity.strategy is Strategy.MERGE:
        for field in entity.fields:
            _stamp_field(field, before[field.name], data, meta, stamped, created=old is None)
    return Record(key=key, vv=stamped.vv, hlc=stamped.hlc, origin=origin, data=data, meta=meta)


def erase(entity: Entity, old: Record, origin: str, now_us: int) -> Record:
    """Return the version that an erasure makes: no content, and never a successor."""
    stamped = _stamped(old, old.key, origin, now_us)
    nothing = dict.fromkeys((f.name for f in entity.fields), None)
    return Record(key=old.key, vv=stamped.vv, hlc=stamped.hlc, origin=origin, erased=True, data=nothing)


def _stamped(old: Record | None, key: UUID, origin: str, now_us: int) -> Record:
    vv = dict(old.vv) if old is not None else {}
    vv[origin] = vv.get(origin, 0) + 1
    return Record(
        key=key, vv=vv, hlc=next_hlc(now_us, old.hlc) if old is not None else now_us, origin=origin, data={}
    )


def _stamp_field(
    field: Field, before: Any, data: dict[str, Any], meta: dict[str, Any], stamped: Record, *, created: bool
) -> None:
    name, value, count = field.name, data[field.name], stamped.vv[stamped.origin]
    stamp = [stamped.hlc, stamped.origin]
    state = dict(meta.get(name, {})) if field.rule is not Rule.LATEST else {}
    if field.rule is Rule.LATEST:
        if value != before:
            meta[name] = [*stamp, count]
        return
    if field.rule in (Rule.MAX, Rule.MIN):
        given = [v for v in (before, value) if v is not None]
        data[name] = (max if field.rule is Rule.MAX else min)(given) if given else None
        return
    if field.rule is Rule.UNION:
        old, new = set(before or []), set(value or [])
        state |= {e: [*stamp, e in new] for e in old ^ new}
        data[name] = union_value(state) if state else None
    elif field.rule is Rule.MAP:
        old_map, new_map = before or {}, value or {}
        for key in {*old_map, *new_map}:
            if key not in old_map or key not in new_map or old_map[key] != new_map[key]:
                state[key] = [*stamp, key in new_map, new_map.get(key)]
        data[name] = map_value(state) if state else None
    else:
        delta = (value or 0) - (before or 0)
        if delta:
            # A create that is repeated in another region is the same count, not a second one.
            by = CREATED if created else stamped.origin
            own = state.get(by, [0, 0])
            state[by] = [count, own[1] + delta]
        data[name] = counter_value(state) if state else None
    if state:
        meta[name] = state
