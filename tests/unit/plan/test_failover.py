"""Plans: lawful targets or none, nothing before the fence, every step once, whoever carries them out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from acgs2.errors import InputError
from acgs2.plan import (
    Agreed,
    Circumstances,
    Judged,
    Measured,
    Note,
    Plan,
    Rights,
    Shares,
    Standing,
    StepKind,
    agreed_of,
    document_of,
    failback,
    failover,
    gate,
    readmit,
    retarget,
    rights_of,
)
from acgs2.topology import builtin, load

TOPOLOGY = load(builtin("local"))
NOW = datetime(2026, 11, 1, tzinfo=UTC)
RIGHTS = rights_of(TOPOLOGY, NOW)
STACKS = list(TOPOLOGY.stacks())
regions = st.sampled_from(STACKS)
states = st.dictionaries(regions, st.sampled_from(["up", "down", "unsure"]).map(lambda s: s))
shares = st.builds(lambda down: Shares(tuple(sorted(down))), st.sets(regions))
lags = st.dictionaries(regions, st.floats(0, 30))


def planned(region: str, **more: object) -> Plan:
    now = Circumstances(TOPOLOGY, **({"rights": RIGHTS} | more))  # type: ignore[arg-type]
    return failover(region, now, plan_id=f"plan-{region}", now_us=1, cause="it is down")


@given(region=regions, states=states, shares=shares, lag_s=lags, lost=st.sets(regions))
def test_a_target_is_lawful_and_well_or_there_is_none(
    region: str, states: dict[str, str], shares: Shares, lag_s: dict[str, float], lost: set[str]
) -> None:
    rights = Rights({key: holders - lost for key, holders in RIGHTS.holders.items()})
    judged = {r: Judged(r, s) for r, s in states.items()}  # type: ignore[arg-type]
    plan = planned(region, rights=rights, judged=judged, shares=shares, lag_s=lag_s)
    plan.check_invariants()
    assert {c.zone for c in plan.choices} == {z for z, of in TOPOLOGY.zones.items() if region in of.regions}
    for choice in plan.choices:
        fit = {
            r
            for r in rights.serving(choice.zone)
            if r != region
            and states.get(r) != "down"
            and r not in shares.down
            and lag_s.get(r, 0) <= TOPOLOGY.failover.lag_limit_s
        }
        assert (choice.target in fit) if fit else choice.target is None
        assert {c.region for c in choice.candidates} == {*STACKS} - {region}
        assert [c.region for c in choice.candidates if c.chosen] == ([choice.target] if fit else [])
        assert all(c.why for c in choice.candidates)
    verified = [step.zone for step in plan.steps if step.kind is StepKind.VERIFY]
    assert verified == [choice.zone for choice in plan.choices], "every zone is verified, also one that stops"


def test_with_both_regions_of_the_eu_down_the_eu_stops_and_nobody_else_does() -> None:
    judged = {"eu-central-1": Judged("eu-central-1", "down", why="dead")}
    (choice,) = planned("eu-west-1", judged=judged).choices
    assert (choice.zone, choice.target) == ("eu", None)
    assert {c.region: c.why for c in choice.candidates}["us-east-1"].startswith("may not hold")
    assert planned("us-east-1", judged=judged).choices[0].target == "eu-west-1"


def test_who_was_to_take_over_and_died_since_is_followed_by_the_next_or_by_nobody() -> None:
    for zone, leaving, dead, then in (
        ("eu", "eu-west-1", "eu-central-1", ""),
        ("us", "us-east-1", "eu-west-1", ""),
        ("eu", "eu-west-1", "us-east-1", "eu-central-1"),
    ):
        chosen = planned(leaving)
        (step,) = [s for s in chosen.steps if s.kind is StepKind.VERIFY and s.zone == zone]
        judged = {dead: Judged(dead, "down", why="dead")}
        found = retarget(step, leaving, Circumstances(TOPOLOGY, RIGHTS, judged))
        assert (found.kind, found.zone, found.target) == (step.kind, zone, then)
        # The same where it was left, whatever is held of it; what was seen by few changes nothing.
        assert retarget(step, leaving, Circumstances(TOPOLOGY, RIGHTS, shares=Shares((dead,)))) == found
        unsure = {dead: Judged(dead, "unsure")}
        assert retarget(step, leaving, Circumstances(TOPOLOGY, RIGHTS, unsure)) == step


def test_who_was_behind_when_nobody_could_take_over_and_has_caught_up_does() -> None:
    behind = {"eu-central-1": 11.0}
    chosen = planned("eu-west-1", lag_s=behind)
    (step,) = [s for s in chosen.steps if s.kind is StepKind.VERIFY and s.zone == "eu"]
    assert step.target == ""
    assert retarget(step, "eu-west-1", Circumstances(TOPOLOGY, RIGHTS, lag_s=behind)) == step
    assert retarget(step, "eu-west-1", Circumstances(TOPOLOGY, RIGHTS)).target == "eu-central-1"


def test_a_witness_serves_nobody_and_a_stranger_is_unknown() -> None:
    with pytest.raises(InputError, match="witness"):
        planned("ca-central-1")
    with pytest.raises(InputError, match="no region"):
        failback("xx-nowhere-1", TOPOLOGY, plan_id="p", now_us=1, cause="it is up")
    with pytest.raises(InputError, match="no region"):
        planned("xx-nowhere-1")


FINE = Measured(lag_s=0.1, requests=200, errors=0, p99_ms=50, reads=50, reads_of_zones=500)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, ""),
        ({"lag_s": 3.0}, "behind"),
        ({"errors": 10}, "errors"),
        ({"p99_ms": 5000}, "p99"),
        ({"reads": 250}, "at most"),
        ({"reads": 0}, ""),
        ({"requests": 3, "errors": 3}, ""),
    ],
)
def test_a_gate_says_what_failed(changed: dict[str, float], says: str) -> None:
    import msgspec

    found = gate(msgspec.structs.replace(FINE, **changed), 10, TOPOLOGY)
    assert (says in "; ".join(found)) if says else not found


WELL = Standing(
    ready=True, seeded=True, equal=True, governing={"constitution": 2}, in_force={"constitution": 2}
)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, ""),
        ({"ready": False, "missing": ("database",)}, "database"),
        ({"seeded": False}, "may hold"),
        ({"lag_s": 5.0}, "behind"),
        ({"equal": False, "differs": "message of eu"}, "message of eu"),
        ({"governing": {"constitution": 1}}, "version 1 of constitution; 2 is in force"),
        ({"governing": {}}, "version 0"),
        ({"drained": True}, "acgs2 traffic restore"),
    ],
)
def test_who_is_not_level_is_not_let_in(changed: dict[str, object], says: str) -> None:
    import msgspec

    found = readmit(msgspec.structs.replace(WELL, **changed), TOPOLOGY)
    assert (says in "; ".join(found)) if says else not found


class Leaders(RuleBasedStateMachine):
    """Leaders that come and go, and note what they did, late or twice."""

    def __init__(self) -> None:
        super().__init__()
        self.agreed = Agreed()
        self.count = 0
        self.done: dict[str, list[int]] = {}

    seen = Bundle("seen")

    @rule(target=seen, region=regions, back=st.booleans())
    def begin(self, region: str, back: bool) -> Plan:
        self.count += 1
        name = f"plan-{self.count}"
        if back:
            plan = failback(region, TOPOLOGY, plan_id=name, now_us=1, cause="up")
        else:
            now = Circumstances(TOPOLOGY, RIGHTS, shares=self.agreed.shares)
            plan = failover(region, now, plan_id=name, now_us=1, cause="down")
        self.agreed = self.agreed.opened(plan)
        return self.agreed.plans.get(region, plan)

    @rule(target=seen, region=regions)
    def look(self, region: str) -> Plan | None:
        return self.agreed.plans.get(region)

    @rule(plan=seen, good=st.booleans())
    def note(self, plan: Plan | None, good: bool) -> None:
        """Whoever saw a plan once notes that its step is done, or gives it up: perhaps long after."""
        if plan is None or plan.state != "open":
            return
        before = self.agreed
        known = before.plans.get(plan.region)
        note = Note(plan.at, 2, "leader", 1, "", good)
        self.agreed = before.advanced(plan, note) if good else before.stopped(plan, note)
        if known is None or (known.id, known.at) != (plan.id, plan.at):
            assert self.agreed == before, "what is past changes nothing"
            return
        again = self.agreed.advanced(plan, note) if good else self.agreed.stopped(plan, note)
        assert again == self.agreed, "a note that is repeated changes nothing"
        if good:
            steps = self.done.setdefault(plan.id, [])
            assert plan.at not in steps, "a step is done once"
            steps.append(plan.at)

    @rule(region=regions, weight=st.integers(0, 100), down=st.booleans())
    def operate(self, region: str, weight: int, down: bool) -> None:
        wanted = self.agreed.operator.giving(region, weight)
        self.agreed = self.agreed.set_by_operator(wanted.without(region) if down else wanted)

    @invariant()
    def holds(self) -> None:
        self.agreed.check_invariants()
        assert agreed_of(document_of(self.agreed)) == self.agreed
        for region in self.agreed.traffic.down:
            assert region in self.agreed.shares.down, "no operator brings back whom a plan took out"
        for plan in self.agreed.plans.values():
            at = [s.kind for s in plan.steps[: plan.at + 1]]
            if plan.kind == "failback" and StepKind.WEIGHT in at:
                assert plan.region not in self.agreed.traffic.down


def test_who_began_a_plan_is_agreed_with_it_and_what_an_earlier_release_agreed_is_nobodys() -> None:
    agreed = Agreed().opened(failback("eu-west-1", TOPOLOGY, plan_id="p", now_us=1, cause="asked", by="ann"))
    document = document_of(agreed.opened(planned("us-east-1")))
    assert {r: p.by for r, p in agreed_of(document).plans.items()} == {"eu-west-1": "ann", "us-east-1": ""}
    for plan in document["plans"].values():
        del plan["by"]
    assert {p.by for p in agreed_of(document).plans.values()} == {""}


Leaders.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLeaders = Leaders.TestCase


def test_a_failed_gate_goes_back_to_the_last_good_share() -> None:
    agreed = Agreed(traffic=Shares(("eu-west-1",)))
    agreed = agreed.opened(failback("eu-west-1", TOPOLOGY, plan_id="p", now_us=1, cause="up"))
    while True:
        plan = agreed.plans["eu-west-1"]
        step = plan.current
        assert step is not None
        if step.kind is StepKind.GATE and step.value == 50:
            break
        agreed = agreed.advanced(plan, Note(plan.at, 1, "a", 1))
    assert agreed.traffic == Shares((), {"eu-west-1": 50})
    agreed = agreed.stopped(plan, Note(plan.at, 1, "a", 1, "slow", False))
    assert agreed.traffic == Shares((), {"eu-west-1": 25})
    assert agreed.closed[-1].why == "slow"
