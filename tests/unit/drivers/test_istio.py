"""The mesh goes by the route plan: only lawful endpoints, only lawful ways from one to the next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import routing

from acgs2.drivers.kubernetes.istio import failover_pairs, objects, percents
from acgs2.plan import Rights, rights_of
from acgs2.plan.steps import Shares
from acgs2.topology import load

LOCAL = load("local")
RIGHTS = rights_of(LOCAL, datetime(2026, 12, 1, tzinfo=UTC))
regions = st.sampled_from(LOCAL.stacks())
shares = st.builds(
    lambda down, weights: Shares(tuple(sorted(down)), {r: w for r, w in weights.items() if r not in down}),
    st.frozensets(regions),
    routing.weights(LOCAL),
)


def made(rights: Rights, taking: Shares, here: str) -> dict[tuple[str, str], dict[str, Any]]:
    found = objects(LOCAL, rights, taking, here)
    return {(o["kind"], o["metadata"]["name"].removeprefix("acgs2-")): o["spec"] for o in found}


def settings(spec: dict[str, Any]) -> dict[str, Any]:
    return dict(spec["trafficPolicy"]["loadBalancer"]["localityLbSetting"])


@given(routing.rights(LOCAL), shares, regions)
def test_no_way_of_the_mesh_leaves_the_law(rights: Rights, taking: Shares, here: str) -> None:
    specs = made(rights, taking, here)
    for zone in LOCAL.zones:
        lawful, up = rights.serving(zone), set(LOCAL.stacks()) - {*taking.down}
        service = specs["VirtualService", zone]["http"][0]
        assert ("route" in service) == bool(lawful & up)
        ends = [e["locality"] for e in specs.get(("ServiceEntry", zone), {"endpoints": []})["endpoints"]]
        assert {*ends} <= lawful
        if "route" in service:
            assert {*ends} == lawful & up
        said = settings(specs["DestinationRule", zone])
        assert not {"distribute", "failover"} <= said.keys()  # Istio takes one
        for pair in said.get("failover", ()):
            assert pair["from"] != pair["to"]
            assert pair["to"] in lawful & up
            assert pair["from"] in (lawful & up) | {here}
        assert len({p["from"] for p in said.get("failover", ())}) == len(said.get("failover", ()))
        for each in said.get("distribute", ()):
            assert each["from"] == f"{here}/*"
            assert {region.removesuffix("/*") for region in each["to"]} <= lawful & up
            assert sum(each["to"].values()) == 100
            assert min(each["to"].values()) >= 1
        for a, b in failover_pairs(LOCAL, rights, taking, zone).items():
            assert {a, b} <= lawful & up


@given(st.dictionaries(st.text(max_size=3), st.floats(0.0001, 1), min_size=1, max_size=20))
def test_percents_add_up_and_leave_nobody_out(some: dict[str, float]) -> None:
    total = sum(some.values())
    found = percents({name: share / total for name, share in some.items()})
    assert found.keys() == some.keys()
    assert sum(found.values()) == 100
    assert min(found.values()) >= 1


def test_the_guides_limits_and_a_failover_pair() -> None:
    spec = made(RIGHTS, Shares(), "eu-west-1")["DestinationRule", "eu"]
    assert settings(spec)["failover"] == [
        {"from": "eu-central-1", "to": "eu-west-1"},
        {"from": "eu-west-1", "to": "eu-central-1"},
    ]
    policy = spec["trafficPolicy"]
    assert policy["connectionPool"] == {
        "tcp": {"maxConnections": 100},
        "http": {"http1MaxPendingRequests": 10},
    }
    assert policy["outlierDetection"] == {
        "consecutive5xxErrors": 5,
        "interval": "10s",
        "baseEjectionTime": "30s",
        "maxEjectionPercent": 50,
    }


def test_shares_are_given_where_there_are_any() -> None:
    taking = Shares(weights={"eu-west-1": 25})
    spec = made(RIGHTS, taking, "eu-west-1")["DestinationRule", "eu"]
    assert settings(spec)["distribute"] == [
        {"from": "eu-west-1/*", "to": {"eu-west-1/*": 25, "eu-central-1/*": 75}}
    ]


def test_who_serves_a_zone_not_goes_to_the_nearest_and_then_on() -> None:
    spec = made(RIGHTS, Shares(), "ap-southeast-1")["DestinationRule", "eu"]
    assert {"from": "ap-southeast-1", "to": "eu-central-1"} in settings(spec)["failover"]
