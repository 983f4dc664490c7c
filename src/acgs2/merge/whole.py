"""Strategies in which one version wins whole: last_write_wins, versioned, append_only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from acgs2.model.clock import Order, compare, join
from acgs2.model.entity import Entity, Strategy
from acgs2.model.record import Conflict, Record

__all__ = ["merge_whole"]


def merge_whole(entity: Entity, local: Record, incoming: Record) -> tuple[Record, tuple[Conflict, ...]]:
    """Return the winner under the joined vector, and the loser as a conflict if it was concurrent."""
    wins = _wins(entity, incoming, local)
    winner, loser = (incoming, local) if wins else (local, incoming)
    joined = replace(winner, vv=join(local.vv, incoming.vv), erased=local.erased or incoming.erased)
    if not _lost_silently(entity, local, incoming):
        return joined, ()
    return joined, (Conflict(local.key, "", winner.stamp, loser.stamp, dict(loser.data)),)


def _wins(entity: Entity, a: Record, b: Record) -> bool:
    if entity.strategy is Strategy.VERSIONED:
        return _versioned(entity, a) > _versioned(entity, b)
    if entity.strategy is Strategy.APPEND_ONLY and not (a.erased or b.erased):
        # The strictest first; then what was written first is what was written, a later one the intruder.
        rank_a, rank_b = _rank(entity, a), _rank(entity, b)
        return rank_a > rank_b or (rank_a == rank_b and a.stamp < b.stamp)
    return (a.erased, a.stamp) > (b.erased, b.stamp)


def _rank(entity: Entity, record: Record) -> int:
    if entity.precedence is None:
        return 0
    value, values = record.data.get(entity.precedence), entity.field(entity.precedence).values
    return values.index(value) if value in values else -1


def _versioned(entity: Entity, record: Record) -> tuple[Any, ...]:
    return (record.erased, record.data.get(str(entity.version_field)) or 0, record.stamp)


def _lost_silently(entity: Entity, local: Record, incoming: Record) -> bool:
    if local.erased or incoming.erased or local.stamp == incoming.stamp:
        return False
    compared = [n for n in (entity.identity, entity.precedence) if n] if entity.identity else list(local.data)
    if all(local.data.get(name) == incoming.data.get(name) for name in compared):
        return False
    return entity.strategy is Strategy.APPEND_ONLY or compare(local.vv, incoming.vv) is Order.CONCURRENT
