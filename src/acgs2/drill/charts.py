"""Charts of a drill as inline SVG: second by second, all over the same stretch of time. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from acgs2.drill.report import Bucket, Event, Phase

__all__ = ["WIDTH", "Scale", "calls", "lane", "latency"]

#: Of every chart, in its own units; the page scales them.
WIDTH = 960
_LEFT, _RIGHT = 64, 16
_SERVED, _LOST, _FAULT, _PLAN, _SEEN, _INK, _GRID = (
    "#3b7a9e", "#d1495b", "#d1495b", "#6a4c93", "#6b757e", "#333", "#ddd",
)  # fmt: skip
_BAND = "#f8dfe2"
#: Of texts: it can be read on paper too, where a chart is three quarters as wide.
_SIZE, _WIDE = 12.5, 7.0
_PHASES = ("#eef2f5", "#e2e9ee")


class Scale:
    """Where a moment is on the axis of time.

    Args:
        until_s: the end of the drill; it begins at 0.
        fault_s: when the fault began.
        ended_s: when it was ended.
    """

    def __init__(self, until_s: float, fault_s: float, ended_s: float) -> None:
        # Whole seconds: what is counted by the second has its last one within.
        self.until_s = float(max(math.ceil(until_s), 1))
        self.fault_s = fault_s
        self.ended_s = ended_s

    def x(self, at_s: float) -> float:
        """Return where a moment is."""
        share = min(max(at_s / self.until_s, 0.0), 1.0)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def ground(self, top: float, bottom: float) -> str:
        """Return what lies behind a chart: the fault as a band."""
        a, b = self.x(self.fault_s), self.x(self.ended_s)
        band = f'<rect x="{a}" y="{top}" width="{b - a:.1f}" height="{bottom - top}" fill="{_FAULT}"/>'
        return f'<g opacity="0.09">{band}</g>' + "".join(
            f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="{_FAULT}" stroke-dasharray="{dash}"/>'
            for x, dash in ((a, "none"), (b, "4 3"))
        )

    def axis(self, y: float) -> str:
        """Return the axis of time, in seconds."""
        step = next(s for s in (1, 2, 5, 10, 20, 30, 60, 120, 300) if self.until_s / s <= 16 or s == 300)
        ticks = range(0, int(self.until_s) + 1, step)
        return "".join(
            _text(self.x(at), y + 15, f"{at} s" if at == ticks[-1] else str(at), anchor="middle")
            for at in ticks
        )


def _text(
    x: float, y: float, what: str, *, anchor: str = "start", size: float = _SIZE, fill: str = _INK
) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" fill="{fill}">{escape(what)}</text>'
    )


def _heading(title: str, legend: Sequence[tuple[str, str]], ground: str) -> str:
    """Return a chart's title, what its colours mean at the right, and below what lies behind it."""
    parts, x = [ground, _text(_LEFT, 13, title)], float(WIDTH - _RIGHT)
    for fill, what in (*reversed(legend), (_BAND, "the fault lasts")):
        x -= len(what) * _WIDE
        parts.append(_text(x, 13, what))
        parts.append(f'<rect x="{x - 15:.1f}" y="3.5" width="10" height="10" fill="{fill}"/>')
        x -= 30
    return "".join(parts)


