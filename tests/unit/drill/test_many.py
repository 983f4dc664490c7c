"""The tables of many drills, from lines whose numbers are known."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from acgs2.drill.report import Number, Report, ZoneSeen, not_run

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the benchmark that makes them; benchmarks are no part of the package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import failover_table  # pyright: ignore[reportMissingImports]

    return failover_table


def report(
    served_s: float | None, *, failed: int = 0, lost: int = 0, detected_s: float | None = 3.0
) -> Report:
    zones = [
        ZoneSeen(
            name, lawful, 100, count, 1, 0.0, 1.5, 0.9, 20.0, p99_ms, 80.0, {"before": [], "after": []}, {},
            {"no-lawful-target": count, "late": 1}, during_p99_ms=900.0,
        )
        for name, lawful, count, p99_ms in (("eu", False, 40, 60.0), ("us", True, failed, 70.0))
    ]  # fmt: skip
    return Report(
        "pair",
        ["a", "b"],
        bitten="it is gone",
        as_expected=True,
        detection_s=detected_s,
        failover_s=served_s,
        steps_s={"fence": 4.0, "verify": 6.0} if detected_s else {},
        zones=zones,
        lost=["user 7"] * lost,
        numbers=[Number("p99", "ms", 150.0 + lost, 100, False, "")],
        acknowledged_writes=10,
        acknowledged_messages=5,
        converged_s=0.1,
    )


def row_of(text: str, begins: str) -> list[str]:
    """Return the cells of the first line of a table that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {begins} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_the_law_stops_is_no_failure_and_late_is_told_once(tables: ModuleType) -> None:
    row = tables.numbers_of("pair", report(5.0, failed=2))
    assert json.loads(json.dumps(row)) == row
    assert (row["calls"], row["failed"], row["stopped_by_law"]) == (100, 2, 40)
    assert row["problems"] == {"no-lawful-target": 2}
    assert row["p99_ms"] == 70.0


def test_percentiles_are_over_runs_and_whatever_went_wrong_is_named(tables: ModuleType) -> None:
    rows = [tables.numbers_of("pair", report(float(n), lost=n == 3)) for n in range(1, 4)]
    rows.append(tables.numbers_of("pair", report(None)))
    rows.append(tables.numbers_of("pair", not_run("pair", "", "local", 30, TimeoutError("too slow"))))
    rows.append(tables.numbers_of(f"kill{tables.NO_PLANS}", report(9.0, detected_s=None)))
    text = tables.show(rows)
    assert row_of(text, "pair")[1:5] == ["5", "4", "3.0 / 3.0", "2.0 / 3.0, 1 never"]
    assert row_of(text, "kill, no plans")[3:5] == ["-", "9.0 / 9.0"]
    assert row_of(text, "all")[1:3] == ["75", "1"], "the one that broke off acknowledged nothing that counts"
    assert "- pair: 1 of 5 broke off: TimeoutError: too slow" in text
    assert "- pair: 4 of 5 missed the objective of p99" in text
    assert "lost: user 7" in text


def test_a_line_that_was_cut_off_is_left_out(tables: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    assert tables.read(path) == []
    path.write_text('{"fault": "kill"}\n{"fault": "ki', encoding="utf-8")
    assert tables.read(path) == [{"fault": "kill"}]
