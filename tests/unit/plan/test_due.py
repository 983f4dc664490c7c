"""What is begun unasked: a region that comes and goes is left once, and let in again only when it stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.plan.test_failover import NOW

from acgs2.plan import (
    Agreed,
    Circumstances,
    Judged,
    Note,
    Observation,
    Plan,
    due,
    failback,
    failover,
    fold,
    judge,
)
from acgs2.plan.rights import rights_of
from acgs2.topology import Failover, builtin, load

TOPOLOGY = load(builtin("local"))
RIGHTS = rights_of(TOPOLOGY, NOW)
REGION, OTHERS = "eu-central-1", ["eu-west-1", "us-east-1", "ap-southeast-1", "ca-central-1"]
VOTERS = [REGION, *OTHERS]
SERVED = Agreed(served=(REGION,))


def plan_of(kind: str, number: int = 1) -> Plan:
    given = {"plan_id": f"plan-{number}", "now_us": number, "cause": "seen"}
    if kind == "failback":
        return failback(REGION, TOPOLOGY, **given)  # type: ignore[arg-type]
    return failover(REGION, Circumstances(TOPOLOGY, RIGHTS), **given)  # type: ignore[arg-type]


def carried(agreed: Agreed, steps: int | None = None) -> Agreed:
    """Return the same with so many steps of the region's plan done, or all."""
    done = 0
    while (plan := agreed.plans.get(REGION)) is not None and done != steps:
        agreed = agreed.advanced(plan, Note(plan.at, 1, "leader", 1))
        done += 1
    return agreed


LEFT = carried(SERVED.opened(plan_of("failover")))
RETURNING = carried(LEFT.opened(plan_of("failback", 2)), 3)
HALTED = RETURNING.plans[REGION]


def stopped(*, relapsed: bool) -> Agreed:
    return RETURNING.stopped(HALTED, Note(HALTED.at, 3, "leader", 1, "why", good=False), relapsed=relapsed)


@pytest.mark.parametrize(
    ("agreed", "down", "up"),
    [
        (Agreed(), None, None),
        (SERVED, "failover", None),
        (SERVED.opened(plan_of("failover")), None, None),
        (LEFT, None, "failback"),
        (carried(SERVED.opened(msgspec.structs.replace(plan_of("failover"), by="ann"))), None, None),
        (RETURNING, "failover", None),
        (carried(RETURNING), "failover", None),
        (carried(RETURNING.opened(plan_of("failover", 3))), None, "failback"),
        (stopped(relapsed=False), None, None),
        (stopped(relapsed=True), None, "failback"),
    ],
    ids=[
        "never-served",
        "serves",
        "being-left",
        "left",
        "left-by-an-operator",
        "on-its-way",
        "back",
        "left-again",
        "given-up",
        "down-again",
    ],
)
def test_what_is_begun_follows_from_what_is_held_and_what_is_agreed(
    agreed: Agreed, down: str | None, up: str | None
) -> None:
    assert due(agreed, Judged(REGION, "down")) == down
    assert due(agreed, Judged(REGION, "up")) == up
    assert due(agreed, Judged(REGION, "unsure")) is None


def test_what_was_given_up_is_remembered_however_much_goes_on_elsewhere() -> None:
    agreed = stopped(relapsed=False)
    for number in range(20):
        plan = failover(
            "us-east-1", Circumstances(TOPOLOGY, RIGHTS), plan_id=f"us-{number}", now_us=1, cause="seen"
        )
        agreed = agreed.opened(plan)
        while (plan := agreed.plans.get("us-east-1")) is not None:
            agreed = agreed.advanced(plan, Note(plan.at, 1, "leader", 1))
    assert len(agreed.closed) < 12
    assert due(agreed, Judged(REGION, "up")) is None


def test_a_failback_is_relapsed_where_its_region_is_down_and_not_where_an_operator_leaves_it() -> None:
    again = plan_of("failover", 3)
    for by, relapsed in (("", True), ("ann", False)):
        agreed = RETURNING.opened(msgspec.structs.replace(again, by=by, cause="of this"))
        over = agreed.last(REGION)
        assert over is not None
        assert (over.relapsed, over.why) == (relapsed, "it is left again: of this")


def looks(interval_s: float, late_s: Sequence[float]) -> Iterator[float]:
    """Return when an observer looks: never sooner than an interval after its last look."""
    at_s, number = late_s[0] * interval_s, 0
    while at_s < 60:
        yield at_s
        number += 1
        at_s += interval_s * (1 + late_s[number % len(late_s)] / 4)


late = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(
    interval_s=st.sampled_from([0.5, 1.0]),
    late_s=st.fixed_dictionaries(dict.fromkeys(OTHERS, late)),
    begins_s=st.floats(0, 4),
)
def test_a_region_that_is_up_and_down_every_two_seconds_is_left_once_at_most(
    interval_s: float, late_s: dict[str, list[float]], begins_s: float
) -> None:
    settings = Failover(interval_s=interval_s)
    events = sorted((at_s, o) for o in OTHERS for at_s in looks(interval_s, late_s[o]))
    seen = {o: (Observation(o, REGION), 0.0) for o in OTHERS}
    agreed, begun = SERVED, list[str]()
    for at_s, observer in events:
        well = (at_s + begins_s) % 4 < 2
        seen[observer] = (fold(seen[observer][0], None if well else "refused"), at_s)
        now = [msgspec.structs.replace(one, age_s=at_s - since_s) for one, since_s in seen.values()]
        kind = due(agreed, judge(VOTERS, [REGION], now, settings)[REGION])
        if kind is not None:
            begun.append(kind)
            agreed = carried(agreed.opened(plan_of(kind, len(begun))))  # nothing keeps it from ending at once
    assert begun in ([], ["failover"])


def test_a_region_that_stays_is_let_in_again() -> None:
    settings = Failover()
    seen = [Observation(o, REGION, successes=settings.successes) for o in OTHERS]
    assert due(LEFT, judge(VOTERS, [REGION], seen, settings)[REGION]) == "failback"
