"""Who acts outside for a plan stops acting when its region does not lead any more, or nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from random import Random
from typing import Any

import pytest

from acgs2.api.actors import acted
from acgs2.drivers.aws.caller import Caller
from acgs2.drivers.aws.patience import Patience
from acgs2.drivers.cloud import Kubernetes
from acgs2.drivers.kubernetes.cluster import Cluster
from acgs2.errors import UnavailableError
from acgs2.plan import Plan, Step, StepKind
from acgs2.plan.may import May, anybody

WEIGHT = Step(StepKind.WEIGHT, value=50)
PLAN = Plan("p", "failback", "eu-west-1", "it is up", 1, (WEIGHT, Step(StepKind.CLOSE)))


class Slow:
    """Makes two calls, and is held up between them, as a process that is frozen is."""

    kinds = frozenset({StepKind.WEIGHT})

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.between, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()

    def act(self, step: Step, plan: Plan, *, dry_run: bool, may: May = anybody) -> list[str]:
        try:
            for name in ("read", "change"):
                may()
                self.calls.append(name)
                if name == "read":
                    self.between.set()
                    self.go.wait(10)
            return self.calls
        finally:
            self.ended.set()


def test_who_leads_no_more_makes_no_further_call() -> None:
    async def run() -> None:
        slow, leads = Slow(), [True]
        acting = asyncio.create_task(acted([slow], PLAN, WEIGHT, dry_run=False, leads=lambda: leads[0]))
        await asyncio.to_thread(slow.between.wait, 10)
        leads[0] = False
        slow.go.set()
        with pytest.raises(UnavailableError, match="no more"):
            await acting
        assert slow.calls == ["read"]

    asyncio.run(run())


def test_who_is_cancelled_makes_no_further_call() -> None:
    async def run() -> None:
        slow = Slow()
        acting = asyncio.create_task(acted([slow], PLAN, WEIGHT, dry_run=False))
        await asyncio.to_thread(slow.between.wait, 10)
        acting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await acting
        slow.go.set()
        await asyncio.to_thread(slow.ended.wait, 10)
        assert slow.calls == ["read"]

    asyncio.run(run())


def test_who_leads_all_the_while_does_all_of_it() -> None:
    slow = Slow()
    slow.go.set()
    assert asyncio.run(acted([slow], PLAN, WEIGHT, dry_run=False)) == ["read", "change"]
    assert asyncio.run(acted([slow], PLAN, Step(StepKind.CLOSE), dry_run=False)) == []


class Untouched:
    """A client, or an API server, that must not be called."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was called")


def forbid() -> None:
    raise UnavailableError("not-leading", "This region carries it out no more.")


def test_neither_aws_nor_kubernetes_is_called_by_who_may_not() -> None:
    caller = Caller(Untouched(), Patience(deadline_s=1), Random(1), lambda s: None, may=forbid)
    with pytest.raises(UnavailableError, match="no more"):
        caller.call("describe_global_clusters")
    cluster = Cluster(Untouched(), "eu-west-1", Kubernetes(), forbid)
    with pytest.raises(UnavailableError, match="no more"):
        asyncio.run(cluster.apply("v1", "services/bus", {}))
