"""Whether a region stands by what it said: reads follow writes and never go back, unless its data was lost.

A region is one database, so what holds for one client holds between clients of it too, and that is what is
judged: read-your-writes, monotonic reads and writes, writes that follow reads, all in one order per
region and record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from acgs2.drill.checks.base import Broken, Case
from acgs2.drill.history import Operation

__all__ = ["sessions"]


def sessions(case: Case) -> Iterator[Broken]:
    """Find answers that go behind what the same region had acknowledged or shown before."""
    records: dict[tuple[str, str, str], list[Operation]] = {}
    for op in case.history.operations:
        if op.key and op.entity in ("user_profile", "tenant_config"):
            records.setdefault((op.region, op.entity, op.key), []).append(op)
    for (region, entity, key), ops in records.items():
        every = case.by_record.get((entity, key), [])
        for seen in ops:
            what = _gone(case, ops, seen)
            if what is None and seen.ok and seen.kind != "erase":
                shown = seen.answer.get("record", {})
                if entity == "user_profile":
                    what = _counter(case, ops, seen, shown) or _elements(case, every, seen, shown)
                    what = what or _values(case, every, seen, shown)
                else:
                    what = _version(case, ops, seen, shown)
            if what is not None:
                yield Broken(
                    "sessions",
                    f"{region} showed {entity} {key} to {seen.client} at {seen.invoked_s:.3f} s {what}",
                )


def _before(case: Case, ops: Sequence[Operation], seen: Operation) -> Iterator[Operation]:
    """Yield what the region had answered before this was sent, with its data in between."""
    for op in ops:
        if op.completed_s < seen.invoked_s and not case.lost_between(
            op.region, op.invoked_s, seen.completed_s
        ):
            yield op


def _gone(case: Case, ops: Sequence[Operation], seen: Operation) -> str | None:
    """Return what is wrong with a record being there or not."""
    before = [op for op in _before(case, ops, seen) if op.ok or op.answer.get("problem") == "erased"]
    if seen.ok and seen.kind != "erase":
        known = [op for op in before if op.kind == "erase" or op.answer.get("problem") == "erased"]
        return f"although it was erased by {known[0].completed_s:.3f} s" if known else None
    if seen.kind != "read" or seen.answer.get("problem") != "record-unknown":
        return None
    # Elsewhere than at home a right may have ended meanwhile; and a tenant may have moved away.
    rows = case.final.rows(seen.entity, seen.key)
    settled = rows and not any((row["rights"] or {}).get("epoch") for row in rows.values())
    there = [op for op in before if op.ok and seen.region in case.final.homes.get(op.zone, ())]
    if settled and there and not _moves(case, seen):
        return f"as unknown, although it was there at {there[0].completed_s:.3f} s"
    return None


def _moves(case: Case, seen: Operation) -> bool:
    zones = {op.zone for op in case.by_record.get((seen.entity, seen.key), ())}
    return len(zones) > 1


def _counter(case: Case, ops: Sequence[Operation], seen: Operation, shown: dict[str, Any]) -> str | None:
    if "login_count" not in shown:
        return None
    value, told, most = shown["login_count"] or 0, {}, 0
    for op in _before(case, ops, seen):
        if op.ok and op.kind == "increment":
            told[op.idempotency_key or str(op.number)] = op.sent["by"]
        if op.ok:
            most = max(most, (op.answer.get("record") or {}).get("login_count") or 0)
    if seen.kind == "increment":
        told[seen.idempotency_key or str(seen.number)] = seen.sent["by"]
    least = max(most, sum(told.values()))
    return f"with a counter of {value}, although it had been {least}" if value < least else None


def _elements(case: Case, every: Sequence[Operation], seen: Operation, shown: dict[str, Any]) -> str | None:
    if "preferences" not in shown:
        return None
    changes = [op for op in every if op.kind in ("add", "remove")]
    present = set(shown.get("preferences") or ())
    for op in changes:
        wrong = (op.sent["element"] in present) is not (op.kind == "add")
        if not (wrong and op.ok and _in_time(case, op, seen)):
            continue
        others = [o for o in changes if o.sent == op.sent and o.kind != op.kind]
        others = [o for o in others if o.invoked_s < seen.completed_s]
        if all(case.precedes(o, op) for o in others):
            return f"without what {op.kind} of {op.sent['element']} had done by {op.completed_s:.3f} s"
    return None


def _values(case: Case, every: Sequence[Operation], seen: Operation, shown: dict[str, Any]) -> str | None:
    for name in {"display_name", "locale"} & shown.keys():
        value = shown[name]
        writes = [op for op in every if op.kind == "set" and op.sent["field"] == name]
        writes += [op for op in every if op.kind == "create" and name in op.sent]
        sources = [op for op in writes if op.sent.get("value", op.sent.get(name)) == value]
        if value is not None and not sources:
            return f"with a {name} that nobody wrote: {value!r}"
        for op in writes:
            if op.ok and _in_time(case, op, seen) and all(case.precedes(source, op) for source in sources):
                return f"with {name} {value!r}, which had been overwritten by {op.completed_s:.3f} s"
    return None


def _version(case: Case, ops: Sequence[Operation], seen: Operation, shown: dict[str, Any]) -> str | None:
    versions = [
        int((op.answer.get("record") or {}).get("config_version") or 0)
        for op in _before(case, ops, seen)
        if op.ok
    ]
    value = shown.get("config_version")
    if value is not None and versions and value < max(versions):
        return f"with version {value}, although it had been {max(versions)}"
    return None


def _in_time(case: Case, op: Operation, seen: Operation) -> bool:
    """Return whether the same region had acknowledged a change before this, and kept its data since."""
    return (
        op.region == seen.region
        and op.completed_s < seen.invoked_s
        and not case.lost_between(op.region, op.invoked_s, seen.completed_s)
    )
