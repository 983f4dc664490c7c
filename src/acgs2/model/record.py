"""A replicated record as merges see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from acgs2.model.clock import Stamp

__all__ = ["Conflict", "Record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One version of one record.

    `data` has every declared field, None where it is unset. `meta` holds field states, for the merge
    strategy only: latest [hlc, origin, n]; union {element: [hlc, origin, present]}; map {key: [hlc, origin,
    present, value]}; counter {origin: [n, own sum]}; n is the origin's count in `vv` at that write.
    """

    key: UUID
    vv: Mapping[str, int]
    hlc: int
    origin: str
    erased: bool = False
    data: Mapping[str, Any]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stamp(self) -> Stamp:
        """Return when and by whom it was written."""
        return (self.hlc, self.origin)


@dataclass(frozen=True, slots=True)
class Conflict:
    """The losing side of a concurrent change; `field` is empty where a whole record lost."""

    key: UUID
    field: str
    winner: Stamp
    loser: Stamp
    value: Any
