"""A report says what was missed, and its page stands alone."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from acgs2.drill.html import page
from acgs2.drill.report import Bucket, Event, Number, Phase, Report, ZoneSeen, not_run
from acgs2.drill.watch import plan_events
from acgs2.errors import RuntimeFault
from acgs2.plan import Note, Plan, Step, StepKind


def report(**changed: object) -> Report:
    series = [
        Bucket(float(n), 0 if 10 <= n < 13 else 14, 14 if 10 <= n < 13 else 0, 20.0, 60.0) for n in range(30)
    ]
    zone = ZoneSeen(
        "eu", True, 400, 42, 0, 3.1, 3.0, 0.9, 20.0, 60.0, 80.0, {"before": ["a"], "after": ["b"]}, {"write": 3.1},
        {"no-lawful-target": 42}, series,
    )  # fmt: skip
    made = Report(
        "kill",
        ["eu-west-1"],
        injected="kill eu-west-1",
        bitten="no process is left",
        expected="fails over",
        why_expected="a majority sees it",
        happened="fails over: eu to eu-central-1",
        as_expected=True,
        fault_s=10.0,
        ended_s=22.0,
        seconds=30.0,
        recovered_s=4.0,
        converged_s=0.4,
        numbers=[Number("failover", "s", 3.1, 300, True, "from the fault")],
        zones=[zone],
        phases=[
            Phase("steady state", 0, 10),
            Phase("failover", 10, 22),
            Phase("failback", 22, 30, "skipped <why>"),
        ],
        events=[
            Event(10.0, "fault", "eu-west-1", "begin: kill"),
            Event(13.0, "plan", "eu-west-1", "fence <done>"),
        ],
    )
    for name, value in changed.items():
        assert hasattr(made, name)
        setattr(made, name, value)
    return made


MISSED = {
    "numbers": [Number("p99", "ms", 150.0, 100, False, "")],
    "bitten": None,
    "as_expected": False,
    "unverified": {"eu": "no-lawful-target"},
    "recovered_s": None,
    "converged_s": None,
    "lost": ["user_profile 7, acknowledged by a, is nowhere"],
    "undelivered": ["message 7"],
    "duplicates": ["message 7"],
    "misplaced": ["us-east-1: d1.eu.user.7 in table acgs.user_profile"],
    "broken": ["agreement: user_profile 7 differs"],
}


def test_a_drill_in_which_all_was_kept_is_passed() -> None:
    assert report().missed == []
    assert report().passed
    assert report(as_expected=None).passed, "without a controller nobody says what was to happen"


@pytest.mark.parametrize("name", MISSED)
def test_whatever_was_missed_fails_the_drill_and_is_named(name: str) -> None:
    found = report(**{name: MISSED[name]})
    assert not found.passed
    assert len(found.missed) == 1
    assert found.as_dict()["missed"] == found.missed
    assert found.as_dict()["passed"] is False


def test_a_drill_that_broke_off_is_not_passed_and_says_why() -> None:
    broke = not_run("pair", "", "local", 30, RuntimeFault("not-well", "Clients are <not> served."))
    assert broke.missed == ["not carried out: not-well: Clients are <not> served."]
    assert broke.as_dict()["passed"] is False
    several = ExceptionGroup("several", [ExceptionGroup("more", [TimeoutError()])])
    assert not_run("pair", "", "local", 30, several).missed == ["not carried out: TimeoutError"]
    tags = _Tags()
    tags.feed(page([report(), broke]))
    tags.close()
    assert tags.open == []
    assert "2 drills, 1 passed" in tags.text
    assert tags.text.count(broke.missed[0]) == 2, "in the suite's table and in its own place"


def test_a_report_is_json() -> None:
    body = json.loads(json.dumps(report().as_dict()))
    assert body["zones"][0]["series"][10] == {
        "at_s": 10.0,
        "served": 0,
        "failed": 14,
        "p50_ms": 20.0,
        "p99_ms": 60.0,
    }


class _Tags(HTMLParser):
    """Balances tags and collects attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("reports", [[report()], [report(), report(fault="witness", zones=[], numbers=[])]])
def test_a_page_is_whole_and_needs_nothing_else(reports: list[Report]) -> None:
    text = page(reports)
    tags = _Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    assert "<script" not in text
    assert not [a for a in tags.attributes if a[0] in ("src", "srcset", "data")]
    there = {value for name, value in tags.attributes if name == "id"}
    assert {str(value)[1:] for name, value in tags.attributes if name == "href"} <= there
    assert not re.search(r"url\(|@import|https?://", text)
    assert "fence <done>" in tags.text, "what was said is text, not markup"
    assert tags.text.count("skipped <why>") >= 1


def test_a_plan_is_told_step_by_step_on_the_drills_clock() -> None:
    steps = (
        Step(StepKind.CONFIRM),
        Step(StepKind.FENCE),
        Step(StepKind.VERIFY, "eu", "b"),
        Step(StepKind.CLOSE),
    )
    notes = (
        Note(0, 102_000_000, "b", 3, "3 of 5 voters"),
        Note(1, 103_500_000, "b", 3),
        Note(2, 104_000_000, "b", 3, "503", good=False),
    )
    plan = Plan("p", "failover", "a", "3 failures in a row", 101_000_000, steps, at=2, notes=notes)
    found = plan_events(plan, lambda us: us / 1e6 - 90)
    assert [(e.at_s, e.what) for e in found] == [
        (11.0, "failover begun: 3 failures in a row"),
        (12.0, "failover confirm: 3 of 5 voters"),
        (13.5, "failover fence"),
        (14.0, "failover stopped at verify eu b: 503"),
    ]
    assert len({e.step for e in found}) == 4
