"""Whether acts on rights stayed in force, and whether any byte of a record is where it may not be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime

from acgs2.drill.checks.base import Broken, Case
from acgs2.drill.plan import TOKEN
from acgs2.drill.states import Final, register_from
from acgs2.model import entities
from acgs2.model.entity import Residency
from acgs2.residency import Consent, decide

__all__ = ["acts", "holders_of", "misheld", "residency"]


def acts(case: Case) -> Iterator[Broken]:
    """Find transfers, consents and moves that are not as the last acknowledged act left them."""
    yield from _consents(case)
    registered = {row["note"]: row for held in case.final.held.values() for row in held["transfer"].values()}
    for kind in ("register", "revoke"):
        for note, ops in case.writes(kind, "transfer").items():
            done = [op for op in ops if op.ok and not case.excused(op)]
            if done and note not in registered:
                yield Broken("acts", f"{note}, acknowledged by {done[0].region}, is nowhere")
            elif done and kind == "revoke" and registered[note]["revoked"] is None:
                yield Broken("acts", f"{note}, revoked in {done[0].region}, is in force")
    for key, ops in case.writes("move", "tenant").items():
        for op in ops:
            if op.ok and all(case.precedes(o, op) for o in ops if o is not op) and not case.excused(op):
                zones = {row["zone"] for row in case.final.rows("tenant", key).values() if not row["erased"]}
                if zones != {op.sent["to_zone"]}:
                    yield Broken(
                        "acts", f"tenant {key} was moved to {op.sent['to_zone']} and is in {sorted(zones)}"
                    )


def _consents(case: Case) -> Iterator[Broken]:
    given = _given(case.final)
    for (entity, person), ops in case.by_record.items():
        if entity != "consent" or case.writes_of("user_profile", person, "erase"):
            continue
        for op in ops:
            others = [o for o in ops if o.kind != op.kind]
            if not op.ok or case.excused(op) or not all(case.precedes(o, op) for o in others):
                continue
            if (op.sent["to_region"] in given.get(person, ())) is not (op.kind == "grant"):
                yield Broken(
                    "acts", f"{op.kind} of consent by {person}, acknowledged by {op.region}, is not in force"
                )


def residency(case: Case) -> Iterator[Broken]:
    """Find texts of records in any table of a region that may not hold them; of erased records, anywhere."""
    names: dict[str, tuple[str, str]] = {}
    for op in case.history.operations:
        for text in op.sent.values():
            for name in re.findall(TOKEN, str(text)):
                names[name] = (op.entity, op.key)
    holders = holders_of(case.final)
    for region, traces in case.final.traces.items():
        for name, tables in traces.items():
            entity, key = names.get(name, ("", ""))
            if not entity:
                yield Broken("residency", f"{region} has a text of {name}, which nobody wrote, in {tables}")
            elif region not in holders.get((entity, key), ()):
                may = sorted(holders.get((entity, key), ()))
                yield Broken(
                    "residency", f"{region} has a text of {name} ({key}) in {tables}; may be held in {may}"
                )


def misheld(final: Final) -> Iterator[Broken]:
    """Find records that a region holds and may not, or may and does not, by the register and consents."""
    for (entity, key), may in holders_of(final).items():
        held = {region for region, row in final.rows(entity, key).items() if not row["erased"]}
        if held and held != may:
            yield Broken("misheld", f"{entity} {key} is held in {sorted(held)}, may be held in {sorted(may)}")


def holders_of(final: Final) -> Mapping[tuple[str, str], set[str]]:
    """Return who may hold each record by register, consents and the pure decision; the erased, nobody."""
    found: dict[tuple[str, str], set[str]] = {}
    if not final.held:
        return found
    register = register_from(next(iter(final.held.values())), frozenset(final.held))
    now, given = datetime.fromisoformat(final.at), _given(final)
    decided = {
        (e.name, zone): decide(e.name, zone, register, now)
        for e in entities().values()
        for zone in register.zones
    }
    for entity in entities().values():
        if entity.residency is not Residency.ZONE:
            continue
        for held in final.held.values():
            for key, row in held[entity.name].items():
                if row["erased"]:
                    found[entity.name, key] = set()
                    continue
                subject = str(row[entity.subject]) if entity.subject else ""
                decision = decided.get((entity.name, row["zone"]))
                may = set(decision.holders(given.get(subject, set()))) if decision else set()
                found.setdefault((entity.name, key), may)
    return found


def _given(final: Final) -> dict[str, set[str]]:
    """Return to which regions each person consents, from what all regions know together."""
    states: dict[tuple[str, str], Consent] = {}
    for held in final.held.values():
        for row in held.get("consent", {}).values():
            if row["erased"]:
                continue
            withdrawals = {o: s[1] for o, s in ((row["meta"] or {}).get("withdrawals") or {}).items()}
            state = Consent(withdrawals, row["grants"] or {})
            place = (row["subject_id"], row["to_region"])
            states[place] = states[place].merge(state) if place in states else state
    given: dict[str, set[str]] = {}
    for (person, to), state in states.items():
        if state.given:
            given.setdefault(person, set()).add(to)
    return given
