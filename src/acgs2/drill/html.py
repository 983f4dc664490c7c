"""A drill, or several, as one page that needs nothing else: no script, no other file, no network. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from acgs2.drill import charts
from acgs2.drill.report import Number, Report

__all__ = ["page"]


def page(reports: Sequence[Report]) -> str:
    """Return the page."""
    passed = all(report.passed for report in reports)
    well = sum(report.passed for report in reports)
    several = f"{len(reports)} drills, {well} passed"
    title = f"Drill: {_name(reports[0])}" if len(reports) == 1 else several
    first = next((report for report in reports if report.began_at), reports[0])
    intro = f"topology {first.topology}, {first.rate_per_s:g} calls a second, {first.began_at}"
    css = files("acgs2.drill").joinpath("page.css").read_text(encoding="utf-8")
    alone = len(reports) == 1
    body = "".join(_drill(report, n, alone=alone) for n, report in enumerate(reports, 1))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{css}</style></head><body>"
        f'<h1>{escape(title)} <span class="verdict {_kind(passed)}">{_word(passed)}</span></h1>'
        f'<p class="soft">{escape(intro)}</p>'
        f"{_suite(reports) if len(reports) > 1 else ''}{body}</body></html>\n"
    )


def _name(report: Report) -> str:
    return f"{report.fault} {' and '.join(report.regions)}".strip()


def _word(passed: bool) -> str:
    return "passed" if passed else "not passed"


def _kind(good: bool) -> str:
    return "good" if good else "bad"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, short: bool = False) -> str:
    """Return a table of cells that are HTML; a column whose name ends in # has numbers.

    A short one is not torn apart where a page ends.
    """
    classes = [' class="n"' if name.endswith("#") else "" for name in columns]
    head = "".join(
        f"<th{c}>{escape(name.removesuffix('#'))}</th>" for c, name in zip(classes, columns, strict=True)
    )
    lines = "".join(
        "<tr>" + "".join(f"<td{c}>{cell}</td>" for c, cell in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    kind = "wide" + (" many" if len(columns) > 6 else "") + (" short" if short else "")
    return f'<div class="{kind}"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _names(names: Iterable[str]) -> str:
    """Return names of which none is broken at its hyphens."""
    return ", ".join(f'<span class="name">{escape(name)}</span>' for name in names)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _suite(reports: Sequence[Report]) -> str:
    columns = (
        "fault",
        "",
        "to",
        "expected",
        "happened",
        "detected s#",
        "failed over s#",
        "lost s#",
        "returned s#",
    )
    rows = [
        (
            f'<a class="name" href="#drill-{n}">{escape(r.fault)}</a>',
            f'<span class="name {_kind(r.passed)}">{_word(r.passed)}</span>',
            _names(r.regions),
            escape(r.expected),
            escape(r.missed[0] if r.raised else r.happened),
            _seconds(r.detection_s),
            _seconds(r.failover_s),
            _seconds(None if r.raised else max((z.outage_s for z in r.zones if z.lawful), default=0.0)),
            _seconds(r.failback_s),
        )
        for n, r in enumerate(reports, 1)
    ]
    return f'<section class="suite">{_table(columns, rows, short=True)}</section>'


def _drill(report: Report, number: int, *, alone: bool) -> str:
    head = "" if alone else f"<h2>{escape(_name(report))}</h2>"
    begin = f'<section class="drill" id="drill-{number}">{head}'
    missed = "".join(f'<li class="bad">{escape(what)}</li>' for what in report.missed)
    if report.raised:
        return f"{begin}<ul>{missed}</ul></section>"
    scale = charts.Scale(report.seconds, report.fault_s, report.ended_s)
    objective_ms = next((n.objective for n in report.numbers if n.name == "p99"), 100.0)
    zones = "".join(
        f'<div class="wide zone">{charts.calls(z.zone, z.series, scale)}'
        f"{charts.latency(z.zone, z.series, scale, objective_ms)}</div>"
        for z in report.zones
    )
    return (
        f'{begin}<div class="tiles">{"".join(map(_tile, report.numbers))}</div>'
        f"{f'<ul>{missed}</ul>' if missed else ''}{_story(report)}"
        f"<h3>What clients saw</h3>{_zones(report)}{zones}"
        f'<h3>When</h3><div class="wide">{charts.lane(report.phases, report.events, scale)}</div>'
        f"{_events(report)}"
        f"<h3>What was kept</h3>{_proof(report)}"
        f"<h3>How far regions were behind, before the fault</h3>{_lag(report)}"
        f"<h3>Phases</h3>{_phases(report)}</section>"
    )


def _tile(number: Number) -> str:
    value = "not measured" if number.value is None else f"{number.value:.7g} {number.unit}".strip()
    objective = f"objective {number.objective:g} {number.unit}".strip()
    mark, kind = ("kept", "kept") if number.kept else ("MISSED", "missed")
    return (
        f'<div class="tile {kind}">{escape(number.name)}<b>{escape(value)}</b>'
        f"{mark}, {escape(objective)}<small>{escape(number.how)}</small></div>"
    )


def _story(report: Report) -> str:
    rows = [
        ("Injected", report.injected),
        ("It bit, for", report.bitten or "that is not known"),
        ("Expected", f"{report.expected}: {report.why_expected}"),
        ("Happened", report.happened),
        ("Why", report.why_happened),
        ("Detected", "-" if report.detection_s is None else f"{report.detection_s:g} s after the fault"),
        (
            "Recovered",
            "-" if report.recovered_s is None else f"{report.recovered_s:g} s after the fault ended",
        ),
        ("Failback", report.phases_said("failback")),
    ]
    return "<dl>" + "".join(f"<dt>{escape(n)}</dt><dd>{escape(v)}</dd>" for n, v in rows if v) + "</dl>"


def _after(seconds: float) -> str:
    """Return how long after the fault it was; what was before it has no such time."""
    return f"{max(seconds, 0.0):.1f}" if seconds > -0.05 else ""


def _events(report: Report) -> str:
    rows = [
        (str(n), f"{e.at_s:.1f}", _after(e.at_s - report.fault_s), escape(e.kind), escape(e.what))
        for n, e in enumerate(report.events, 1)
    ]
    return _table(("#", "at s#", "after fault s#", "", "what"), rows)


def _zones(report: Report) -> str:
    columns = (
        "zone",
        "calls#",
        "failed#",
        "late#",
        "back after s#",
        "lost s#",
        "p50 ms#",
        "p99 ms#",
        "then p99 ms#",
    )
    rows = [
        (
            escape(z.zone),
            str(z.calls),
            str(z.failed),
            str(z.late),
            ("never" if z.restored_s is None else f"{z.restored_s:.1f}")
            + ("" if z.lawful else ", no lawful region"),
            f"{z.outage_s:.1f}",
            f"{z.p50_ms:.0f}",
            f"{z.p99_ms:.0f}",
            f"{z.after_p99_ms:.0f}",
            _names(z.regions["before"]),
            _names(z.regions["after"]),
            escape(", ".join(f"{count} {what}" for what, count in z.problems.items())),
        )
        for z in report.zones
    ]
    return _table((*columns, "answered before", "and after", "problems"), rows, short=True)


def _proof(report: Report) -> str:
    converged = "never" if report.converged_s is None else f"{report.converged_s:g} s after the last call"
    rows = [
        ("Writes acknowledged", str(report.acknowledged_writes)),
        ("Messages acknowledged", str(report.acknowledged_messages)),
        ("Lost", _listed(report.lost)),
        ("Not delivered", _listed(report.undelivered)),
        ("Shown more than once", _listed(report.duplicates)),
        ("Repeats told by their id", str(report.repeats)),
        ("Regions agreed", converged),
        (
            "Texts looked for",
            f"{report.canaries}, in every table and {report.swept_bytes / 1e6:.0f} MB of files",
        ),
        ("Found where they may be", str(report.canaries_found)),
        ("Found where they may not", _listed(report.misplaced)),
        ("Other promises broken", _listed(report.broken)),
    ]
    return (
        "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(what)}</dd>" for name, what in rows) + "</dl>"
    )


def _listed(items: Sequence[str]) -> str:
    return f"{len(items)}: {'; '.join(items[:20])}" if items else "0"


def _lag(report: Report) -> str:
    rows = [
        (
            _names([row["from"]]),
            _names([row["to"]]),
            f"{row['link_ms']:.1f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
            str(row["samples"]),
        )
        for row in report.lag
    ]
    return _table(("from", "to", "link ms#", "p50 ms#", "p99 ms#", "samples#"), rows)


def _phases(report: Report) -> str:
    rows = [
        (escape(p.name), f"{p.began_s:.1f}", f"{p.ended_s - p.began_s:.1f}", escape(p.said))
        for p in report.phases
    ]
    return _table(("phase", "from s#", "lasted s#", "what came of it"), rows, short=True)
