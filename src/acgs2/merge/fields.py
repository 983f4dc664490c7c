"""The merge strategy: every field by its own rule, each with its own clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from acgs2.model.clock import join
from acgs2.model.entity import Entity, Field, Rule
from acgs2.model.record import Conflict, Record

__all__ = ["counter_value", "map_value", "merge_fields", "union_value"]

State = Mapping[str, Any]


def merge_fields(entity: Entity, local: Record, incoming: Record) -> tuple[Record, tuple[Conflict, ...]]:
    """Return the fields' joins, and each concurrent losing value of a latest field as a conflict.

    Unions and maps record no conflicts: every element keeps its own clock, and adding is not losing.
    """
    hlc, origin = max(local.stamp, incoming.stamp)
    vv = join(local.vv, incoming.vv)
    if local.erased or incoming.erased:
        nothing = dict.fromkeys((f.name for f in entity.fields), None)
        return Record(key=local.key, vv=vv, hlc=hlc, origin=origin, erased=True, data=nothing), ()
    data: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    conflicts: list[Conflict] = []
    for field in entity.fields:
        if field.rule is Rule.LATEST:
            conflicts += _latest(field, local, incoming, data, meta)
        elif field.rule in (Rule.MAX, Rule.MIN):
            choose: Callable[..., Any] = max if field.rule is Rule.MAX else min
            given = [r.data[field.name] for r in (local, incoming) if r.data[field.name] is not None]
            data[field.name] = choose(given) if given else None
        else:
            joined = _JOINS[field.rule](local.meta.get(field.name, {}), incoming.meta.get(field.name, {}))
            # What was never written has no value: a release that does not know the field agrees.
            data[field.name] = _VALUES[field.rule](joined) if joined else None
            if joined:
                meta[field.name] = joined
    record = Record(key=local.key, vv=vv, hlc=hlc, origin=origin, data=data, meta=meta)
    return record, tuple(conflicts)


def _latest(
    field: Field, local: Record, incoming: Record, data: dict[str, Any], meta: dict[str, Any]
) -> list[Conflict]:
    name = field.name
    ours, theirs = local.meta.get(name), incoming.meta.get(name)
    take = theirs is not None and (ours is None or tuple(theirs[:2]) > tuple(ours[:2]))
    data[name] = (incoming if take else local).data[name]
    chosen = theirs if take else ours
    if chosen is not None:
        meta[name] = chosen
    if ours is None or theirs is None or ours == theirs or local.data[name] == incoming.data[name]:
        return []
    seen = local.vv.get(theirs[1], 0) >= theirs[2] or incoming.vv.get(ours[1], 0) >= ours[2]
    if seen:
        return []
    winner, loser, value = (theirs, ours, local.data[name]) if take else (ours, theirs, incoming.data[name])
    return [Conflict(local.key, name, tuple(winner[:2]), tuple(loser[:2]), value)]


def _elements(a: State, b: State) -> dict[str, Any]:
    joined = dict(a)
    for element, state in b.items():
        if element not in joined or tuple(state[:2]) > tuple(joined[element][:2]):
            joined[element] = state
    return joined


def _counts(a: State, b: State) -> dict[str, Any]:
    # Only what a record began with may have one number and two values, made by two creates of one key.
    return {o: max(a.get(o, [0, 0]), b.get(o, [0, 0]), key=tuple) for o in {*a, *b}}


def union_value(state: State) -> list[str]:
    """Return the elements present in a union's state, sorted bytewise."""
    return sorted((e for e, s in state.items() if s[2]), key=str.encode)


def map_value(state: State) -> dict[str, Any]:
    """Return the object that a map's state stands for."""
    return {key: s[3] for key, s in state.items() if s[2]}


def counter_value(state: State) -> int:
    """Return the sum over a counter's origins."""
    return sum(s[1] for s in state.values())


_JOINS: Mapping[Rule, Callable[[State, State], dict[str, Any]]] = {
    Rule.UNION: _elements,
    Rule.MAP: _elements,
    Rule.COUNTER: _counts,
}
_VALUES: Mapping[Rule, Callable[[State], Any]] = {
    Rule.UNION: union_value,
    Rule.MAP: map_value,
    Rule.COUNTER: counter_value,
}
