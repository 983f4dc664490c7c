"""From what a hosted zone says to what it shall say, in atomic batches whose order is safe. Pure.

A zone's names change in one batch, so that no alias ever leads to nothing and a region that may no longer
serve the zone leaves together with the coming of those that may. Zones that a region leaves come first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from acgs2.drivers.dns.values import Check, RecordSet, level_of

__all__ = ["Batch", "Change", "CheckChanges", "Held", "batches", "check_changes"]

#: What one request takes: elements and characters of values, each counted twice where it replaces.
MAX_ELEMENTS, MAX_CHARACTERS = 1000, 32_000


@dataclass(frozen=True, slots=True)
class Change:
    """One record set that is put in place (`UPSERT`) or taken away (`DELETE`)."""

    action: Literal["UPSERT", "DELETE"]
    record: RecordSet

    @property
    def elements(self) -> int:
        """Return how many elements it counts for; an alias has none, and is counted as if it had one."""
        return max(1, len(self.record.values)) * self._times

    @property
    def characters(self) -> int:
        """Return how many characters its values count for."""
        return sum(len(value) for value in self.record.values) * self._times

    @property
    def _times(self) -> int:
        return 2 if self.action == "UPSERT" else 1

    def __str__(self) -> str:
        """Return it as a line."""
        record = self.record
        how = f"latency {record.region}" if record.region else f"weight {record.weight}"
        return f"{self.action} {record.name} {record.type} {record.set_id}: {how} -> {record.target}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that are carried out all or none; `label` is the zone's."""

    label: str
    changes: tuple[Change, ...]


def batches(
    current: Iterable[RecordSet],
    wanted: Iterable[RecordSet],
    domain: str,
    *,
    max_elements: int = MAX_ELEMENTS,
    max_characters: int = MAX_CHARACTERS,
) -> list[Batch]:
    """Return what makes record sets of ours the wanted ones; nothing where they are already.

    A zone whose changes do not fit in one request is split between names, never within one: level two first,
    where a region leaves before all, then level one, then what nothing leads to any more.
    """
    old, new = {r.key: r for r in current}, {r.key: r for r in wanted}
    changes = [Change("UPSERT", r) for key, r in new.items() if old.get(key) != r]
    changes += [Change("DELETE", r) for key, r in old.items() if key not in new]
    staying = {(_label(r, domain), r.set_id) for r in new.values() if _level(r, domain) == 2}
    leaving: dict[Change, bool] = {
        c: c.action == "DELETE"
        and _level(c.record, domain) == 2
        and (_label(c.record, domain), c.record.set_id) not in staying
        for c in changes
    }
    found: list[tuple[bool, Batch]] = []
    changes.sort(key=lambda c: (_label(c.record, domain), *c.record.key))
    for label, of_label in groupby(changes, key=lambda c: _label(c.record, domain)):
        whole = list(of_label)
        for part in _split(
            whole, {r.name for r in new.values()}, leaving, domain, max_elements, max_characters
        ):
            batch = Batch(label, tuple(sorted(part, key=lambda c: _within(c, domain))))
            found.append((not any(leaving[c] for c in whole), batch))
    return [batch for _, batch in sorted(found, key=lambda pair: pair[0])]


def _split(
    changes: Sequence[Change],
    names: set[str],
    leaving: dict[Change, bool],
    domain: str,
    max_elements: int,
    max_characters: int,
) -> list[list[Change]]:
    by_name = {name: list(of) for name, of in groupby(changes, key=lambda c: c.record.name)}

    def rank(name: str) -> tuple[int, bool, str]:
        first_level = _level(by_name[name][0].record, domain) == 1
        phase = 1 if first_level else 0 if name in names else 2
        return phase, not any(leaving[c] for c in by_name[name]), name

    parts: list[list[Change]] = [[]]
    for name in sorted(by_name, key=rank):
        together = parts[-1] + by_name[name]
        fits = sum(c.elements for c in together) <= max_elements
        if fits and sum(c.characters for c in together) <= max_characters:
            parts[-1] = together
        else:
            parts.append(by_name[name])
    return [part for part in parts if part]


def _within(change: Change, domain: str) -> tuple[int, tuple[str, str, str]]:
    """Order a batch as Route 53 checks it: aliases go before what they lead to, and come after it."""
    first = _level(change.record, domain) == 1
    rank = (0 if first else 1) if change.action == "DELETE" else (3 if first else 2)
    return rank, change.record.key


def _label(record: RecordSet, domain: str) -> str:
    place = level_of(record.name, domain)
    return place[0] if place else ""


def _level(record: RecordSet, domain: str) -> int:
    place = level_of(record.name, domain)
    return place[1] if place else 0


@dataclass(frozen=True, slots=True)
class Held:
    """A health check of ours as Route 53 has it; `plain` is false where somebody inverted or disabled it."""

    id: str
    check: Check
    plain: bool = True


@dataclass(frozen=True, slots=True)
class CheckChanges:
    """What makes health checks the wanted ones: by region those that stay, by id what goes."""

    kept: dict[str, str]
    create: tuple[Check, ...]
    update: tuple[tuple[str, Check], ...]
    drop: tuple[str, ...]


def check_changes(held: Iterable[Held], wanted: Iterable[Check]) -> CheckChanges:
    """Return what makes health checks the wanted ones.

    Route 53 cannot change a check's interval: such a check is replaced, records turn to the new one, and
    only then the old one goes.
    """
    having = sorted(held, key=lambda h: h.id)
    kept: dict[str, str] = {}
    create: list[Check] = []
    update: list[tuple[str, Check]] = []
    for check in wanted:
        fitting = [h for h in having if h.check.fqdn == check.fqdn and h.check.interval_s == check.interval_s]
        fitting.sort(key=lambda h: (h.check != check or not h.plain, h.id))
        if not fitting:
            create.append(check)
            continue
        kept[check.region] = fitting[0].id
        if fitting[0].check != check or not fitting[0].plain:
            update.append((fitting[0].id, check))
    staying = set(kept.values())
    return CheckChanges(
        kept, tuple(create), tuple(update), tuple(h.id for h in having if h.id not in staying)
    )
