"""What regions see of each other, who takes part, and what the edge makes of it: over real links, with real faults."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from tests.cluster.conftest import await_that, finish, folder
from tests.cluster.front.stage import SMALL
from tests.cluster.local.test_cluster import CENTRAL, US, WEST
from tests.cluster.local.test_governance import agent, call, governs, isolated, send

from acgs2.api.standing import KEY
from acgs2.consensus import PaxosRegister
from acgs2.consensus.voters import DatabaseVoter
from acgs2.local.cluster import Cluster, up
from acgs2.local.loopback import loopback
from acgs2.plan import Agreed, Judged, Observation, Plan, Step, StepKind, agreed_of, document_of, judge

REGIONS = (WEST, CENTRAL, US)
#: What a busy machine may take on top of what a promise is about.
BUSY_S = 1.0
FENCED = Plan("f-1", "failover", WEST, "a drill.", 1, (Step(StepKind.FENCE), Step(StepKind.CLOSE)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with folder() as path:
        (path / "small.yaml").write_text(SMALL, encoding="utf-8")
        running = up(path / "small.yaml", path / "state")
        try:
            await_that(lambda: all(governs(running, r) for r in REGIONS), "all regions to govern")
            yield running
        finally:
            finish(running)


def told(cluster: Cluster, region: str) -> dict[str, Any]:
    """Return what a region says of others and itself; nothing, if it does not answer."""
    try:
        answer = loopback().get(f"{cluster.state.url(region)}/health/observations", timeout=2)
        return answer.json()  # type: ignore[no-any-return]
    except httpx.HTTPError:
        return {}


def seen(cluster: Cluster, observer: str, subject: str) -> Observation:
    found = told(cluster, observer).get("observations", [])
    mine = [msgspec.convert(one, Observation) for one in found if one["subject"] == subject]
    return mine[0] if mine else Observation(observer, subject)


def judged(cluster: Cluster, region: str) -> Judged:
    """Return what a majority holds of a region, by what the others say."""
    others = [each for each in REGIONS if each != region]
    rows = [one for each in others for one in told(cluster, each).get("observations", [])]
    settings = cluster.state.topology.failover
    return judge(REGIONS, REGIONS, msgspec.convert(rows, list[Observation]), settings)[region]


def is_up(cluster: Cluster, *regions: str) -> None:
    await_that(
        lambda: all(judged(cluster, region).state == "up" for region in regions or REGIONS),
        f"a majority to see that {regions or 'all'} serve",
        40,
    )


def agree(cluster: Cluster, decide: Callable[[Agreed], Agreed]) -> Agreed:
    """Change what is agreed on traffic, as whoever leads would."""

    async def changed() -> Agreed:
        voters = {r: DatabaseVoter(cluster.state.dsn(r, "acgs_owner")) for r in REGIONS}
        try:
            found = await PaxosRegister(voters, "leader").change(
                KEY, lambda value: document_of(decide(agreed_of(value)))
            )
            return agreed_of(found.value)
        finally:
            for voter in voters.values():
                await voter.close()

    return asyncio.run(changed())


@contextmanager
def fenced(cluster: Cluster, region: str) -> Iterator[str]:
    plan = msgspec.structs.replace(FENCED, region=region, id=str(uuid4()))
    agree(cluster, lambda now: now.opened(plan))
    try:
        yield plan.id
    finally:
        agree(
            cluster,
            lambda now: msgspec.structs.replace(now, traffic=now.traffic.giving(region, 100), plans={}),
        )


def reference(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition("/")[2]


@contextmanager
def dublin(cluster: Cluster) -> Iterator[httpx.Client]:
    trust = ssl.create_default_context(cafile=cluster.state.trust)
    url = cluster.state.edge_url("dublin")
    with httpx.Client(base_url=url, verify=trust, trust_env=False, timeout=10) as http:
        yield http


def by(http: httpx.Client) -> str:
    """Return which region answers a read of zone `all` through the edge."""
    return http.get("/api/v1/tenants", headers={"x-data-sovereignty": "all"}).headers.get(
        "x-acgs2-region", ""
    )


def test_every_region_sees_every_other_and_says_how_it_stands(cluster: Cluster) -> None:
    is_up(cluster)
    for region in REGIONS:
        found = told(cluster, region)
        assert found["region"] == region
        assert sorted(one["subject"] for one in found["observations"]) == sorted({*REGIONS} - {region})
        assert all(one["age_s"] < 1 + BUSY_S for one in found["observations"])
        standing = found["standing"]
        assert (standing["ready"], standing["missing"], standing["seeded"]) == (True, [], True)
        assert standing["lag_s"] < 1
        assert standing["governing"].keys() == {"constitution", "policies", "halts"}
        metrics = loopback().get(f"{cluster.state.url(region)}/metrics").text
        for other in {*REGIONS} - {region}:
            assert f'acgs2_observed_failures{{region="{other}"}} 0.0' in metrics
        assert "acgs2_fenced 0.0" in metrics


def test_what_a_region_sees_is_not_told_to_clients(cluster: Cluster) -> None:
    trust = ssl.create_default_context(cafile=cluster.state.trust)
    for url in (cluster.state.gateway_url(WEST), cluster.state.edge_url("dublin")):
        with httpx.Client(base_url=url, verify=trust, trust_env=False) as http:
            assert http.get("/health/observations").status_code == 404
    between = loopback().get(cluster.state.peer_url(US, WEST) + "/health/observations")
    assert (between.status_code, between.json()["region"]) == (200, WEST)
    assert loopback().get(cluster.state.peer_url(US, WEST) + "/api/v1/lag").status_code == 404


def test_requests_are_counted_by_zone(cluster: Cluster) -> None:
    before = told(cluster, US)["tally"].get("us", {"requests": 0, "reads": 0, "errors": 0})
    for path in ("tenants", "tenants", "tenants/00000000-0000-0000-0000-000000000000"):
        call(cluster, US, "GET", f"/api/v1/{path}", headers={"x-data-sovereignty": "us"})
    now = told(cluster, US)["tally"]["us"]
    assert (now["requests"], now["reads"]) == (before["requests"] + 3, before["reads"] + 3)
    assert now["errors"] == before["errors"]
    assert sum(now["ms_buckets"]) == now["requests"]


def test_a_region_that_is_cut_off_from_one_other_is_seen_to_fail_by_that_one_only(cluster: Cluster) -> None:
    is_up(cluster)
    cluster.link("cut", US, WEST, one_way=True)
    try:
        # Neither gets the other's answers when one direction carries nothing.
        failing = await_that(
            lambda: (s := seen(cluster, WEST, US)).failures >= 4 and s, "the cut to be seen", 20
        )
        assert failing.problem == "timeout"
        await_that(lambda: seen(cluster, US, WEST).failures >= 4, "the other to see it")
        assert (seen(cluster, CENTRAL, US).failures, seen(cluster, CENTRAL, WEST).failures) == (0, 0)
        for region in (US, WEST):
            assert judged(cluster, region).state == "unsure"
            assert "no majority" in judged(cluster, region).why
    finally:
        cluster.link("restore", US, WEST)
    is_up(cluster)


@pytest.mark.parametrize(
    ("fault", "undo", "component", "problem"),
    [
        ("freeze", "thaw", "all", "timeout"),
        ("freeze", "thaw", "server", "timeout"),
        ("kill", "start", "gateway", "refused"),
        ("kill", "start", "server", "region-"),
        ("kill", "start", "postgres", "not-ready: database"),
    ],
)
def test_a_majority_sees_soon_that_a_region_does_not_serve(
    cluster: Cluster, fault: str, undo: str, component: str, problem: str
) -> None:
    is_up(cluster)
    began_s = time.monotonic()
    cluster.ask(fault, region=US, component=component)
    try:
        found = await_that(lambda: (j := judged(cluster, US)).state == "down" and j, "it to be seen", 20)
        took_s = time.monotonic() - began_s
        print(f"{fault} {component}: down after {took_s:.2f} s")
        assert (found.down_by, found.up_by) == ((CENTRAL, WEST), ())
        assert problem in found.why, found.why
        settings = cluster.state.topology.failover
        assert took_s < settings.failures * settings.interval_s + 1 + BUSY_S
    finally:
        cluster.ask(undo, region=US, component=component)
    is_up(cluster)


def test_a_link_that_is_slow_is_not_one_that_is_dead(cluster: Cluster) -> None:
    is_up(cluster)
    for other in (WEST, CENTRAL):
        cluster.link("set", US, other, factor=5)
    try:
        until_s = time.monotonic() + 8
        while time.monotonic() < until_s:
            assert judged(cluster, US).state != "down"
            time.sleep(0.2)
    finally:
        for other in (WEST, CENTRAL):
            cluster.link("restore", US, other)
    is_up(cluster)


def test_a_fenced_region_stops_governing_and_hands_its_inboxes_over(cluster: Cluster) -> None:
    tenant, sender = agent(cluster, WEST, "eu")
    await_that(lambda: send(cluster, WEST, "eu", tenant, sender).status_code == 201, "a message to be taken")

    def serves(region: str) -> bool:
        path, headers = f"/api/v1/inboxes/{sender}/claim", {"x-data-sovereignty": "eu"}
        who: dict[str, Any] = {"role": "agent", "tenant": tenant, "subject": sender}
        claim = call(cluster, region, "POST", path, headers=headers, json={"hold_s": 1}, **who)
        return claim.status_code == 200

    await_that(lambda: serves(WEST), "the first home region to serve the inboxes of its zone")
    with fenced(cluster, WEST) as plan:
        began_s = time.monotonic()
        # What was under way at that moment may have been stored, and is not said to be refused.
        refused = lambda a: a.status_code == 503 and reference(a) != "outcome-unknown" and a  # noqa: E731
        answer = await_that(lambda: refused(send(cluster, WEST, "eu", tenant, sender)), "the fence")
        assert time.monotonic() < began_s + 0.4 + 2 * BUSY_S
        assert reference(answer) == "fenced"
        assert answer.headers["x-acgs2-nothing-stored"] == "1"
        assert f"failover {plan}: a drill" in answer.json()["detail"]
        assert answer.json()["plan"] == plan
        governing = loopback().get(f"{cluster.state.url(WEST)}/health/governing")
        assert (governing.status_code, governing.json()["missing"]) == (503, ["serving"])
        assert plan in governing.json()["fenced"]
        assert loopback().get(f"{cluster.state.url(WEST)}/health/ready").status_code == 200
        assert "acgs2_fenced 1.0" in loopback().get(f"{cluster.state.url(WEST)}/metrics").text
        await_that(lambda: serves(CENTRAL), "the next home region to serve the inboxes", 5)
        assert not serves(WEST)
        assert send(cluster, CENTRAL, "eu", tenant, sender).status_code == 201
        with dublin(cluster) as http:
            await_that(lambda: by(http) == CENTRAL, "the edge to go by it", 3)
        shown = call(cluster, US, "GET", "/api/v1/traffic").json()
        assert (shown["down"], shown["operator"]["down"]) == ([WEST], [])
        kept = call(cluster, US, "POST", "/api/v1/traffic", json={"region": WEST, "weight": 100}).json()
        assert kept["down"] == [WEST], "no operator lets in by hand whom a failover took out"
    await_that(lambda: send(cluster, WEST, "eu", tenant, sender).status_code == 201, "it to govern again")


def test_a_region_that_was_fenced_while_it_was_away_governs_at_no_moment(cluster: Cluster) -> None:
    tenant, sender = agent(cluster, US, "us")
    await_that(lambda: send(cluster, US, "us", tenant, sender).status_code == 201, "a message to be taken")
    cluster.ask("kill", region=US, component="server")
    with fenced(cluster, US):
        cluster.ask("start", region=US, component="server")
        ends_s, said = time.monotonic() + 20, set[str]()
        while "fenced" not in said and time.monotonic() < ends_s:
            answer = send(cluster, US, "us", tenant, sender)
            assert answer.status_code == 503, answer.text
            said.add(reference(answer))
        assert "fenced" in said
        for _ in range(20):
            assert send(cluster, US, "us", tenant, sender).status_code == 503
    await_that(lambda: send(cluster, US, "us", tenant, sender).status_code == 201, "it to govern again")


def test_a_region_that_is_fenced_while_it_is_cut_off_stops_within_a_lease(cluster: Cluster) -> None:
    tenant, sender = agent(cluster, US, "us")
    await_that(lambda: send(cluster, US, "us", tenant, sender).status_code == 201, "a message to be taken")
    lease_s = cluster.state.topology.failover.failures * cluster.state.topology.failover.interval_s
    with isolated(cluster, US):
        cut_s = time.monotonic()
        with fenced(cluster, US):
            await_that(lambda: send(cluster, US, "us", tenant, sender).status_code == 503, "it to stop")
            assert time.monotonic() < cut_s + lease_s + BUSY_S
            for _ in range(5):
                assert reference(send(cluster, US, "us", tenant, sender)) == "not-governing"
            for other in (WEST, CENTRAL):
                cluster.link("restore", US, other)
            answer = await_that(
                lambda: reference(a := send(cluster, US, "us", tenant, sender)) == "fenced" and a, "the fence"
            )
            assert answer.status_code == 503
    await_that(lambda: send(cluster, US, "us", tenant, sender).status_code == 201, "it to govern again")


@pytest.mark.parametrize(("asked", "silent"), [(US, ""), (CENTRAL, ""), (WEST, ""), (CENTRAL, US)])
def test_the_edge_sends_nothing_a_second_after_a_drain_in_whichever_region(
    cluster: Cluster, asked: str, silent: str
) -> None:
    is_up(cluster)
    change = {"region": WEST, "down": True}
    with dublin(cluster) as http:
        await_that(lambda: by(http) == WEST, "the nearest region to answer")
        if silent:
            cluster.ask("freeze", region=silent, component="server")
        try:
            answer = call(cluster, asked, "POST", "/api/v1/traffic", json=change)
            drained_s = time.monotonic()
            assert answer.status_code == 200, answer.text
            await_that(lambda: by(http) == CENTRAL, "the next region to answer", 1 + BUSY_S)
            print(f"the edge went by it after {time.monotonic() - drained_s:.2f} s")
            for _ in range(10):
                assert by(http) == CENTRAL
        finally:
            if silent:
                cluster.ask("thaw", region=silent, component="server")
            call(cluster, asked, "POST", "/api/v1/traffic", json={"region": WEST, "weight": 100})
        await_that(lambda: by(http) == WEST, "the nearest region to answer again")
