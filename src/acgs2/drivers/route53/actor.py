"""The part of DNS in a plan: a fenced region is named no more, one that comes back share by share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from acgs2.drivers.aws import Patience
from acgs2.drivers.cloud import Cloud
from acgs2.drivers.dns import Alias, Desired, Partition, desired
from acgs2.drivers.route53.apply import apply
from acgs2.drivers.route53.client import connect
from acgs2.drivers.route53.report import Report
from acgs2.drivers.shares import shares_at
from acgs2.errors import UnavailableError
from acgs2.plan import Rights
from acgs2.plan.may import May, anybody
from acgs2.plan.steps import Agreed, Plan, Step, StepKind
from acgs2.topology import Topology

__all__ = ["Route53Actor"]

#: A plan does not wait for DNS servers; who asks them is served by health checks meanwhile.
_PATIENCE = Patience(deadline_s=10, cap_s=2, settle_s=0)
_FENCE_S = 3.0


class Route53Actor:
    """Makes a hosted zone say what is agreed on.

    A fence does not wait for it: the control plane of Route 53 is in one region, perhaps the one that is
    down, and health checks turn away without it. It must have come about before the plan is closed.

    Args:
        topology: regions and zones.
        cloud: has the hosted zone.
        partition: the hosted zone's.
        agreed: what is agreed on when a step is done.
        rights: who may hold what then.
        pause: how is waited.
        patience: how long.
    """

    kinds = frozenset({StepKind.FENCE, StepKind.WEIGHT, StepKind.CLOSE})

    def __init__(
        self,
        topology: Topology,
        cloud: Cloud,
        partition: Partition,
        agreed: Callable[[], Agreed],
        rights: Callable[[], Rights],
        *,
        pause: Callable[[float], None] = time.sleep,
        patience: Patience = _PATIENCE,
    ) -> None:
        self._topology, self._cloud = topology, cloud
        self._partition: Partition = partition
        self._agreed, self._rights, self._pause, self._patience = agreed, rights, pause, patience

    def act(self, step: Step, plan: Plan, *, dry_run: bool, may: May = anybody) -> list[str]:
        """See `Actor`."""
        hosted_zone = self._cloud.hosted_zones[self._partition]
        patience = self._patience
        if step.kind is StepKind.FENCE:
            patience = replace(patience, deadline_s=min(patience.deadline_s, _FENCE_S))
        client = connect(self._partition, endpoint_url=self._cloud.endpoints.get("route53"))
        try:
            report = apply(
                client,
                hosted_zone,
                self._desired(step, plan),
                patience=patience,
                dry_run=dry_run,
                pause=self._pause,
                may=may,
            )
        except UnavailableError as error:
            applied = [f"route53: {line}" for line in error.context.get("applied", ())]
            if error.reference == "not-in-sync":
                return [*applied, "route53: taken, and on its way to all of its servers"]
            if step.kind is not StepKind.FENCE or error.reference == "not-leading":
                raise
            return [
                *applied,
                f"route53: {error.message} Health checks turn away; tried again before the end.",
            ]
        return [f"route53: hosted zone {hosted_zone}: {line}" for line in _lines(report)]

    def _desired(self, step: Step, plan: Plan) -> Desired:
        shares = shares_at(step, plan, self._agreed())
        balancers = {
            region: Alias(place.load_balancer.name, place.load_balancer.zone)
            for region, place in self._cloud.regions.items()
            if place.load_balancer is not None
        }
        return desired(
            self._topology,
            self._rights(),
            dict.fromkeys(shares.down, False),
            shares.weights,
            partition=self._partition,
            balancers=balancers,
        )


def _lines(report: Report) -> list[str]:
    lines = [line for call in report.calls for line in (f"{call.operation}: {call.does}", *call.lines)]
    return [*lines, *map(str, report.gaps)] or ["nothing to change"]
