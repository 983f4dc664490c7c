"""Whole plans in the cloud as moto has it: every step by whoever has a part in it, DNS without holding it up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import pytest
from tests.cluster.conftest import folder
from tests.conformance.conftest import missing
from tests.conformance.hosted_zone import Api, HostedZone
from tests.conformance.route53 import RECORDS, Proxy, direct, moto

from acgs2.api.actors import acted, actors_of
from acgs2.drivers.dns import Desired, desired
from acgs2.drivers.route53 import connect
from acgs2.errors import UnavailableError
from acgs2.plan import rights_of
from acgs2.plan.failback import failback
from acgs2.plan.failover import Circumstances, failover
from acgs2.plan.steps import Agreed, Note, Plan, Shares, Step, StepKind
from acgs2.topology import load

LOCAL = load("local")
RIGHTS = rights_of(LOCAL, datetime(2026, 12, 1, tzinfo=UTC))
LEFT = "us-east-1"
ALL = frozenset(StepKind)
PLAN = failover(LEFT, Circumstances(LOCAL, RIGHTS), plan_id="p1", now_us=0, cause="test", outside=ALL)
BACK = failback(LEFT, LOCAL, plan_id="p2", now_us=0, cause="test")


@pytest.fixture(scope="module", autouse=True)
def _credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    if not all(map(find_spec, ("boto3", "moto", "flask"))):
        missing("moto's server is not installed; the extra `test` has it")
    with folder() as path, moto(path / "moto.log") as url, Proxy(url).running() as proxy:
        yield Api(proxy, connect(endpoint_url=proxy.url), direct(url), url)


class World:
    """A hosted zone, a global database of zone us, and what is agreed on."""

    def __init__(self, api: Api) -> None:
        api.reset()
        self.api, self.zone, self.agreed = api, HostedZone(api), Agreed()
        rds = direct(api.server, "rds")
        rds.create_global_cluster(GlobalClusterIdentifier="acgs2-us", Engine="aurora-postgresql")
        for region in LOCAL.stacks():
            direct(api.server, "rds", region).create_db_cluster(
                DBClusterIdentifier="acgs2-us",
                Engine="aurora-postgresql",
                GlobalClusterIdentifier="acgs2-us",
            )
        settings: dict[str, Any] = {
            "hosted_zones": {"aws": self.zone.id},
            "databases": {"us": {"global_cluster": "acgs2-us"}},
            "endpoints": dict.fromkeys(("rds", "cloudwatch", "route53"), api.proxy.url),
        }
        self.actors = actors_of(
            ["acgs2.drivers.actors:cloud_actors"], LOCAL, settings, lambda: self.agreed, lambda: RIGHTS
        )

    def act(self, step: Step, plan: Plan, *, dry_run: bool = False) -> list[str]:
        return asyncio.run(acted(self.actors, plan, step, dry_run=dry_run))

    def wanted(self, shares: Shares) -> Desired:
        return desired(LOCAL, RIGHTS, dict.fromkeys(shares.down, False), shares.weights)

    @property
    def writer(self) -> str:
        found = direct(self.api.server, "rds").describe_global_clusters()["GlobalClusters"][0]
        return next(m["DBClusterArn"] for m in found["GlobalClusterMembers"] if m["IsWriter"]).split(":")[3]

    def changes(self) -> list[str]:
        seen = [request for request, _ in self.api.proxy.seen]
        return [
            r
            for r in seen
            if re.search(r" rds .* (?!Describe)|(?<!/tags)/(rrset|healthcheck)$", r) and "GET" not in r
        ]


@pytest.fixture
def world(api: Api) -> World:
    return World(api)


def test_a_failover_and_the_way_back(world: World):
    world.zone.apply(world.wanted(Shares()))
    world.agreed = world.agreed.opened(PLAN)
    for plan in (PLAN, BACK):
        world.agreed = world.agreed.opened(plan)
        while (known := world.agreed.plans.get(LEFT)) is not None:
            step = plan.steps[known.at]
            for _ in range(2):  # as whoever leads next would
                world.act(step, known)
            if step.kind in (StepKind.FENCE, StepKind.WEIGHT, StepKind.CLOSE):
                world.zone.must_say(world.wanted(world.agreed.shares))
            world.agreed = world.agreed.advanced(known, Note(known.at, 0, "x", 1))
            world.agreed.check_invariants()
        assert world.writer == "eu-west-1"
    assert world.agreed.shares == Shares()
    moves = [r for r in world.changes() if "GlobalCluster" in r]
    assert len(moves) == 1


def test_a_dry_run_says_what_every_step_would_call_and_changes_nothing(world: World):
    world.zone.apply(world.wanted(Shares()))
    world.api.proxy.reset()
    said = {step: world.act(step, PLAN, dry_run=True) for step in PLAN.steps}
    assert world.changes() == []
    lines = "\n".join(line for each in said.values() for line in each)
    assert "change_resource_record_sets" in lines
    assert "switchover_global_cluster: acgs2-us from us-east-1 to eu-west-1; nothing is lost" in lines


def test_a_fence_goes_on_without_dns_and_a_plan_is_not_closed_without_it(world: World):
    world.zone.apply(world.wanted(Shares()))
    world.agreed = world.agreed.opened(PLAN)
    world.api.proxy.fail(RECORDS, *["503"] * 10_000)
    fence, close = PLAN.steps[1], PLAN.steps[-1]
    [line] = world.act(fence, PLAN)
    assert "Health checks turn away" in line
    with pytest.raises(UnavailableError):
        world.act(close, PLAN)
    world.api.proxy.reset()
    world.act(close, PLAN)
    world.zone.must_say(world.wanted(Shares(down=(LEFT,))))


def test_others_that_take_no_part_stay_out(world: World):
    world.agreed = Agreed(traffic=Shares(down=("eu-central-1",)), operator=Shares(weights={"eu-west-1": 50}))
    world.act(PLAN.steps[1], PLAN)
    world.zone.must_say(world.wanted(Shares(("eu-central-1", LEFT), {"eu-west-1": 50})))
