"""Writers of global databases, moved on RDS as moto has it: fenced first, and nothing lost that need not be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from random import Random
from typing import Any

import httpx
import pytest
from tests.cluster.conftest import folder
from tests.conformance.conftest import missing
from tests.conformance.route53 import Proxy, direct, moto

from acgs2.drivers.aurora import AuroraActor
from acgs2.drivers.aws import Patience
from acgs2.drivers.cloud import Cloud
from acgs2.errors import RefusedError, UnavailableError
from acgs2.plan.steps import Plan, Step, StepKind

LEFT, TARGET, OTHER = "us-east-1", "eu-west-1", "eu-central-1"
OPEN, CLOSED = ("sg-00000001",), ("sg-0000000c",)
QUICK = Patience(deadline_s=1, base_s=0.01, cap_s=0.05, settle_s=60, poll_s=0.01)
STEP = Step(StepKind.DATABASE, "us", TARGET)
PLAN = Plan("p1", "failover", LEFT, "test", 0, (STEP, Step(StepKind.READMIT), Step(StepKind.CLOSE)))
MOVES = r"(Failover|Switchover)GlobalCluster$"


@pytest.fixture(scope="module", autouse=True)
def _credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@dataclass
class World:
    """RDS and CloudWatch behind a proxy, with a global database of three regions whose first one writes."""

    server: str
    proxy: Proxy

    def reset(self, first: str = "acgs2-us") -> None:
        httpx.post(f"{self.server}/moto-api/reset", trust_env=False).raise_for_status()
        self.proxy.reset()
        direct(self.server, "rds").create_global_cluster(
            GlobalClusterIdentifier="acgs2-us", Engine="aurora-postgresql"
        )
        for region in (LEFT, TARGET, OTHER):
            direct(self.server, "rds", region).create_db_cluster(
                DBClusterIdentifier=first if region == LEFT else "acgs2-us",
                Engine="aurora-postgresql",
                GlobalClusterIdentifier="acgs2-us",
                VpcSecurityGroupIds=[*(OPEN if region == LEFT else CLOSED)],
            )

    @property
    def writer(self) -> str:
        found = direct(self.server, "rds").describe_global_clusters()["GlobalClusters"][0]
        return next(m["DBClusterArn"] for m in found["GlobalClusterMembers"] if m["IsWriter"]).split(":")[3]

    def groups(self, region: str) -> tuple[str, ...]:
        found = direct(self.server, "rds", region).describe_db_clusters()["DBClusters"][0]
        return tuple(g["VpcSecurityGroupId"] for g in found["VpcSecurityGroups"])

    def lag(self, ms: float, ago: timedelta = timedelta(seconds=90)) -> None:
        dimensions = [{"Name": "DBClusterIdentifier", "Value": "acgs2-us"}]
        point = {"MetricName": "AuroraGlobalDBRPOLag", "Dimensions": dimensions, "Value": ms}
        direct(self.server, "cloudwatch", TARGET).put_metric_data(
            Namespace="AWS/RDS",
            MetricData=[{**point, "Timestamp": datetime.now(UTC) - ago, "Unit": "Milliseconds"}],
        )

    def moves(self) -> list[str]:
        found = [re.search(MOVES, request) for request, _ in self.proxy.seen]
        return [one[1] for one in found if one]

    def changes(self) -> list[str]:
        return [request for request, _ in self.proxy.seen if re.search(" rds .* (?!Describe)", request)]

    def away(self, region: str = LEFT) -> None:
        """Have a region's RDS answer nobody."""
        self.proxy.fail(f" rds {region} ", *["before"] * 10_000)

    def actor(self, *, groups: bool = True, patience: Patience = QUICK, **decided: Any) -> AuroraActor:
        places = {r: {"open_groups": OPEN, "closed_groups": CLOSED} for r in (LEFT, TARGET)} if groups else {}
        cloud = Cloud.model_validate(
            {
                "regions": places,
                "databases": {"us": {"global_cluster": "acgs2-us", **decided}},
                "endpoints": {"rds": self.proxy.url, "cloudwatch": self.proxy.url},
            }
        )
        return AuroraActor(
            cloud, patience=patience, glance=Patience(0.2, 0.01, 0.05), rng=Random(7), pause=lambda _: None
        )


@pytest.fixture(scope="module")
def servers() -> Iterator[World]:
    if not all(map(find_spec, ("boto3", "moto", "flask"))):
        missing("moto's server is not installed; the extra `test` has it")
    with folder() as path, moto(path / "moto.log") as url, Proxy(url).running() as proxy:
        yield World(url, proxy)


@pytest.fixture
def world(servers: World) -> World:
    servers.reset()
    return servers


def act(actor: AuroraActor, step: Step = STEP, *, dry_run: bool = False) -> str:
    return "\n".join(actor.act(step, PLAN, dry_run=dry_run))


def test_a_writer_that_answers_is_closed_and_hands_over_without_loss(world: World):
    said = act(world.actor())
    assert world.writer == TARGET
    assert world.moves() == ["Switchover"]
    assert (world.groups(LEFT), world.groups(TARGET)) == (CLOSED, OPEN)
    assert "nothing is lost" in said
    order = [r.rpartition(" ")[2] for r in world.changes()]
    assert order == [
        "ModifyDBCluster",
        "ModifyDBCluster",
        "SwitchoverGlobalCluster",
    ]  # fenced before it moves
    assert " us-east-1 " in world.changes()[0]


