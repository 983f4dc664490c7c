"""Whether whole records are where they were promised to be: created, appended, erased, equal everywhere."""

from __future__ import annotations

from collections.abc import Iterator

from acgs2.drill.checks.base import Broken, Case, counted_by, survivors
from acgs2.drill.history import Loss, Operation, Row
from acgs2.drill.states import Final
from acgs2.model import entities
from acgs2.store.compile import columns_of

__all__ = ["OWN", "agreement", "appended", "created", "durable", "erased", "unforeseen"]

#: Each region's own: to whom it sent a record, and by what it goes in deciding who may hold it.
OWN = ("sent_to", "rights", "residency")


def created(case: Case) -> Iterator[Broken]:
    """Find records whose creation was acknowledged and that are nowhere, though no lost disk excuses it."""
    for (entity, key), ops in case.by_record.items():
        for op in ops:
            if op.ok and op.kind in ("create", "append") and not case.final.rows(entity, key):
                if not case.excused(op):
                    yield Broken("created", f"{entity} {key}, acknowledged by {op.region}, is nowhere")
                break


def durable(case: Case) -> Iterator[Broken]:
    """Find what a region that died had acknowledged for a pair, and no other had."""
    for death in (*case.history.deaths, *case.history.losses):
        for (entity, key), ops in case.by_record.items():
            told = [op for op in ops if op.ok and _promised(case, op, death)]
            # What left the zone with its tenant may have left the other of the pair too.
            if not told or len({op.zone for op in ops}) > 1 or case.moved(entity, key, death.at_s):
                continue
            rows = list(survivors(death, entity, key))
            created = [op for op in told if op.kind in ("create", "append")]
            counted = {
                op.idempotency_key or str(op.number): op.sent["by"] for op in told if op.kind == "increment"
            }
            if created and not rows:
                yield Broken("durable", f"{entity} {key}: acknowledged by {death.region} alone when it died")
            elif sum(counted.values()) > counted_by(rows, death.region) and not any(
                r["erased"] for r in rows
            ):
                yield Broken(
                    "durable", f"user {key}: increments acknowledged by {death.region} alone when it died"
                )


def _promised(case: Case, op: Operation, death: Loss) -> bool:
    """Return whether both of a pair had to have a write when one of them died, and the other answered."""
    pair = case.final.pairs.get(op.zone, ())
    others = {region for region in pair if region != death.region}
    return (
        op.region == death.region
        and op.completed_s < death.at_s
        and len(pair) > 1
        and death.region in pair
        and others <= set(death.answered)
        and op.zone not in death.exposed
    )


def appended(case: Case) -> Iterator[Broken]:
    """Find records that are never changed and yet are not what was acknowledged."""
    for entity in (e.name for e in entities().values() if e.strategy == "append_only"):
        for key, ops in case.writes("append", entity).items():
            for region, row in case.final.rows(entity, key).items():
                wrong = [f for f, value in ops[0].sent.items() if row[f] != value]
                if wrong and not row["erased"]:
                    yield Broken("appended", f"{entity} {key} in {region}: {', '.join(wrong)} was changed")


def erased(case: Case) -> Iterator[Broken]:
    """Find records that were erased and are held anywhere, and such as are gone that nobody erased."""
    for (entity, key), ops in case.by_record.items():
        rows = case.final.rows(entity, key)
        asked = [op for op in ops if op.kind == "erase"]
        done = [op for op in asked if op.ok and not case.excused(op)]
        for region, row in rows.items():
            if done and not row["erased"]:
                yield Broken("erased", f"{entity} {key}, erased in {done[0].region}, is back in {region}")
            if row["erased"] and not asked:
                yield Broken("erased", f"{entity} {key} is erased in {region}, and nobody asked for it")


def unforeseen(case: Case) -> Iterator[Broken]:
    """Find answers that say themselves that they are a bug."""
    for op in case.history.operations:
        if op.answer.get("status") == 500 or op.answer.get("problem") in ("bad-request", "invalid-value"):
            yield Broken("unforeseen", f"{op.kind} of {op.entity} {op.key} in {op.region}: {op.answer}")


def agreement(final: Final) -> Iterator[Broken]:
    """Find records on which two regions that both may hold them differ, or that one of them lacks."""
    for entity in entities().values():
        columns = [c for c in columns_of(entity) if c not in OWN]
        keys = {key for held in final.held.values() for key in held.get(entity.name, {})}
        for key in sorted(keys):
            rows = final.rows(entity.name, key)
            tombs = {region for region, row in rows.items() if row["erased"]}
            if tombs:
                # Of a tombstone only that it is one: in which zone it was learned of is each region's own.
                if tombs != set(rows):
                    yield Broken("agreement", f"{entity.name} {key} is erased in {sorted(tombs)} only")
                continue
            # One that knows no consents goes by those that came with a record: only what all say counts here.
            named = set.intersection(*(set(row["residency"]) for row in rows.values()))
            if lacking := (named & set(final.held)) - set(rows):
                yield Broken("agreement", f"{entity.name} {key} is lacking in {sorted(lacking)}")
            if different := _different(rows, columns):
                yield Broken("agreement", f"{entity.name} {key} differs in {different} among {sorted(rows)}")


def _different(rows: dict[str, Row], columns: list[str]) -> list[str]:
    first, *others = rows.values()
    return [c for c in columns if any(other[c] != first[c] for other in others)]
