"""What is measured, from histories that were made up so that the answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest

from acgs2.drill.history import Operation
from acgs2.drill.measure import MONTH_S, Call, buckets, calls_of, numbers, restored_s, zone_seen
from acgs2.topology import Objectives

INF = float("inf")
_NUMBERS = count()


def call(
    began_s: float, took_s: float = 0.05, zone: str = "eu", kind: str = "write", region: str = "a"
) -> Call:
    return Call(zone, "dublin", kind, began_s, took_s, region if took_s < INF else "")


def steady(begin_s: float, end_s: float, **more: str) -> list[Call]:
    """Ten calls a second, all served."""
    return [call(begin_s + n / 10, **more) for n in range(round((end_s - begin_s) * 10))]  # type: ignore[arg-type]


def op(kind: str, began_s: float, ended_s: float, key: str, outcome: str = "ok", **answer: str) -> Operation:
    entity = "message" if kind in ("append", "receive") else "user_profile"
    return Operation(
        next(_NUMBERS),
        "dublin",
        "a",
        "eu",
        kind,
        entity,
        key,
        began_s,
        {},
        None,
        ended_s,
        outcome,
        answer,  # type: ignore[arg-type]
    )


def test_service_is_back_with_the_first_call_after_which_none_fails() -> None:
    bad = [call(10.0, INF), call(11.5, INF), call(13.0, INF)]
    between = [call(12.0), call(13.0)]  # one that succeeds in between does not mean that it is back
    after = steady(13.1, 20)
    assert restored_s([*steady(0, 10), *bad, *between, *after], 10.0, 20.0) == pytest.approx(3.15)


def test_who_was_not_disturbed_was_back_at_once_and_who_never_came_back_says_so() -> None:
    assert restored_s(steady(0, 20), 10.0, 20.0) == 0.0
    assert restored_s([*steady(0, 10), *(call(10 + n, INF) for n in range(10))], 10.0, 20.0) is None
    # What fails once the fault was ended is no part of failover.
    assert restored_s([*steady(0, 20), call(21.0, INF)], 10.0, 20.0) == 0.0


def test_a_call_that_succeeds_too_late_was_not_served() -> None:
    found = [*steady(0, 10), call(10.0, 4.0), call(11.0, 3.2), *steady(14, 20)]
    assert restored_s(found, 10.0, 20.0) == pytest.approx(4.05)
    assert sum(b.failed for b in buckets(found, 20.0)) == 2


def test_a_message_is_delivered_from_when_it_was_acknowledged() -> None:
    found = calls_of(
        [
            op("append", 1.0, 1.1, "m1"),
            op("receive", 1.4, 1.4, "m1"),
            op("append", 2.0, 2.1, "m2"),
            op("append", 9.0, 9.1, "m3"),
            op("create", 3.0, INF, "u", "info", problem="outcome-unknown"),
            op("receive", 1.9, 1.9, "m1"),  # again
        ],
        until_s=10.0,
    )
    deliveries = [c for c in found if c.kind == "delivery"]
    assert [(round(c.began_s, 3), round(c.took_s, 3), c.problem) for c in deliveries] == [
        (1.1, 0.3, ""),
        (2.1, INF, "not-delivered"),
    ], "the newest may be on its way"
    assert [c.problem for c in found if c.kind == "write"] == ["outcome-unknown"]


def test_buckets_are_seconds_without_gaps() -> None:
    found = buckets([call(0.2), call(0.9), call(2.0, INF)], 3.0)
    assert [(b.at_s, b.served, b.failed) for b in found] == [(0, 2, 0), (1, 0, 0), (2, 0, 1), (3, 0, 0)]
    assert [b.p99_ms for b in found] == [50.0, 0.0, 0.0, 0.0]


def seen(calls: Sequence[Call], zone: str = "eu", *, lawful: bool = True):
    return zone_seen(zone, calls, lawful=lawful, fault_s=10.0, ended_s=20.0, until_s=30.0)


def test_a_zone_says_who_answered_it_and_what_it_lost() -> None:
    lost = [call(10 + n / 10, INF) for n in range(25)]
    found = seen([*steady(0, 10), *lost, *steady(12.5, 30, region="b"), *steady(0, 30, zone="us")])
    assert found.restored_s == pytest.approx(2.55)
    assert (found.outage_s, found.failed, found.calls) == (2.5, 25, 300)
    assert found.regions == {"before": ["a"], "after": ["b"]}
    assert found.by_kind == {"write": pytest.approx(2.55)}
    assert found.availability == pytest.approx(275 / 300, abs=1e-4)


def test_one_kind_of_call_that_stays_away_keeps_the_zone_from_being_back() -> None:
    bad = [call(10 + n, INF, kind="message") for n in range(10)]
    found = seen([*steady(0, 30), *bad])
    assert found.restored_s is None
    assert found.by_kind == {"write": 0.0, "message": None}


def test_the_five_numbers_are_held_against_objectives() -> None:
    objectives = Objectives(p99_ms=60, lag_s=1, failover_s=5, residency=1.0, availability=0.9999)
    well = seen(steady(0, 30))
    short = seen([*steady(0, 30, zone="us"), call(10.0, INF, zone="us"), call(13.0, zone="us")], "us")

    def kept(
        *zones: object, lag_s: float | None = 0.1, misplaced: int = 0, seen_texts: int = 90
    ) -> dict[str, bool]:
        found = numbers(zones, objectives, lag_s=lag_s, canaries=100, found=seen_texts, misplaced=misplaced)  # type: ignore[arg-type]
        return {each.name: each.kept for each in found}

    assert all(kept(well, short).values())
    assert not kept(well, lag_s=1.5)["lag"]
    assert not kept(well, lag_s=None)["lag"], "what was not measured was not kept"
    assert not kept(well, misplaced=1)["residency"]
    assert not kept(well, seen_texts=0)["residency"], (
        "a search that finds nothing where it may be sees nothing"
    )
    late = seen([*steady(0, 10), *(call(10 + n / 10, INF) for n in range(60)), *steady(16, 30)])
    assert not kept(late)["failover"]
    slow = seen([call(n / 10, 0.08) for n in range(300)])
    assert not kept(slow)["p99"]
    # A zone that the law leaves nowhere to go has stopped, rightly: it says nothing of failover.
    stopped = seen(
        [*steady(0, 10), *(call(10 + n / 10, INF) for n in range(100)), *steady(20, 30)], lawful=False
    )
    assert all(kept(well, stopped).values())


def test_availability_is_what_a_month_with_one_such_drill_has() -> None:
    lost_s = 20
    found = seen([*steady(0, 5), *(call(5 + n / 10, INF) for n in range(lost_s * 10)), *steady(25, 30)])
    (availability,) = [
        n
        for n in numbers([found], Objectives(), lag_s=0.1, canaries=1, found=1, misplaced=0)
        if n.name == "availability"
    ]
    assert availability.value == pytest.approx(1 - lost_s / MONTH_S)
