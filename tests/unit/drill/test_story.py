"""When a region has its traffic back, and what is said where it has not. Plans as they are carried out."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from acgs2.api.tokens import create_keys
from acgs2.drill.outages import outage
from acgs2.drill.report import Report
from acgs2.drill.story import given_up, happened, returned, told, where
from acgs2.drill.watch import Watch
from acgs2.local.state import State
from acgs2.plan import Agreed, Circumstances, Note, Plan, failback, failover, judge
from acgs2.plan.rights import rights_of
from acgs2.topology import load

LOCAL = load("local")
WEST = "eu-west-1"


def carried(agreed: Agreed, upto: int | None = None) -> Agreed:
    """Every step done, or so many of them."""
    done = 0
    while WEST in agreed.plans and (upto is None or done < upto):
        plan = agreed.plans[WEST]
        agreed = agreed.advanced(plan, Note(plan.at, 1, "us-east-1", 2))
        done += 1
    return agreed


def left(region: str = WEST) -> Plan:
    rights = rights_of(LOCAL, datetime(2026, 6, 1, tzinfo=UTC))
    judged = judge([], LOCAL.regions, [], LOCAL.failover)
    return failover(region, Circumstances(LOCAL, rights, judged), plan_id="p1", now_us=1, cause="it is down")


def back() -> Plan:
    return failback(WEST, LOCAL, plan_id="p2", now_us=2, cause="it is up")


def test_it_is_back_when_it_has_every_share_and_not_before() -> None:
    agreed = carried(Agreed().opened(left()))
    assert not returned(agreed, {WEST})
    assert "failover of eu-west-1 is closed" in where(agreed, {WEST})
    under_way = carried(agreed.opened(back()), 4)
    assert not returned(under_way, {WEST})
    assert not given_up(under_way, {WEST})
    assert where(under_way, {WEST}).endswith("is open at weight 25")
    assert returned(carried(under_way), {WEST})
    assert not returned(carried(under_way), {WEST, "us-east-1"})


def test_a_stopped_failback_is_given_up_with_its_reason() -> None:
    agreed = carried(carried(Agreed().opened(left())).opened(back()), 3)
    plan = agreed.plans[WEST]
    stopped = agreed.stopped(plan, Note(plan.at, 3, "us-east-1", 2, "its p99 was 3000 ms", good=False))
    assert given_up(stopped, {WEST})
    assert not returned(stopped, {WEST})
    assert not given_up(
        agreed.stopped(plan, Note(plan.at, 3, "us-east-1", 2, "", good=False), relapsed=True), {WEST}
    )
    assert where(stopped, {WEST}) == "failback of eu-west-1 is stopped at gate 10: its p99 was 3000 ms"


def test_a_failback_that_was_stopped_after_its_last_share_has_not_brought_the_region_back() -> None:
    agreed = carried(Agreed().opened(left())).opened(back())
    agreed = carried(agreed, len(back().steps) - 2)
    plan = agreed.plans[WEST]
    stopped = agreed.stopped(plan, Note(plan.at, 3, "us-east-1", 2, "eu cannot be verified", good=False))
    assert not stopped.shares.weights
    assert not stopped.shares.down
    assert not returned(stopped, {WEST})
    assert given_up(stopped, {WEST})


def test_a_plan_says_what_went_where_and_where_the_law_left_nothing() -> None:
    assert told(carried(Agreed().opened(left())).closed[0]) == "eu-west-1: eu to eu-central-1"
    assert "sg to us-east-1, open" in told(left("ap-southeast-1"))


@pytest.mark.parametrize(
    ("fault", "begun_s", "steps", "expected"),
    [
        ("slow", None, 0, True),
        ("slow", 5, 1, False),
        ("slow", 5, 0, True),
        ("slow", 25, 1, False),
        ("kill", 5, None, True),
        ("kill", None, 0, False),
    ],
    ids=["stays", "left", "not-confirmed", "left-afterwards", "fails-over", "stays-dead"],
)
def test_a_region_that_was_to_stay_is_not_to_be_left_afterwards_either(
    tmp_path: Path, fault: str, begun_s: float | None, steps: int | None, expected: bool
) -> None:
    (tmp_path / "secrets").mkdir()
    create_keys(tmp_path / "secrets")
    watch = Watch(State(tmp_path, LOCAL, {}, {}), lambda: 100.0, lambda event: None)
    watch.agreed = Agreed()
    if begun_s is not None:
        at_us = int((time.time() - 100 + begun_s) * 1e6)
        plan = msgspec.structs.replace(left(), begun_us=at_us)
        watch.agreed = carried(Agreed().opened(plan), steps)
        if steps == 0:
            note = Note(0, at_us, "us-east-1", 2, "it is not down any more", good=False)
            watch.agreed = watch.agreed.stopped(plan, note)
    report = Report(fault, [WEST], fault_s=1.0, ended_s=20.0)
    happened(report, outage(fault, LOCAL, WEST, ""), watch)
    assert report.as_expected is expected, report.happened
