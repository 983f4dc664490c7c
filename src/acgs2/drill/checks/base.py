"""What checks share: what a finding is, what came before what, and what a destroyed disk may have taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from acgs2.drill.history import History, Loss, Operation, Row
from acgs2.drill.states import Final

__all__ = ["Broken", "Case", "counted_by", "survivors"]


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that was not kept: which check says so, and what it saw."""

    check: str
    what: str


class Case:
    """A history and the final states, with questions about them that several checks ask."""

    def __init__(self, history: History, final: Final) -> None:
        self.history = history
        self.final = final

    @cached_property
    def by_record(self) -> Mapping[tuple[str, str], list[Operation]]:
        """Return the operations that happened or may have, by entity and key, in the order of invocation."""
        found: dict[tuple[str, str], list[Operation]] = {}
        for op in self.history.operations:
            if op.possible and op.key:
                found.setdefault((op.entity, op.key), []).append(op)
        return found

    def writes(self, kind: str, entity: str = "user_profile") -> Mapping[str, list[Operation]]:
        """Return the operations of one kind that happened or may have, by key."""
        found: dict[str, list[Operation]] = {}
        for (of, key), ops in self.by_record.items():
            chosen = [op for op in ops if op.kind == kind]
            if of == entity and chosen:
                found[key] = chosen
        return found

    def writes_of(self, entity: str, key: str, kind: str) -> list[Operation]:
        """Return the operations of one kind on one record that happened or may have."""
        return [op for op in self.by_record.get((entity, key), ()) if op.kind == kind]

    def moved(self, entity: str, key: str, before_s: float) -> bool:
        """Return whether a record's tenant moved to another zone before a moment, or may have."""
        rows = self.final.rows(entity, key).values()
        tenants = {key} if entity == "tenant" else {row.get("tenant_id") for row in rows}
        moves = (op for t in tenants for op in self.writes_of("tenant", str(t), "move"))
        return any(op.invoked_s < before_s for op in moves)

    def lost_between(self, region: str, after_s: float, before_s: float) -> bool:
        """Return whether the region's data was lost between two moments."""
        return any(x.region == region and after_s <= x.at_s <= before_s for x in self.history.losses)

    def precedes(self, a: Operation, b: Operation) -> bool:
        """Return whether b was made by a region that had a: the same one, later, with its data in between.

        What another region did earlier may not have arrived, so nothing follows from clocks alone.
        """
        return (
            a.ok
            and a.region == b.region
            and a.completed_s < b.invoked_s
            and not self.lost_between(a.region, a.invoked_s, b.completed_s)
        )

    def unprotected(self, op: Operation, loss: Loss) -> bool:
        """Return whether a loss may have taken this write, which its region alone was bound to have."""
        # A move is as durable as what it leads to.
        zone = op.sent.get("to_zone", op.zone)
        alone = len(self.final.pairs.get(zone, ())) < 2 or zone in loss.exposed
        return alone and op.region == loss.region and op.invoked_s <= loss.at_s

    def excused(self, op: Operation) -> bool:
        """Return whether a region acknowledged a write and lost it with its disk before another had it."""
        return any(
            self.unprotected(op, loss)
            and not any(shows(row, op) for row in survivors(loss, op.entity, op.key))
            for loss in self.history.losses
        )


def survivors(loss: Loss, entity: str, key: str) -> Iterable[Row]:
    """Return a record as others had it when a region's data was lost; for register and consent, every row."""
    rows = loss.survivors.get(entity, {})
    if entity in ("consent", "transfer"):
        return [row for copies in rows.values() for row in copies]
    return rows.get(key, ())


def counted_by(rows: Iterable[Row], region: str) -> int:
    """Return what rows together know of a region's increments, over all of its lives."""
    lives: dict[str, list[int]] = {}
    for row in rows:
        for origin, state in ((row["meta"] or {}).get("login_count") or {}).items():
            if origin.partition("#")[0] == region:
                lives[origin] = max(lives.get(origin, [0, 0]), state)
    return sum(state[1] for state in lives.values())


def shows(row: Row, op: Operation) -> bool:
    """Return whether a row shows that an operation has reached it."""
    if row["erased"]:
        return True
    sent = op.sent
    match op.kind:
        case "create" | "append":
            return True
        case "add":
            return sent["element"] in (row["preferences"] or ())
        case "remove":
            return sent["element"] not in (row["preferences"] or ())
        case "set":
            return row[sent["field"]] == sent["value"]
        case "cas":
            return (row["settings"] or {}).get("is") == sent["value"]
        case "move":
            return row["zone"] == sent["to_zone"]
        case "grant":
            return _about(row, op) and bool(row["grants"])
        case "withdraw":
            return _about(row, op) and bool(row["withdrawals"])
        case "register":
            return row["note"] == op.key
        case "revoke":
            return row["note"] == op.key and row["revoked"] is not None
        case _:
            return False


def _about(row: Row, op: Operation) -> bool:
    return (row["subject_id"], row["to_region"]) == (op.sent["subject_id"], op.sent["to_region"])
