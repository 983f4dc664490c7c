"""The edge's routes say what the routing decision says, and lead only to what is there."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acgs2.drivers.envoy import EdgeSite, Traffic, edge_files, http_api
from acgs2.drivers.envoy.routes import table
from acgs2.model import entities
from acgs2.model.entity import Residency
from acgs2.plan import Rights, rights_of
from acgs2.topology import load

LOCAL = load("local")
RIGHTS = rights_of(LOCAL, datetime(2026, 12, 1, tzinfo=UTC))
OURS = {e.name: e for e in entities().values() if e.residency is Residency.ZONE}
REGIONS = LOCAL.stacks()

rights = st.fixed_dictionaries(
    {(z, e): st.frozensets(st.sampled_from(REGIONS)) for z in LOCAL.zones for e in OURS}
).map(Rights)
traffic = st.builds(
    Traffic,
    rights,
    st.dictionaries(st.sampled_from(REGIONS), st.booleans()),
    st.dictionaries(st.sampled_from(REGIONS), st.integers(0, 100)),
)


def holds(matcher: http_api.HeaderMatcher, headers: dict[str, str]) -> bool:
    value = headers.get(matcher.name, "" if matcher.treat_missing_header_as_empty else None)
    if value is None:
        return matcher.invert_match
    text = matcher.string_match
    if text is None:
        found = matcher.present_match
    elif text.safe_regex is not None:
        found = re.fullmatch(text.safe_regex.regex, value) is not None
    else:
        found = value == text.exact
    return found is not matcher.invert_match


def leads(match: http_api.RouteMatch, path: str) -> bool:
    if match.path is not None:
        return path == match.path
    if match.safe_regex is not None:
        return re.fullmatch(match.safe_regex.regex, path) is not None
    if match.path_separated_prefix is not None:
        return path == match.path_separated_prefix or path.startswith(f"{match.path_separated_prefix}/")
    return path.startswith(match.prefix or "")


def first(config: http_api.RouteConfiguration, path: str, headers: dict[str, str]) -> http_api.Route:
    """Return the route that Envoy takes: the first of which all holds."""
    return next(
        r
        for r in config.virtual_hosts[0].routes
        if leads(r.match, path) and all(holds(m, headers) for m in r.match.headers)
    )


def clusters(route: http_api.Route) -> dict[str, int]:
    action = route.route
    return (
        {c.name: c.weight for c in action.weighted_clusters.clusters}
        if action and action.weighted_clusters
        else {}
    )


def regions(route: http_api.Route) -> set[str]:
    return {region for name in clusters(route) for region in name.partition("/")[2].split("+")}


@settings(max_examples=20, deadline=None)
@given(traffic, st.sampled_from([*LOCAL.places]))
def test_every_route_leads_to_lawful_regions_only(told: Traffic, place: str) -> None:
    config, _ = table(LOCAL, told, place)
    for zone in LOCAL.zones:
        for name, entity in [*OURS.items(), (None, None)]:
            path = f"/api/v1/{entity.path}/x" if entity else "/elsewhere"
            lawful = told.rights.lawful(zone, name)
            for method in ("GET", "POST", "PATCH", "DELETE"):
                for preference in ("auto", *LOCAL.regions):
                    headers = {
                        ":method": method,
                        "x-data-sovereignty": zone,
                        "x-region-preference": preference,
                    }
                    for more in ({}, {"idempotency-key": "k"}):
                        found = first(config, path, headers | more)
                        assert regions(found) <= lawful, (found.name, headers)
                        if found.direct_response is None:
                            assert preference in ("auto", *regions(found))


@settings(max_examples=20, deadline=None)
@given(traffic, st.sampled_from([*LOCAL.places]))
def test_inboxes_are_asked_for_at_home_first_and_then_where_else_they_may_be(
    told: Traffic, place: str
) -> None:
    config, _ = table(LOCAL, told, place)
    for zone, declared in LOCAL.zones.items():
        lawful = told.rights.lawful(zone, "message")
        for path in ("/api/v1/inboxes/x/claim", "/api/v1/inboxes/x/events", "/api/v1/inboxes/x/stream"):
            headers = {":method": "POST", "x-data-sovereignty": zone}
            found = first(config, path, headers)
            assert regions(found) <= lawful
            if found.route is None:
                continue
            (order,) = clusters(found)
            asked = order.partition("/")[2].split("+")
            well = [r for r in asked if told.weights.get(r, 100)] or asked
            homes = [r for r in declared.regions if r in well]
            assert well[: len(homes)] == homes
            retries = found.route.retry_policy
            assert retries is not None
            assert (421 in retries.retriable_status_codes) == (len(asked) > 1)
            streams = not path.endswith("claim")
            assert found.route.timeout == ("0s" if streams else "30s")
            assert bool(found.route.upgrade_configs) == streams
        for preference in lawful:
            found = first(config, "/api/v1/inboxes/x/claim", headers | {"x-region-preference": preference})
            if found.route is not None and found.route.retry_policy is not None:
                assert 421 not in found.route.retry_policy.retriable_status_codes


@settings(max_examples=20, deadline=None)
@given(traffic, st.sampled_from([*LOCAL.places]))
def test_every_route_leads_to_a_cluster_that_is_there(told: Traffic, place: str) -> None:
    site = EdgeSite(Path("/x"), Path("/x/tls"), Path("/x/logs"), {place: 1}, {(place, r): 2 for r in REGIONS})
    resources, orders = edge_files(site, LOCAL, told)
    there = {c.name for c in resources.clusters}
    for route in resources.routes[place].virtual_hosts[0].routes:
        assert clusters(route).keys() <= there
        if clusters(route):
            assert sum(clusters(route).values()) == pytest.approx(10_000, abs=len(REGIONS))
    # What the routes of before named stays for whoever has not yet read those of now.
    later, _ = edge_files(site, LOCAL, Traffic(Rights({})), before=orders)
    assert there <= {c.name for c in later.clusters}


@pytest.mark.parametrize(
    ("path", "headers", "status", "reference"),
    [
        ("/api/v1/users", {}, 400, "zone-missing"),
        ("/api/v1/users/x", {":method": "QUERY"}, 400, "zone-missing"),
        ("/elsewhere", {}, 400, "zone-missing"),
        ("/api/v1/users", {"x-data-sovereignty": "mars"}, 400, "zone-unknown"),
        ("/", {"x-data-sovereignty": "eu,us"}, 400, "zone-unknown"),
        ("/api/v1/users", {"x-data-sovereignty": "eu", "x-region-preference": "mars"}, 400, "region-unknown"),
        (
            "/api/v1/agents",
            {"x-data-sovereignty": "eu", "x-region-preference": "us-east-1"},
            403,
            "region-not-lawful",
        ),
        ("/metrics", {":method": "GET"}, 404, "not-found"),
    ],
)
def test_what_goes_nowhere_is_told_why(
    path: str, headers: dict[str, str], status: int, reference: str
) -> None:
    config, _ = table(LOCAL, Traffic(RIGHTS), "new-york")
    found = first(config, path, {":method": "POST"} | headers).direct_response
    assert found is not None
    assert found.status == status
    assert f"/problems/{reference}" in found.body.inline_string


def test_who_only_reads_needs_no_zone() -> None:
    config, _ = table(LOCAL, Traffic(RIGHTS), "dublin")
    for path in ("/api/v1/users/x", "/health", "/openapi.json"):
        assert "eu-west-1" in regions(first(config, path, {":method": "GET"}))


@pytest.mark.parametrize("place", LOCAL.places)
def test_what_all_regions_agree_on_needs_no_zone_and_a_tenants_policies_do(place: str) -> None:
    config, _ = table(LOCAL, Traffic(RIGHTS), place)
    for path in ("/api/v1/halts", "/api/v1/constitution/amendments", "/api/v1/policies/platform"):
        for method in ("GET", "POST", "PUT"):
            assert first(config, path, {":method": method}).route is not None, path
    tenants = "/api/v1/policies/0199aaaa-0000-7000-8000-000000000000"
    assert first(config, tenants, {":method": "PUT"}).direct_response is not None
    assert first(config, tenants, {":method": "PUT", "x-data-sovereignty": "eu"}).route is not None
