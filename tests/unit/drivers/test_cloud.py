"""cloud.yaml, and what is decided before anything is called."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from acgs2.api.actors import Actor
from acgs2.drivers.actors import cloud_actors
from acgs2.drivers.aurora.move import Global, global_of, next_move
from acgs2.drivers.cloud import Cloud, Database, parse
from acgs2.drivers.shares import shares_at
from acgs2.errors import InputError, RefusedError, UnavailableError
from acgs2.plan import rights_of
from acgs2.plan.failback import failback
from acgs2.plan.failover import Circumstances, failover
from acgs2.plan.steps import Agreed, Shares, StepKind
from acgs2.topology import load

LOCAL = load("local")
RIGHTS = rights_of(LOCAL, datetime(2026, 12, 1, tzinfo=UTC))
TEXT = """
regions:
  eu-west-1:
    kubernetes: {context: eu-west-1}
    load_balancer: {name: eu-west-1.elb.example, zone: ZELB}
    open_groups: [sg-0a]
    closed_groups: [sg-0b]
databases:
  us: {global_cluster: acgs2-us, data_loss: allow, at_most_s: 5}
hosted_zones: {aws: Z1}
"""


def arn(region: str) -> str:
    return f"arn:aws:rds:{region}:123456789012:cluster:acgs2-us"


FOUND = Global("acgs2-us", {r: arn(r) for r in ("us-east-1", "eu-west-1")}, "us-east-1")


def actors_of(settings: Cloud | dict[str, Any]) -> list[Actor]:
    return cloud_actors(LOCAL, settings, agreed=Agreed, rights=lambda: RIGHTS)


def test_who_acts_and_for_which_steps():
    actors = actors_of(parse(TEXT))
    assert [type(actor).__name__ for actor in actors] == [
        "Route53Actor",
        "CapacityActor",
        "MeshActor",
        "AuroraActor",
    ]
    kinds = frozenset().union(*(actor.kinds for actor in actors))
    assert {StepKind.FENCE, StepKind.CAPACITY, StepKind.MESH, StepKind.DATABASE, StepKind.WEIGHT} <= kinds
    assert actors_of({}) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("at_most_s: 5", "at_mots_s: 5"), "Did you mean at_most_s"),
        (("data_loss: allow", "data_loss: maybe"), "data_loss"),
        (("closed_groups: [sg-0b]", "closed_groups: []"), "belong together"),
        (("sg-0a", "default"), "open_groups"),
        (("aws: Z1", "azure: Z1"), "hosted_zones"),
        (("at_most_s: 5", "at_most_s: -1"), "at_most_s"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_its_line(change: tuple[str, str], says: str):
    with pytest.raises(InputError) as caught:
        parse(TEXT.replace(*change))
    assert caught.value.reference == "cloud-invalid"
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.context["line"] > 1


def test_regions_and_zones_are_the_topologys():
    for wrong in (TEXT.replace("  eu-west-1:", "  eu-west-9:"), TEXT.replace("  us:", "  mars:")):
        with pytest.raises(InputError, match="There is no"):
            actors_of(parse(wrong))


def test_a_dry_run_finds_traffic_as_it_will_be():
    told = {"plan_id": "p", "now_us": 0, "cause": "", "outside": frozenset(StepKind)}
    plan = failover("eu-west-1", Circumstances(LOCAL, RIGHTS), **told)
    fence, mesh = plan.steps[1], next(s for s in plan.steps if s.kind is StepKind.MESH)
    assert shares_at(plan.steps[0], plan, Agreed()).down == ()
    assert shares_at(fence, plan, Agreed()).down == ("eu-west-1",)
    assert shares_at(mesh, plan, Agreed()).down == ("eu-west-1",)
    back = failback("eu-west-1", LOCAL, plan_id="b", now_us=0, cause="")
    before = Agreed(traffic=Shares(down=("eu-west-1",)), operator=Shares(weights={"eu-west-1": 40}))
    found = {s.value: shares_at(s, back, before) for s in back.steps if s.kind is StepKind.WEIGHT}
    assert {value: s.weights["eu-west-1"] for value, s in found.items()} == {
        10: 10,
        25: 25,
        50: 40,
        75: 40,
        100: 40,
    }
    assert all(not s.down for s in found.values())


def test_a_global_database_is_read_from_an_answer():
    members = [{"DBClusterArn": arn("us-east-1"), "IsWriter": True}, {"DBClusterArn": arn("eu-west-1")}]
    given = {"GlobalClusterIdentifier": "acgs2-us", "GlobalClusterMembers": members}
    assert global_of({**given, "FailoverState": {}}) == FOUND
    moving = global_of({**given, "FailoverState": {"ToDbClusterArn": arn("eu-west-1"), "Status": "pending"}})
    assert moving.moving_to == arn("eu-west-1")


REFUSE, ALLOW = Database(global_cluster="acgs2-us"), Database(global_cluster="acgs2-us", data_loss="allow")
UP_TO_2 = Database(global_cluster="acgs2-us", data_loss="allow", at_most_s=2)


@pytest.mark.parametrize(
    ("settings", "lag_s", "healthy", "expected"),
    [
        (REFUSE, None, True, "switchover"),
        (ALLOW, None, True, "switchover"),  # nothing is lost that need not be
        (REFUSE, 0.0, False, "data-loss-not-decided"),
        (ALLOW, None, False, "failover"),
        (ALLOW, 99.0, False, "failover"),
        (UP_TO_2, 2.0, False, "failover"),
        (UP_TO_2, 2.1, False, "data-loss-too-large"),
        (UP_TO_2, None, False, "data-loss-too-large"),
    ],
)
def test_what_may_be_lost_is_decided_before(
    settings: Database, lag_s: float | None, healthy: bool, expected: str
):
    try:
        found = next_move(FOUND, "eu-west-1", settings, lag_s, healthy=healthy)
    except RefusedError as error:
        found = error.reference  # type: ignore[assignment]
    assert found == expected


def test_where_the_writer_is_or_is_going():
    def move(found: Global, target: str) -> str:
        return next_move(found, target, REFUSE, None, healthy=False)

    assert move(FOUND, "us-east-1") == "none"
    moving = Global(FOUND.id, FOUND.clusters, FOUND.writer, arn("eu-west-1"))
    assert move(moving, "eu-west-1") == "wait"
    with pytest.raises(UnavailableError, match="on its way"):
        move(moving, "us-east-1")
    with pytest.raises(RefusedError, match="no cluster in ap-southeast-1"):
        move(FOUND, "ap-southeast-1")
