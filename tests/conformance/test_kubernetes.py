"""Capacity and mesh on Kubernetes' own API server: changed once, only what differs, by server-side apply."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import pytest
from tests.cluster.conftest import folder, free_port
from tests.conformance.conftest import missing
from tests.conformance.kubernetes import APPS, SCALED, ApiServer, build

from acgs2.drivers.cloud import Cloud
from acgs2.drivers.kubernetes import CapacityActor, MeshActor
from acgs2.errors import AcgsError, RefusedError, RuntimeFault, UnavailableError
from acgs2.plan import rights_of
from acgs2.plan.failback import failback
from acgs2.plan.failover import Circumstances, failover
from acgs2.plan.steps import Agreed, Plan, Shares, Step, StepKind
from acgs2.topology import load

LOCAL = load("local")
RIGHTS = rights_of(LOCAL, datetime(2026, 12, 1, tzinfo=UTC))
LEFT, TARGET = "eu-west-1", "eu-central-1"
ALL = frozenset(StepKind)
PLAN = failover(LEFT, Circumstances(LOCAL, RIGHTS), plan_id="p1", now_us=0, cause="test", outside=ALL)
BACK = failback(LEFT, LOCAL, plan_id="p2", now_us=0, cause="test")
ISTIO = "networking.istio.io/v1"


def step(kind: StepKind, plan: Plan = PLAN, value: int | None = None) -> Step:
    return next(s for s in plan.steps if s.kind is kind and value in (None, s.value))


@pytest.fixture(scope="module")
def server(etcd_program: str) -> Iterator[ApiServer]:
    if not find_spec("kr8s"):
        missing("kr8s is not installed; the extra `test` has it")
    with folder() as path:
        program, definitions = build(path)
        with ApiServer.running(program, definitions, etcd_program, path) as running:
            yield running


class Here:
    """A namespace of its own in the one API server, which is the cluster of every region that is named."""

    def __init__(self, server: ApiServer) -> None:
        self.server, self.namespace = server, f"n{uuid.uuid4().hex[:12]}"

    def cloud(self, *regions: str, **more: Any) -> Cloud:
        contexts = regions or (TARGET,)
        given = {
            "kubeconfig": self.server.kubeconfig(*contexts),
            "namespace": self.namespace,
            "scaled": SCALED,
            **more,
        }
        return Cloud.model_validate(
            {"regions": {r: {"kubernetes": {"context": r, **given}} for r in contexts}}
        )

    def get(self, version: str, path: str) -> dict[str, Any]:
        return self.server.get(self.namespace, version, path)

    def mesh(self, *regions: str, agreed: Agreed = Agreed()) -> MeshActor:  # noqa: B008  # frozen
        return MeshActor(LOCAL, self.cloud(*regions), lambda: agreed, lambda: RIGHTS)

    def localities(self, zone: str) -> dict[str, Any]:
        found = self.get(ISTIO, f"destinationrules/acgs2-{zone}")
        return dict(found["spec"]["trafficPolicy"]["loadBalancer"]["localityLbSetting"])


@pytest.fixture
def here(server: ApiServer) -> Here:
    return Here(server)


def test_a_target_grows_to_what_the_plan_says_and_is_waited_for(here: Here):
    here.server.deploy(here.namespace, 3)
    actor = CapacityActor(here.cloud(), poll_s=0.05)
    lines: list[str] = []
    acting = threading.Thread(
        target=lambda: lines.extend(actor.act(step(StepKind.CAPACITY), PLAN, dry_run=False))
    )
    acting.start()
    deadline_s = time.monotonic() + 20
    while here.get(APPS, "deployments/acgs2-bus")["spec"]["replicas"] != 10:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    acting.join(0.3)
    assert acting.is_alive()  # three of ten are not ten
    here.server.available(here.namespace, 10)
    acting.join(20)
    assert lines == [
        f"kubernetes: patch scale of deployments/acgs2-bus in {here.namespace} of {TARGET} from 3 to 10",
        f"kubernetes: deployments/acgs2-bus in {here.namespace} of {TARGET}: 10 of 10 available",
    ]
    there = here.get(APPS, "deployments/acgs2-bus")
    again = actor.act(step(StepKind.CAPACITY), PLAN, dry_run=False)
    assert len(again) == 1
    assert here.get(APPS, "deployments/acgs2-bus") == there  # twice is once


def test_it_never_shrinks(here: Here):
    here.server.deploy(here.namespace, 12)
    CapacityActor(here.cloud()).act(step(StepKind.CAPACITY), PLAN, dry_run=False)
    assert here.get(APPS, "deployments/acgs2-bus")["spec"]["replicas"] == 12


def test_a_dry_run_of_capacity_says_it_and_leaves_it(here: Here):
    here.server.deploy(here.namespace, 3)
    [line] = CapacityActor(here.cloud()).act(step(StepKind.CAPACITY), PLAN, dry_run=True)
    assert line.endswith("from 3 to 10")
    assert here.get(APPS, "deployments/acgs2-bus")["spec"]["replicas"] == 3


def test_some_are_enough_to_go_on_and_none_are_not(here: Here):
    here.server.deploy(here.namespace, 3)
    short = CapacityActor(here.cloud(wait_s=0.2), poll_s=0.05)
    with pytest.raises(
        UnavailableError, match="0 of 10 replicas"
    ):  # what was looked at before the change says nothing
        short.act(step(StepKind.CAPACITY), PLAN, dry_run=False)
    here.server.available(here.namespace, 4)
    assert (
        "4 of 10 available after 0.2 s; going on"
        in short.act(step(StepKind.CAPACITY), PLAN, dry_run=False)[-1]
    )
    more = CapacityActor(here.cloud(wait_s=0.2, least=5), poll_s=0.05)
    with pytest.raises(UnavailableError) as caught:
        more.act(step(StepKind.CAPACITY), PLAN, dry_run=False)
    assert caught.value.reference == "capacity-short"


def test_what_is_not_there_is_said(here: Here):
    with pytest.raises(RefusedError) as caught:
        CapacityActor(here.cloud()).act(step(StepKind.CAPACITY), PLAN, dry_run=False)
    assert caught.value.reference == "scaled-unknown"
    gone = here.server.kubeconfig(TARGET, url=f"https://127.0.0.1:{free_port()}")
    for given, kind in (
        ({"kubeconfig": gone}, UnavailableError),
        ({"context": "nobody"}, RuntimeFault),
        ({"kubeconfig": "/nowhere/config"}, RuntimeFault),
    ):
        with pytest.raises(AcgsError) as refused:
            CapacityActor(here.cloud(**given)).act(step(StepKind.CAPACITY), PLAN, dry_run=False)
        assert type(refused.value) is kind, refused.value
    assert "no cluster named" in CapacityActor(Cloud()).act(step(StepKind.CAPACITY), PLAN, dry_run=False)[0]


def test_the_mesh_of_a_target_is_applied_once_and_only_what_differs(here: Here):
    said = here.mesh(TARGET).act(step(StepKind.MESH), PLAN, dry_run=True)
    assert len(said) == 9  # three objects a zone
    assert here.mesh(TARGET).act(step(StepKind.MESH), PLAN, dry_run=False) == said
    entry = here.get(ISTIO, "serviceentries/acgs2-eu")
    assert [e["locality"] for e in entry["spec"]["endpoints"]] == [TARGET]  # the other home is fenced
    managers = {m["manager"]: m["operation"] for m in entry["metadata"]["managedFields"]}
    assert managers == {"acgs2": "Apply"}
    again = here.mesh(TARGET).act(step(StepKind.MESH), PLAN, dry_run=False)
    assert again == [f"kubernetes: the mesh of {TARGET} says it already"]
    assert here.get(ISTIO, "serviceentries/acgs2-eu") == entry


def test_what_others_changed_is_put_right_and_what_is_theirs_stays(here: Here):
    here.mesh(TARGET).act(step(StepKind.MESH), PLAN, dry_run=False)
    here.server.change(
        here.namespace,
        ISTIO,
        "serviceentries/acgs2-eu",
        {
            "metadata": {"labels": {"team": "red"}},
            "spec": {"endpoints": [{"address": "api.us-east-1.acgs2.example", "locality": "us-east-1"}]},
        },
    )
    said = here.mesh(TARGET).act(step(StepKind.MESH), PLAN, dry_run=False)
    assert said == [f"kubernetes: change ServiceEntry {here.namespace}/acgs2-eu of {TARGET}"]
    entry = here.get(ISTIO, "serviceentries/acgs2-eu")
    assert [e["locality"] for e in entry["spec"]["endpoints"]] == [TARGET]
    assert entry["metadata"]["labels"]["team"] == "red"


def test_a_share_comes_back_to_every_mesh_that_takes_part(here: Here):
    down = Agreed(traffic=Shares(down=(LEFT,)))
    back = here.mesh(LEFT, agreed=down)
    back.act(step(StepKind.WEIGHT, BACK, 25), BACK, dry_run=False)
    shared = [{"from": f"{LEFT}/*", "to": {f"{LEFT}/*": 25, f"{TARGET}/*": 75}}]
    assert here.localities("eu") == {"enabled": True, "distribute": shared}
    back.act(step(StepKind.WEIGHT, BACK, 100), BACK, dry_run=False)
    pairs = [{"from": TARGET, "to": LEFT}, {"from": LEFT, "to": TARGET}]
    assert here.localities("eu") == {"enabled": True, "failover": pairs}  # and no shares any more
    said = here.mesh(LEFT, TARGET, agreed=down).act(step(StepKind.CLOSE), PLAN, dry_run=True)
    assert all(line.endswith(f" of {TARGET}") for line in said)  # who takes no part is not asked


def test_a_zone_without_a_lawful_target_is_answered_as_such(here: Here):
    none = Agreed(traffic=Shares(down=(LEFT, TARGET)))
    here.mesh("us-east-1", agreed=none).act(step(StepKind.CLOSE), PLAN, dry_run=False)
    service = here.get(ISTIO, "virtualservices/acgs2-eu")
    assert service["spec"]["http"] == [
        {"directResponse": {"status": 503, "body": {"string": "no lawful target for zone eu"}}}
    ]
    assert "route" in here.get(ISTIO, "virtualservices/acgs2-us")["spec"]["http"][0]
