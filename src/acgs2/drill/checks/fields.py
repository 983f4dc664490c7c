"""Whether the fields of records are what acknowledged changes make of them, each by its own rule."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from acgs2.drill.checks.base import Broken, Case, counted_by, survivors
from acgs2.drill.history import Operation, Row

__all__ = ["compared_and_set", "counters", "latest", "sets"]


def counters(case: Case) -> Iterator[Broken]:
    """Find counters that are not between what was acknowledged and that plus what may have happened."""
    for key, ops in case.writes("increment").items():
        requests: dict[str | None, list[Operation]] = {}
        for op in ops:
            requests.setdefault(op.idempotency_key or str(op.number), []).append(op)
        least = sum(tries[0].sent["by"] for tries in requests.values() if any(t.ok for t in tries))
        least -= _taken(case, key, ops)
        most = sum(tries[0].sent["by"] * _times(case, tries) for tries in requests.values())
        for region, row in _living(case, "user_profile", key).items():
            if not least <= (row["login_count"] or 0) <= most:
                yield Broken(
                    "counters", f"user {key} in {region}: {row['login_count']} is not within {least}..{most}"
                )


def _times(case: Case, tries: Sequence[Operation]) -> int:
    """Return how often a request may have been carried out: twice where its region forgot the first try."""
    first, last = tries[0], tries[-1]
    return 2 if len(tries) > 1 and case.lost_between(first.region, first.invoked_s, last.completed_s) else 1


def _taken(case: Case, key: str, ops: Sequence[Operation]) -> int:
    """Return how much of what was acknowledged lost disks may have taken: what survivors did not have."""
    taken = 0
    for loss in case.history.losses:
        told = {
            op.idempotency_key or str(op.number): op.sent["by"]
            for op in ops
            if op.ok and case.unprotected(op, loss)
        }
        had = counted_by(survivors(loss, "user_profile", key), loss.region)
        taken += max(0, sum(told.values()) - taken - had)
    return taken


def sets(case: Case) -> Iterator[Broken]:
    """Find elements that are missing or there against the last change, where it is known which was last."""
    for key, adds in case.writes("add").items():
        changes: dict[str, list[Operation]] = {}
        for op in [*adds, *case.writes_of("user_profile", key, "remove")]:
            changes.setdefault(op.sent["element"], []).append(op)
        rows = _living(case, "user_profile", key)
        for element, ops in changes.items():
            for region, row in rows.items():
                present = element in (row["preferences"] or ())
                against = [op for op in ops if op.ok and (op.kind == "add") is not present]
                for op in against:
                    others = [o for o in ops if o.kind != op.kind]
                    if all(case.precedes(o, op) for o in others) and not case.excused(op):
                        state = "there" if present else "missing"
                        yield Broken(
                            "sets",
                            f"user {key} in {region}: {element} is {state} after {op.kind} in {op.region}",
                        )
                        break


def latest(case: Case) -> Iterator[Broken]:
    """Find values that nobody wrote, and such as their own region had overwritten."""
    creations = case.writes("create")
    for (entity, key), ops in case.by_record.items():
        changes = [op for op in ops if op.kind == "set"]
        if entity != "user_profile" or not changes:
            continue
        for name in {op.sent["field"] for op in changes}:
            writes = [op for op in changes if op.sent["field"] == name]
            writes += [op for op in creations.get(key, ()) if name in op.sent]
            for region, row in _living(case, entity, key).items():
                wrong = _wrong_value(case, writes, name, row[name])
                if wrong:
                    yield Broken("latest", f"user {key} in {region}: {name} {wrong}")


def _wrong_value(case: Case, writes: Sequence[Operation], name: str, value: Any) -> str | None:
    sources = [op for op in writes if op.sent.get("value", op.sent.get(name)) == value]
    if not sources:
        made = any(op.kind == "create" and name in op.sent for op in writes)
        kept = [op for op in writes if op.ok and not case.excused(op)]
        if value is None and not made:
            return f"is empty, though {kept[0].sent} was acknowledged" if kept else None
        return f"is {value!r}, which nobody wrote"
    for op in writes:
        if op.ok and all(case.precedes(source, op) for source in sources) and not case.excused(op):
            return f"is {value!r}, which {op.region} had overwritten with {op.sent['value']!r}"
    return None


def compared_and_set(case: Case) -> Iterator[Broken]:
    """Find versions that one region gave twice, and acknowledged ones that vanished without a conflict."""
    recorded = json.dumps([c for found in case.final.conflicts.values() for c in found])
    for key, ops in case.writes("cas", "tenant_config").items():
        rows = _living(case, "tenant_config", key)
        told = [op for op in ops if op.ok]
        for op in told:
            twins = [t for t in told if t.number > op.number and _same_version(case, op, t)]
            for twin in twins:
                if op.sent["value"] not in recorded and twin.sent["value"] not in recorded:
                    yield Broken(
                        "compared-and-set",
                        f"config {key}: {op.region} gave version {op.sent['expects'] + 1} twice",
                    )
            if rows and not _accounted_for(case, op, ops, rows, recorded):
                yield Broken(
                    "compared-and-set",
                    f"config {key}: {op.sent['value']}, acknowledged by {op.region} as version "
                    f"{op.sent['expects'] + 1}, is not final, nobody built on it, and no conflict is kept",
                )


def _same_version(case: Case, a: Operation, b: Operation) -> bool:
    same = a.region == b.region and a.sent["expects"] == b.sent["expects"]
    same = same and a.idempotency_key != b.idempotency_key
    return same and not case.lost_between(
        a.region, min(a.invoked_s, b.invoked_s), max(a.completed_s, b.completed_s)
    )


def _accounted_for(
    case: Case, op: Operation, ops: Sequence[Operation], rows: Mapping[str, Row], recorded: str
) -> bool:
    value = op.sent["value"]
    return (
        any((row["settings"] or {}).get("is") == value for row in rows.values())
        or any(o.sent["based_on"] == value for o in ops)
        or value in recorded
        or case.excused(op)
    )


def _living(case: Case, entity: str, key: str) -> dict[str, Row]:
    """Return a record as regions hold it; nothing of it is left to judge once it is erased."""
    rows = case.final.rows(entity, key)
    return {} if any(row["erased"] for row in rows.values()) else rows
