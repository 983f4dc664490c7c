"""Properties of the routing decision over random rights, health, weights and preferences."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acgs2.plan import Kind, Rights, Target, rights_of, route
from acgs2.topology import load

LOCAL = load("local")
NOW = datetime(2026, 12, 1, tzinfo=UTC)
RIGHTS = rights_of(LOCAL, NOW)
REGIONS = LOCAL.stacks()
ENTITIES = ["tenant", "tenant_config", "user_profile", "agent", "audit_event"]
some_regions = st.frozensets(st.sampled_from(REGIONS))


@st.composite
def rights(draw: st.DrawFn) -> Rights:
    holders = {(z, e): draw(some_regions) for z in LOCAL.zones for e in [*ENTITIES, "consent"]}
    return Rights(holders)


asked = st.fixed_dictionaries(
    {
        "health": st.dictionaries(st.sampled_from(REGIONS), st.booleans()),
        "weights": st.dictionaries(st.sampled_from(REGIONS), st.integers(0, 100)),
        "place": st.sampled_from([*LOCAL.places, *LOCAL.regions]),
        "zone": st.sampled_from([*LOCAL.zones, None]),
        "preference": st.sampled_from([*LOCAL.regions, "auto"]),
        "entity": st.sampled_from([*ENTITIES, None]),
        "kind": st.sampled_from([*Kind]),
    }
)


@given(rights(), asked)
def test_nothing_goes_where_it_may_not_be(rights, asked):
    found = route(LOCAL, rights, **asked)
    for target in found.targets:
        assert asked["zone"] is None or target.region in rights.lawful(asked["zone"], asked["entity"])
        assert asked["health"].get(target.region, True)
        assert asked["preference"] in ("auto", target.region)


@given(rights(), asked)
def test_shares_make_one_or_a_problem_says_why(rights, asked):
    found = route(LOCAL, rights, **asked)
    if found.targets:
        assert sum(t.share for t in found.targets) == pytest.approx(1)
        assert all(0 <= t.share <= 1 for t in found.targets)
        assert not found.problem
    else:
        assert found.problem in ("region-not-lawful", "no-lawful-target")


@given(rights(), asked, st.sampled_from([Kind.READ, Kind.MERGEABLE]))
def test_the_nearest_comes_first_and_takes_its_weight(rights, asked, kind):
    found = route(LOCAL, rights, **asked | {"kind": kind})
    distances = [t.rtt_ms for t in found.targets]
    assert distances == sorted(distances)
    weights = [asked["weights"].get(t.region, 100) for t in found.targets]
    if 100 in weights:  # somebody takes all that is left
        assert [t.share for t in found.targets][:1] == [weights[0] / 100]


@given(rights(), asked)
def test_a_versioned_write_has_one_place_wherever_it_comes_from(rights, asked):
    asked |= {"kind": Kind.VERSIONED, "preference": "auto"}
    if asked["zone"] is not None:
        found = {route(LOCAL, rights, **asked | {"place": place}).regions for place in LOCAL.places}
        assert len(found) == 1
        assert len(found.pop()) <= 1


@given(rights(), asked, st.sampled_from(REGIONS))
def test_who_goes_down_gives_only_what_it_had(rights, asked, region):
    asked |= {"kind": Kind.READ}
    before = route(LOCAL, rights, **asked)
    after = route(LOCAL, rights, **asked | {"health": {**asked["health"], region: False}})
    assert after.regions == tuple(r for r in before.regions if r != region)


@given(st.lists(rights(), min_size=1, max_size=3))
def test_a_right_that_one_view_lacks_is_not_used(views):
    both = Rights.shared(views)
    for zone in LOCAL.zones:
        for entity in ENTITIES:
            assert both.lawful(zone, entity) == frozenset.intersection(
                *(v.lawful(zone, entity) for v in views)
            )


def test_the_local_topology_as_people_expect_it():
    def go(place, zone, **more):
        return route(LOCAL, RIGHTS, {}, {}, place, zone, **more)

    assert go("dublin", "eu").regions == ("eu-west-1", "eu-central-1")
    assert go("frankfurt", "eu").regions == ("eu-central-1", "eu-west-1")
    # Profiles of eu may be in us-east-1, its tenants may not: it cannot serve them by itself.
    assert go("new-york", "eu", entity="user_profile").regions == ("eu-west-1", "eu-central-1")
    assert go("new-york", "eu", entity="user_profile", preference="us-east-1").regions == ("us-east-1",)
    assert go("new-york", "eu", entity="tenant", preference="us-east-1").problem == "region-not-lawful"
    assert go("new-york", "sg").regions == ("us-east-1", "ap-southeast-1")
    assert go("frankfurt", "eu", entity="tenant_config", kind=Kind.VERSIONED).regions == ("eu-west-1",)
    assert go("dublin", None).regions[0] == "eu-west-1"
    assert go("dublin", "mars").problem == "zone-unknown"
    assert go("dublin", "eu", preference="eu-moon-1").problem == "region-unknown"
    both_down = {"eu-west-1": False, "eu-central-1": False}
    assert route(LOCAL, RIGHTS, both_down, {}, "dublin", "eu").problem == "no-lawful-target"
    assert route(LOCAL, RIGHTS, both_down, {}, "dublin", "us").regions == ("us-east-1",)


def test_a_region_is_a_place_too():
    def go(place, zone):
        return route(LOCAL, RIGHTS, {}, {}, place, zone)

    assert go("eu-west-1", "eu").targets[0] == Target("eu-west-1", 0.0, 1.0)
    for region in REGIONS:
        rtts_ms = {n.b if n.a == region else n.a: n.rtt_ms for n in LOCAL.links() if region in (n.a, n.b)}
        found = {t.region: t.rtt_ms for t in go(region, None).targets}
        assert found == {r: rtts_ms.get(r, 0.0) for r in REGIONS}
    assert go("ca-central-1", None).regions[0] == "us-east-1"  # a witness's region has clients too
    far = load("global")
    assert route(far, rights_of(far, NOW), {}, {}, "cn-north-1", "cn").regions[0] == "cn-north-1"
    with pytest.raises(KeyError):
        go("atlantis", None)


def test_a_transfer_counts_only_while_it_is_in_force():
    assert "us-east-1" in rights_of(LOCAL, NOW).lawful("sg")
    later = datetime(2028, 1, 2, tzinfo=UTC)
    assert rights_of(LOCAL, later).lawful("sg") == {"ap-southeast-1"}


@pytest.mark.parametrize("weights", [(0, 7, 100), (1, 8, 100), (3, 100, 50)])
def test_nothing_is_left_after_who_takes_all(weights):
    regions = route(LOCAL, RIGHTS, {}, {}, "us-east-1", None).regions
    found = route(LOCAL, RIGHTS, {}, dict(zip(regions, weights, strict=False)), "us-east-1", None)
    after = weights.index(100) + 1
    assert [t.share for t in found.targets][after:] == [0.0] * (len(regions) - after)


def test_weights_share():
    found = route(LOCAL, RIGHTS, {}, {"eu-west-1": 25}, "dublin", "eu")
    assert [(t.region, t.share) for t in found.targets] == [("eu-west-1", 0.25), ("eu-central-1", 0.75)]
    alone = route(LOCAL, RIGHTS, {"eu-central-1": False}, {"eu-west-1": 25}, "dublin", "eu")
    assert [(t.region, t.share) for t in alone.targets] == [("eu-west-1", 1.0)]
