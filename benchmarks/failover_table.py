"""The numbers of drills over many runs: one line per run, and tables of many lines. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from acgs2.drill.report import Report, ZoneSeen
from acgs2.local.latency import spread

__all__ = ["NO_PLANS", "Row", "numbers_of", "read", "show"]

#: One run, as a line of the file has it.
Row = dict[str, Any]
#: What the name of a fault ends with where it was drilled with failover.automatic: false.
NO_PLANS = ", no plans"
#: Of the guide: what is missed of them is counted, of all else each is told.
NUMBERS = ("p99", "lag", "failover", "residency", "availability")
#: The budget of the design after each step, in seconds since the fault. The lease is waited for only where a
#: database is promoted.
BUDGET = (("plan begun", 3), ("fenced", 6), ("inboxes elsewhere", 8), ("zones verified", 9))


def numbers_of(name: str, report: Report) -> Row:
    """Return what of a report a table is made of; `name` is that of its row."""
    row: Row = {"fault": name, "began_at": report.began_at, "raised": report.raised}
    if report.raised:
        return row
    served = [zone for zone in report.zones if zone.lawful]
    stopped = [zone for zone in report.zones if not zone.lawful]

    problems = sum((Counter(zone.problems) for zone in served), Counter[str]())
    problems.pop("late", None)  # of deliveries; they are among those that were late

    def slowest(of: Callable[[ZoneSeen], float]) -> float:
        return max(map(of, report.zones), default=0.0)

    return row | {
        "regions": report.regions,
        "bitten": report.bitten,
        "as_expected": report.as_expected,
        "missed": report.missed,
        "detected_s": report.detection_s,
        "steps_s": report.steps_s,
        "served_s": report.failover_s,
        "outage_s": max((zone.outage_s for zone in served), default=0.0),
        "recovered_s": report.recovered_s,
        "failback_s": report.failback_s,
        "calls": sum(zone.calls for zone in served),
        "failed": sum(zone.failed for zone in served),
        "late": sum(zone.late for zone in served),
        "problems": dict(problems),
        "stopped_by_law": sum(zone.failed for zone in stopped),
        "p99_ms": slowest(lambda zone: zone.p99_ms),
        "during_p99_ms": slowest(lambda zone: zone.during_p99_ms),
        "after_p99_ms": slowest(lambda zone: zone.after_p99_ms),
        "acknowledged": report.acknowledged_writes + report.acknowledged_messages,
        "lost": len(report.lost),
        "undelivered": len(report.undelivered),
        "duplicates": len(report.duplicates),
        "canaries": report.canaries,
        "misplaced": len(report.misplaced),
        "broken": report.broken,
        "swept_bytes": report.swept_bytes,
        "phases_s": {phase.name: round(phase.ended_s - phase.began_s, 1) for phase in report.phases},
    }


def read(path: Path) -> list[Row]:
    """Return the runs in a file; a last line that was cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def show(rows: Sequence[Row]) -> str:
    """Return the tables: when service was back, what clients saw, what was kept, and where the time went."""
    names = list(dict.fromkeys(row["fault"] for row in rows))
    names.sort(key=lambda name: name.endswith(NO_PLANS))
    runs = {name: [row for row in rows if row["fault"] == name] for name in names}
    done = {name: [row for row in of if not row["raised"]] for name, of in runs.items()}
    tables = [_times(runs), _calls(done), _kept(done), _parts(done)]
    return "\n\n".join(tables + _remarks(runs)) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head, *lines = ["| " + " | ".join(map(str, line)) + " |" for line in (columns, *rows)]
    return "\n".join([head, "|---" * len(columns) + "|", *lines])


def _both(values: Iterable[float | None], digits: int = 1, least: int = 1) -> str:
    """Return p50 and p99; a dash where fewer than `least` runs have the value."""
    found = [value for value in values if value is not None]
    if len(found) < least:
        return "-"
    cuts = spread(found)
    return f"{cuts.p50_ms:.{digits}f} / {cuts.p99_ms:.{digits}f}"


def _times(runs: dict[str, list[Row]]) -> str:
    rows: list[list[object]] = []
    for name, of in runs.items():
        done = [row for row in of if not row["raised"]]
        never = sum(row["served_s"] is None for row in done)
        served = _both(row["served_s"] for row in done)
        rows.append(
            [
                name,
                len(of),
                sum(row["as_expected"] is not False and bool(row["bitten"]) for row in done),
                _both(row["detected_s"] for row in done),
                f"{served}, {never} never" if never else served,
                _both(row["outage_s"] for row in done),
                _both(row["recovered_s"] for row in done),
                _both(row["failback_s"] for row in done),
            ]
        )
    columns = ["fault", "runs", "as expected", "detected s", "all zones served s", "lost s"]
    return _table([*columns, "all regions ready s", "all shares back s"], rows)


def _calls(done: dict[str, list[Row]]) -> str:
    rows: list[list[object]] = []
    for name, of in done.items():
        problems = sum((Counter(row["problems"]) for row in of), Counter[str]())
        rows.append(
            [
                name,
                sum(row["calls"] for row in of),
                sum(row["failed"] for row in of),
                sum(row["late"] for row in of),
                ", ".join(f"{count} {what}" for what, count in problems.most_common()) or "-",
                *(_both((row[key] for row in of), 0) for key in ("p99_ms", "during_p99_ms", "after_p99_ms")),
            ]
        )
    columns = ["fault", "calls", "failed", "late", "problems", "p99 before ms", "while it lasts ms"]
    return _table([*columns, "once served ms"], rows)


def _kept(done: dict[str, list[Row]]) -> str:
    keys = ("acknowledged", "lost", "undelivered", "duplicates", "canaries", "misplaced")
    rows = [[name, *(sum(row[key] for row in of) for key in keys)] for name, of in done.items()]
    total = ["all", *(sum(row[key] for of in done.values() for row in of) for key in keys)]
    columns = ["fault", "acknowledged", "lost", "not delivered", "doubled", "texts", "misplaced"]
    return _table(columns, [*rows, total])


def _parts(done: dict[str, list[Row]]) -> str:
    """Return how far plans were when, beside the budget; faults without plans are left out."""
    rows: list[list[object]] = [["budget", *(limit_s for _, limit_s in BUDGET), "", ""]]
    for name, of in done.items():
        if not any(row["detected_s"] is not None for row in of):
            continue
        steps = [row["steps_s"] for row in of]
        rows.append(
            [
                name,
                _both(row["detected_s"] for row in of),
                *(
                    _both(each.get(kind) for each in steps)
                    for kind in ("fence", "inboxes", "verify", "close")
                ),
                _both(sum(row["phases_s"].values()) for row in of),
            ]
        )
    columns = [f"{what} s" for what, _ in BUDGET]
    return _table(["seconds after the fault", *columns, "plan closed s", "whole drill s"], rows)


def _remarks(runs: dict[str, list[Row]]) -> list[str]:
    """Return what was not as it should be: drills that broke off, objectives missed, promises not kept."""
    found: list[str] = []
    for name, of in runs.items():
        told = Counter(f"broke off: {row['raised']}" for row in of if row["raised"])
        kinds = [what.partition(":")[0] for row in of for what in row.get("missed", ())]
        told.update(f"missed the objective of {kind}" for kind in kinds if kind in NUMBERS)
        found += [f"- {name}: {count} of {len(of)} {what}" for what, count in told.items()]
        for row in of:
            others = [what for what in row.get("missed", ()) if what.partition(":")[0] not in NUMBERS]
            found += [f"- {name}, {row['began_at']}: {what}" for what in others]
    return ["\n".join(found)] if found else []
