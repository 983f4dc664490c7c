"""Properties of DNS plans and of the way from one to the next, over random rights, health and weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import routing

from acgs2.drivers.dns import (
    ANY,
    Alias,
    Batch,
    Check,
    Held,
    RecordSet,
    batches,
    check_changes,
    desired,
    gaps,
    health_checks,
    level_of,
    records,
    weights_of,
)
from acgs2.errors import InputError
from acgs2.plan import Rights, rights_of, route
from acgs2.topology import load

LOCAL, GLOBAL = load("local"), load("global")
NOW = datetime(2026, 12, 1, tzinfo=UTC)
RIGHTS = rights_of(LOCAL, NOW)
DOMAIN = LOCAL.domain
BALANCERS = {r: Alias(f"{r}.elb.example", "ZELB") for r in LOCAL.stacks()}

rights, health, weights = routing.rights(LOCAL), routing.health(LOCAL), routing.weights(LOCAL)
plans = st.builds(
    lambda *asked, balancers: records(LOCAL, *asked, balancers=balancers),
    rights,
    health,
    weights,
    balancers=st.sampled_from([None, BALANCERS]),
)


def zone_of(record: RecordSet) -> str | None:
    place = level_of(record.name, DOMAIN)
    assert place is not None
    return None if place[0] == ANY else place[0]


def second_level(of: Iterable[RecordSet]) -> list[RecordSet]:
    return [r for r in of if r.weight is not None]


@given(rights, health, weights)
def test_no_record_leads_to_a_region_that_may_not_hold_the_zone(rights: Rights, health, weights):
    for record in second_level(records(LOCAL, rights, health, weights)):
        region = record.set_id
        assert record.target == f"api.{region}.{DOMAIN}"
        assert health.get(region, True)
        zone = zone_of(record)
        assert zone is None or region in rights.lawful(zone)


@given(rights, health, weights)
def test_weights_are_the_shares_of_the_plan(rights: Rights, health, weights):
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for record in second_level(records(LOCAL, rights, health, weights)):
        assert record.weight is not None
        found[record.name][record.set_id] = record.weight
    expected = 0
    for origin in LOCAL.stacks():
        for zone in [None, *LOCAL.zones]:
            targets = route(LOCAL, rights, health, weights, origin, zone).targets
            expected += bool(targets)
            here = found[f"{origin}.{zone or ANY}.api.{DOMAIN}"]
            assert list(here) == [t.region for t in targets]
            for target in targets:
                assert here[target.region] / sum(here.values()) == pytest.approx(target.share, abs=0.02)
                assert (here[target.region] > 0) == (target.share > 0)
    assert expected == sum(1 for of in found.values() if of)


@given(plans)
def test_every_alias_has_its_target_and_identifiers_are_unique(plan: list[RecordSet]):
    assert aliases_lead_somewhere(plan)
    assert len({r.key for r in plan}) == len(plan)
    types: defaultdict[str, set[str]] = defaultdict(set)
    for record in plan:
        types[record.name].add(record.type)
        assert (record.weight is None) != (not record.region)  # weight and region exclude each other
        assert len(record.name) <= 255
        assert all(len(label) <= 63 for label in record.name.split("."))
        if record.weight is not None:
            assert 0 <= record.weight <= 255
            assert record.health == record.set_id
            assert bool(record.alias) != bool(record.values)
            assert (record.ttl_s is None) == bool(record.alias)
    assert all(len(of) == 1 for of in types.values())


@given(rights, health, weights)
def test_a_name_has_records_or_a_gap_says_why(rights: Rights, health, weights):
    plan = records(LOCAL, rights, health, weights)
    missing = {gap.zone for gap in gaps(LOCAL, rights, health, weights)}
    assert missing | {zone_of(r) for r in plan} == {None, *LOCAL.zones}
    assert not missing & {zone_of(r) for r in plan}


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=12).filter(any))
def test_weights_keep_ratios(parts: list[int]):
    total = sum(parts)
    found = weights_of(tuple(p / total for p in parts))
    assert max(found) <= 255
    for part, weight in zip(parts, found, strict=True):
        assert weight / sum(found) == pytest.approx(part / total, abs=len(parts) / 255)
        assert (weight > 0) == (part > 0)


def test_percentages_are_exact():
    assert weights_of((0.25, 0.75)) == (1, 3)
    assert weights_of((0.1, 0.9, 0.0)) == (1, 9, 0)
    assert weights_of((1.0,)) == (1,)


def test_partitions_do_not_lead_to_each_other():
    here = desired(GLOBAL, rights_of(GLOBAL, NOW), {}, {})
    there = desired(GLOBAL, rights_of(GLOBAL, NOW), {}, {}, partition="aws-cn")
    chinese = {"cn-north-1", "cn-northwest-1"}
    assert {r.set_id for r in there.records} == chinese == {c.region for c in there.checks}
    assert {r.set_id for r in here.records}.isdisjoint(chinese)
    assert [(gap.zone, gap.problem) for gap in here.gaps] == [("cn", "lawful-in-another-partition")]
    assert {gap.zone for gap in there.gaps} == set(GLOBAL.zones) - {"cn"}
    assert [g.problem for g in gaps(LOCAL, RIGHTS, {}, {}, partition="aws-cn")] == [
        "no-region-in-partition"
    ] * 4


def test_a_zone_without_a_lawful_target_is_not_answered():
    down = {"eu-west-1": False, "eu-central-1": False}
    plan = desired(LOCAL, RIGHTS, down, {})
    assert not [r for r in plan.records if zone_of(r) == "eu"]
    (gap,) = plan.gaps
    assert str(gap).startswith("eu.api.acgs2.example is not answered: no-lawful-target; lawful: eu-")
    assert set(gap.lawful) == set(down)


def test_health_checks_are_those_of_the_topology():
    checks = health_checks(LOCAL)
    how = LOCAL.front.health_check
    assert [c.region for c in checks] == list(LOCAL.stacks())
    assert checks[0] == Check("us-east-1", f"api.us-east-1.{DOMAIN}", 443, how.path, 3, 30)
    assert checks[0].name == "acgs2-us-east-1-health-check"
    references = {c.reference("local", n) for c in checks for n in range(3)} | {checks[0].reference("other")}
    assert len(references) == 3 * len(checks) + 1
    assert all(len(reference) <= 64 for reference in references)
    assert health_checks(LOCAL)[0].reference("local") == checks[0].reference("local")


def test_load_balancers_are_given_for_all_regions_or_none():
    with pytest.raises(InputError, match="eu-central-1"):
        records(LOCAL, RIGHTS, {}, {}, balancers={"eu-west-1": Alias("a.example", "Z")})
    found = second_level(records(LOCAL, RIGHTS, {}, {}, balancers=BALANCERS))
    assert all(r.type == "A" and r.alias == BALANCERS[r.set_id] for r in found)


def test_names_are_as_route_53_writes_them():
    shouted = LOCAL.model_copy(update={"domain": "ACGS2.Example."})
    assert desired(shouted, RIGHTS, {}, {}) == desired(LOCAL, RIGHTS, {}, {})


# From one plan to the next


def aliases_lead_somewhere(of: Iterable[RecordSet], *, of_type: bool = True) -> bool:
    all_of = list(of)
    there = {(r.name, r.type if of_type else "") for r in all_of}
    return all(
        (r.alias.name, r.type if of_type else "") in there for r in all_of if r.alias and not r.alias.zone_id
    )


def carried_out(there: Mapping[tuple[str, str, str], RecordSet], batch: Batch):
    left = dict(there)
    for change in batch.changes:
        if change.action == "DELETE":
            del left[change.record.key]
        else:
            left[change.record.key] = change.record
    return left


def targets(of: Iterable[RecordSet]) -> dict[str | None, set[str]]:
    found: defaultdict[str | None, set[str]] = defaultdict(set)
    for record in second_level(of):
        found[zone_of(record)].add(record.set_id)
    return found


@given(plans, plans)
def test_one_plan_becomes_the_other_safely(old: list[RecordSet], new: list[RecordSet]):
    there = {r.key: r for r in old}
    todo = batches(old, new, DOMAIN)
    assert len({b.label for b in todo}) == len(todo)  # a zone is one batch
    losing = {zone for zone, of in targets(old).items() if of - targets(new)[zone]}
    for batch in todo:
        zone = None if batch.label == ANY else batch.label
        before = targets(there.values())
        there = carried_out(there, batch)
        assert aliases_lead_somewhere(there.values())
        # Who may no longer serve leaves with the coming of those who may, and first of all.
        assert targets(there.values())[zone] == targets(new)[zone]
        assert zone in losing or not any(before[z] - targets(new)[z] for z in losing)
    assert there == {r.key: r for r in new}
    assert batches(new, new, DOMAIN) == []


def test_what_leads_to_a_region_that_serves_no_more_is_deleted():
    old, new = records(LOCAL, RIGHTS, {}, {}), records(LOCAL, RIGHTS, {"us-east-1": False}, {})
    gone = {r.key for r in old} - {r.key for r in new}
    changes = [change for batch in batches(old, new, DOMAIN) for change in batch.changes]
    assert {c.record.key for c in changes if c.action == "DELETE"} == gone
    assert {key[2] for key in gone} == {"us-east-1"}


@given(plans, plans, st.integers(12, 30), st.integers(400, 2000))
def test_what_does_not_fit_is_split_between_names(old, new, max_elements: int, max_characters: int):
    there = {r.key: r for r in old}
    for batch in batches(old, new, DOMAIN, max_elements=max_elements, max_characters=max_characters):
        assert sum(c.elements for c in batch.changes) <= max_elements
        assert sum(c.characters for c in batch.changes) <= max_characters
        before = there
        there = carried_out(there, batch)
        assert aliases_lead_somewhere(there.values(), of_type=False)
        for name in {c.record.name for c in batch.changes}:  # a name is whole: it has no state in between
            here = {k: r for k, r in there.items() if r.name == name}
            assert here == {r.key: r for r in new if r.name == name}
            assert here != {k: r for k, r in before.items() if r.name == name}
    assert there == {r.key: r for r in new}


def test_the_largest_topology_fits_in_one_batch_a_zone():
    plan = records(GLOBAL, rights_of(GLOBAL, NOW), {}, {})
    todo = batches([], plan, GLOBAL.domain)
    assert len(todo) == len(GLOBAL.zones)  # cn is in another partition, and there is one for no zone


# Health checks

CHECK = health_checks(LOCAL)[0]


@pytest.mark.parametrize(
    ("held", "kept", "created", "updated", "dropped"),
    [
        ([], {}, 1, [], []),
        ([Held("a", CHECK)], {"us-east-1": "a"}, 0, [], []),
        ([Held("a", replace(CHECK, path="/old"))], {"us-east-1": "a"}, 0, ["a"], []),
        ([Held("a", CHECK, plain=False)], {"us-east-1": "a"}, 0, ["a"], []),
        ([Held("a", replace(CHECK, interval_s=10))], {}, 1, [], ["a"]),
        ([Held("b", CHECK), Held("a", replace(CHECK, port=1))], {"us-east-1": "b"}, 0, [], ["a"]),
        ([Held("a", replace(CHECK, fqdn="api.eu-west-9.acgs2.example"))], {}, 1, [], ["a"]),
    ],
)
def test_health_checks_become_what_they_shall_be(held, kept, created, updated, dropped):
    found = check_changes(held, [CHECK])
    assert found.kept == kept
    assert len(found.create) == created
    assert [id_ for id_, _ in found.update] == updated
    assert list(found.drop) == dropped


def test_whose_name_is_whose():
    assert level_of("api.acgs2.example", "acgs2.example") == (ANY, 1)
    assert level_of("eu.api.acgs2.example", "acgs2.example") == ("eu", 1)
    assert level_of("us-east-1.eu.api.acgs2.example", "acgs2.example") == ("eu", 2)
    for other in (
        "acgs2.example",
        "api.us-east-1.acgs2.example",
        "a.b.eu.api.acgs2.example",
        "xapi.acgs2.example",
    ):
        assert level_of(other, "acgs2.example") is None