def test_twice_is_once(world: World):
    act(world.actor())
    world.proxy.reset()
    said = act(world.actor())
    assert world.changes() == []
    assert said == f"aurora: zone us: {TARGET} writes acgs2-us"


def test_a_dry_run_says_every_call_and_makes_none_that_changes(world: World):
    said = act(world.actor(), dry_run=True)
    assert world.changes() == []
    assert world.writer == LEFT
    assert [re.search(r"us: (\w+):", line)[1] for line in said.splitlines()] == [  # type: ignore[index]
        "modify_db_cluster",
        "modify_db_cluster",
        "switchover_global_cluster",
    ]


def test_nothing_is_lost_that_nobody_decided_to_lose(world: World):
    world.away()
    world.lag(1500)
    with pytest.raises(RefusedError, match=r"eu-west-1 is 1.5 s behind") as caught:
        act(world.actor())
    assert caught.value.reference == "data-loss-not-decided"
    assert world.moves() == []


def test_by_decision_it_fails_over_and_says_what_may_be_lost(world: World):
    world.away()
    world.lag(1500)
    world.lag(9000, timedelta(minutes=5))  # older
    said = act(world.actor(data_loss="allow"))
    assert world.writer == TARGET
    assert world.moves() == ["Failover"]
    assert b"AllowDataLoss=true" in next(b for r, b in world.proxy.seen if re.search(MOVES, r))
    assert "what may be lost: 1.5 s (AuroraGlobalDBRPOLag at " in said
    assert "RDS in us-east-1 does not answer" in said
    assert world.groups(LEFT) == OPEN  # could not be closed, and it was said


def test_a_decision_has_a_limit_and_what_is_unknown_is_beyond_it(world: World):
    world.away()
    for ms in (None, 2500.0):
        if ms is not None:
            world.lag(ms)
        with pytest.raises(RefusedError) as caught:
            act(world.actor(data_loss="allow", at_most_s=2))
        assert caught.value.reference == "data-loss-too-large"
    assert world.moves() == []
    act(world.actor(data_loss="allow", at_most_s=3))
    assert world.writer == TARGET


def test_without_a_metric_the_loss_is_said_to_be_unknown(world: World):
    world.away()
    assert "what may be lost: unknown" in act(world.actor(data_loss="allow"))


def test_who_leads_next_waits_for_what_was_begun(world: World):
    impatient = Patience(1, 0.01, 0.05, settle_s=-1, poll_s=0.01)
    with pytest.raises(UnavailableError, match="does not write acgs2-us yet"):
        act(world.actor(patience=impatient))
    act(world.actor())
    assert world.writer == TARGET
    assert world.moves() == ["Switchover"]


def test_a_call_whose_answer_was_lost_is_looked_for(world: World):
    world.proxy.fail("SwitchoverGlobalCluster", "after")
    act(world.actor())
    assert world.writer == TARGET
    assert world.moves() == ["Switchover"]


def test_a_move_to_elsewhere_is_left_alone(world: World):
    clusters = direct(world.server, "rds", OTHER).describe_db_clusters()["DBClusters"]
    direct(world.server, "rds").failover_global_cluster(
        GlobalClusterIdentifier="acgs2-us", TargetDbClusterIdentifier=clusters[0]["DBClusterArn"]
    )
    with pytest.raises(UnavailableError, match=OTHER):
        act(world.actor())
    assert world.moves() == []


def test_a_writer_that_does_not_hand_over_is_asked_again_and_left_by_decision_only(servers: World):
    servers.reset(first="acgs2-us-unwell")
    with pytest.raises(UnavailableError, match="InvalidGlobalClusterStateFault"):
        act(servers.actor(patience=Patience(0.1, 0.01, 0.05, settle_s=0.5, poll_s=0.01)))
    assert set(servers.moves()) == {"Switchover"}
    assert servers.groups(LEFT) == CLOSED
    act(servers.actor(data_loss="allow", patience=Patience(0.1, 0.01, 0.05, settle_s=60, poll_s=0.01)))
    assert servers.writer == TARGET
    assert servers.moves()[-1] == "Failover"


def test_where_there_is_no_cluster_nothing_is_touched(world: World):
    with pytest.raises(RefusedError) as caught:
        act(world.actor(), Step(StepKind.DATABASE, "us", "ap-southeast-1"))
    assert caught.value.reference == "no-database-there"
    assert world.changes() == []
    with pytest.raises(RefusedError, match="no global database"):
        act(
            AuroraActor(
                Cloud.model_validate({**_other(world), "databases": {"us": {"global_cluster": "nope"}}})
            )
        )


def test_a_zone_without_one_writer_needs_nothing(world: World):
    assert "every region of it writes" in act(world.actor(), Step(StepKind.DATABASE, "eu", TARGET))
    assert world.proxy.seen == []


def test_a_region_that_comes_back_is_opened_and_does_not_write(world: World):
    act(world.actor())
    act(world.actor(), Step(StepKind.READMIT))
    assert world.groups(LEFT) == OPEN
    assert world.writer == TARGET


def test_without_groups_it_says_what_is_not_fenced(world: World):
    assert "its servers are fenced, its database is not" in act(world.actor(groups=False))
    assert world.groups(LEFT) == OPEN


def _other(world: World) -> dict[str, Any]:
    return {"endpoints": {"rds": world.proxy.url, "cloudwatch": world.proxy.url}}
