"""Every strategy is commutative, associative, idempotent and monotone, and loses nothing silently."""

from __future__ import annotations

from functools import reduce
from itertools import permutations
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies.records import EXTREMES, histories

from acgs2.merge import merge
from acgs2.merge.write import write
from acgs2.model import entities
from acgs2.model.clock import Order, compare, covers
from acgs2.model.entity import Entity, Rule, Strategy
from acgs2.model.record import Record

PROFILE = entities()["user_profile"]
ENTITIES = [*entities().values(), EXTREMES]


def joined(entity: Entity, *versions: Record) -> Record:
    return reduce(lambda a, b: merge(entity, a, b).record, versions)


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda e: e.name)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_order_and_any_repetition_of_versions_ends_in_the_same_record(
    entity: Entity, data: st.DataObject
) -> None:
    versions = data.draw(histories(entity))[:4]
    if not versions:
        return
    results = [joined(entity, *order) for order in permutations(versions)]
    assert all(result == results[0] for result in results)
    assert joined(entity, *versions, *versions) == results[0]


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda e: e.name)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_merging_is_associative_also_between_joined_states(entity: Entity, data: st.DataObject) -> None:
    versions = data.draw(histories(entity))
    if len(versions) < 3:
        return
    a, b, c = (
        joined(entity, *data.draw(st.lists(st.sampled_from(versions), min_size=1, max_size=3)))
        for _ in range(3)
    )
    left = merge(entity, merge(entity, a, b).record, c).record
    right = merge(entity, a, merge(entity, b, c).record).record
    assert left == right
    assert merge(entity, a, b).record == merge(entity, b, a).record


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda e: e.name)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_merging_is_monotone_and_an_old_version_changes_nothing(entity: Entity, data: st.DataObject) -> None:
    versions = data.draw(histories(entity))
    if len(versions) < 2:
        return
    whole = joined(entity, *versions)
    for version in versions:
        assert covers(whole.vv, version.vv)
        again = merge(entity, whole, version)
        assert again.record == whole
    if any(v.erased for v in versions):
        assert whole.erased
        assert not any(whole.data.values())


@pytest.mark.parametrize(
    "entity", [e for e in ENTITIES if e.strategy is not Strategy.MERGE], ids=lambda e: e.name
)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_concurrent_version_that_loses_whole_is_a_conflict(entity: Entity, data: st.DataObject) -> None:
    versions = data.draw(histories(entity, erasures=False))
    for a in versions:
        for b in versions:
            merged = merge(entity, a, b)
            concurrent = compare(a.vv, b.vv) is Order.CONCURRENT
            compared = [entity.identity, entity.precedence] if entity.identity else list(a.data)
            if concurrent and any(a.data[str(name)] != b.data[str(name)] for name in compared):
                (conflict,) = merged.conflicts
                loser = a if merged.record.data == b.data else b
                assert conflict.value == loser.data
                assert conflict.loser == loser.stamp
            else:
                assert not merged.conflicts


@pytest.mark.parametrize("entity", [e for e in ENTITIES if e.precedence], ids=lambda e: e.name)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_two_regions_decided_becomes_the_strictest(entity: Entity, data: st.DataObject) -> None:
    versions = data.draw(histories(entity, erasures=False))
    values = entity.field(str(entity.precedence)).values
    ranks = [values.index(v.data[str(entity.precedence)]) for v in versions]
    kept = joined(entity, *versions).data[str(entity.precedence)]
    assert values.index(kept) == max(ranks)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_concurrent_latest_value_that_loses_is_a_conflict_and_counters_add_up(data: st.DataObject) -> None:
    entity = entities()["user_profile"]
    versions = data.draw(histories(entity, erasures=False))
    for a in versions:
        for b in versions:
            if compare(a.vv, b.vv) is not Order.CONCURRENT:
                assert not merge(entity, a, b).conflicts
                continue
            merged = merge(entity, a, b)
            lost = {c.field: c.value for c in merged.conflicts}
            for field in (f for f in entity.fields if f.rule is Rule.LATEST):
                stamps = [r.meta.get(field.name) for r in (a, b)]
                if None in stamps or stamps[0] == stamps[1] or a.data[field.name] == b.data[field.name]:
                    assert field.name not in lost
                elif field.name in lost:
                    assert {merged.record.data[field.name], lost[field.name]} == {
                        a.data[field.name],
                        b.data[field.name],
                    }
            own = {
                o: s[1]
                for r in (a, b)
                for o, s in sorted(r.meta.get("login_count", {}).items(), key=lambda i: i[1][0])
            }
            assert set(own) <= set(merged.record.meta.get("login_count", {}))
            counted = merged.record.meta.get("login_count", {})
            total = sum(s[1] for s in counted.values()) if counted else None
            assert merged.record.data["login_count"] == total


def test_a_create_that_is_done_in_two_regions_counts_once() -> None:
    key = UUID(int=1)
    first = write(PROFILE, None, key, {"login_count": 3}, "eu-west-1#a", 1_000)
    again = write(PROFILE, None, key, {"login_count": 3}, "eu-central-1#b", 2_000)
    later = write(PROFILE, again, key, {"login_count": 5}, "eu-central-1#b", 3_000)
    assert merge(PROFILE, first, again).record.data["login_count"] == 3
    assert merge(PROFILE, first, later).record.data["login_count"] == 5
