"""How concurrent versions become one: commutative, associative, idempotent, nothing lost silently.

`store/sql/entity/merge.sql` is the same in SQL; a property test holds both equal.
"""

from __future__ import annotations

from dataclasses import dataclass

from acgs2.merge.fields import merge_fields
from acgs2.merge.whole import merge_whole
from acgs2.merge.write import erase, write
from acgs2.model.entity import Entity, Strategy
from acgs2.model.record import Conflict, Record

__all__ = ["Merged", "erase", "merge", "write"]


@dataclass(frozen=True, slots=True)
class Merged:
    """The joined record and what lost on the way."""

    record: Record
    conflicts: tuple[Conflict, ...] = ()


def merge(entity: Entity, local: Record | None, incoming: Record) -> Merged:
    """Join two versions of one record by the entity's strategy.

    An erasure always wins and leaves no conflict: the losing value is personal data that must go.
    """
    if local is None or local == incoming:
        return Merged(incoming)
    if entity.strategy is Strategy.MERGE:
        return Merged(*merge_fields(entity, local, incoming))
    return Merged(*merge_whole(entity, local, incoming))