def _svg(height: float, title: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def _grid(top: float, bottom: float, most: float, unit: str, values: Sequence[float]) -> str:
    lines: list[str] = []
    for value in values:
        y = round(bottom - (bottom - top) * value / most, 1)
        lines.append(f'<line x1="{_LEFT}" y1="{y}" x2="{WIDTH - _RIGHT}" y2="{y}" stroke="{_GRID}"/>')
        lines.append(_text(_LEFT - 6, y + 4, f"{value:g}{unit}", anchor="end"))
    return "".join(lines)


def _nice(most: float) -> float:
    """Return a round number that is not less."""
    if most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(f * power for f in (1, 2, 5, 10) if f * power >= most)


def calls(zone: str, series: Sequence[Bucket], scale: Scale) -> str:
    """Return how many calls of a zone began in each second: those that were served, and on top the others."""
    top, bottom = 22.0, 112.0
    most = _nice(max((b.served + b.failed for b in series), default=1))
    wide = max(1.0, scale.x(1.0) - scale.x(0.0) - 1)
    bars: list[str] = []
    for bucket in series:
        y = bottom
        for count, fill in ((bucket.served, _SERVED), (bucket.failed, _LOST)):
            height = (bottom - top) * count / most
            y -= height
            if count:
                bars.append(
                    f'<rect x="{scale.x(bucket.at_s)}" y="{y:.1f}" width="{wide:.1f}" height="{height:.1f}"'
                    f' fill="{fill}"/>'
                )
    title = f"{zone}: calls a second"
    body = _heading(title, ((_SERVED, "served in time"), (_LOST, "not served")), scale.ground(top, bottom))
    body += _grid(top, bottom, most, "", (0, most / 2, most)) + "".join(bars) + scale.axis(bottom)
    return _svg(132, title, body)


def latency(zone: str, series: Sequence[Bucket], scale: Scale, objective_ms: float) -> str:
    """Return how long calls of a zone took in each second: p50 and p99 on a scale of powers of ten."""
    top, bottom = 22.0, 122.0
    least, most = 1.0, 10_000.0

    def y(ms: float) -> float:
        share = math.log10(min(max(ms, least), most) / least) / math.log10(most / least)
        return round(bottom - (bottom - top) * share, 1)

    def line(values: Sequence[tuple[float, float]], stroke: str, width: float) -> str:
        # A second without an answer has no time: the line is broken there.
        runs: list[list[str]] = [[]]
        for at_s, ms in values:
            if ms:
                runs[-1].append(f"{scale.x(at_s + 0.5)},{y(ms)}")
            elif runs[-1]:
                runs.append([])
        return "".join(
            f'<polyline points="{" ".join(run)}" fill="none" stroke="{stroke}" stroke-width="{width}"'
            ' stroke-linejoin="round" stroke-linecap="round"/>'
            for run in runs
            if run
        )

    grid = "".join(
        f'<line x1="{_LEFT}" y1="{y(ms)}" x2="{WIDTH - _RIGHT}" y2="{y(ms)}" stroke="{_GRID}"/>'
        + _text(_LEFT - 6, y(ms) + 4, f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s", anchor="end")
        for ms in (1.0, 10.0, 100.0, 1000.0, 10_000.0)
    )
    goal = (
        f'<line x1="{_LEFT}" y1="{y(objective_ms)}" x2="{WIDTH - _RIGHT}" y2="{y(objective_ms)}"'
        f' stroke="{_PLAN}" stroke-dasharray="2 4"/>'
    )
    title = f"{zone}: how long calls took that were served: p50 thin, p99 thick"
    body = _heading(title, ((_PLAN, f"the objective of {objective_ms:g} ms"),), scale.ground(top, bottom))
    body += grid + goal
    body += line([(b.at_s, b.p50_ms) for b in series], _SERVED, 1.2)
    body += line([(b.at_s, b.p99_ms) for b in series], _SERVED, 2.4) + scale.axis(bottom)
    return _svg(142, title, body)


def lane(phases: Sequence[Phase], events: Sequence[Event], scale: Scale) -> str:
    """Return the phases as a band, and the events as numbered marks; numbers are places in the sequence."""
    top = 18.0
    parts: list[str] = []
    for number, phase in enumerate(each for each in phases if each.began_s < scale.until_s):
        a, b = scale.x(phase.began_s), scale.x(phase.ended_s)
        parts.append(
            f'<rect x="{a}" y="{top}" width="{max(b - a, 1):.1f}" height="20" fill="{_PHASES[number % 2]}"/>'
        )
        if b - a > len(phase.name) * _WIDE:
            parts.append(_text((a + b) / 2, top + 14, phase.name, anchor="middle"))
    rows: list[float] = []
    for number, event in enumerate(events, 1):
        x = scale.x(event.at_s)
        row = next((r for r, taken in enumerate(rows) if taken + 17 <= x), len(rows))
        rows[row : row + 1] = [x]
        y = top + 34 + row * 18
        fill = {"fault": _FAULT, "plan": _PLAN}.get(event.kind, _SEEN)
        parts.append(f'<line x1="{x}" y1="{top + 20}" x2="{x}" y2="{y}" stroke="{fill}" stroke-width="0.7"/>')
        parts.append(f'<circle cx="{x}" cy="{y}" r="8" fill="{fill}"/>')
        parts.append(_text(x, y + 3.5, str(number), anchor="middle", size=9, fill="#fff"))
    bottom = top + 46 + 18 * max(len(rows) - 1, 0)
    title = "Phases, and what happened when: numbers as in the list below"
    marks = ((_FAULT, "fault"), (_PLAN, "plan"), (_SEEN, "seen"))
    body = _heading(title, marks, scale.ground(top, bottom)) + "".join(parts) + scale.axis(bottom)
    return _svg(bottom + 18, title, body)
