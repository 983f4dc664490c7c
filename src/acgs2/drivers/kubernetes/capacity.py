"""Lets a region grow before it is given what another one served."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from acgs2.drivers.cloud import Cloud
from acgs2.drivers.kubernetes.cluster import Cluster, visit
from acgs2.errors import RefusedError, UnavailableError
from acgs2.plan.may import May, anybody
from acgs2.plan.steps import Plan, Step, StepKind

__all__ = ["CapacityActor"]

_POLL_S = 1.0


class CapacityActor:
    """Scales a region's bus up to what a step says; it never scales down.

    Args:
        cloud: the regions' clusters.
        poll_s: between two looks at what is available.
    """

    kinds = frozenset({StepKind.CAPACITY})

    def __init__(self, cloud: Cloud, *, poll_s: float = _POLL_S) -> None:
        self._cloud, self._poll_s = cloud, poll_s

    def act(self, step: Step, plan: Plan, *, dry_run: bool, may: May = anybody) -> list[str]:
        """See `Actor`."""
        place = self._cloud.regions.get(step.target)
        if place is None or place.kubernetes is None:
            return [f"kubernetes: {step.target}: no cluster named; its capacity is as it is"]

        async def grow(cluster: Cluster) -> list[str]:
            return await self._grow(cluster, step.value, dry_run=dry_run)

        return visit(step.target, place.kubernetes, grow, may)

    async def _grow(self, cluster: Cluster, wanted: int, *, dry_run: bool) -> list[str]:
        version, path = _place(cluster)
        what = f"{path} in {cluster.settings.namespace} of {cluster.region}"
        scale = await cluster.get(version, f"{path}/scale")
        if scale is None:
            raise RefusedError(
                "scaled-unknown",
                f"There is no {what}.",
                hint=f"Check regions.{cluster.region}.kubernetes in cloud.yaml.",
            )
        lines: list[str] = []
        if (have := int(scale["spec"].get("replicas", 0))) < wanted:
            lines.append(f"kubernetes: patch scale of {what} from {have} to {wanted}")
            if dry_run:
                return lines
            await cluster.merge(version, f"{path}/scale", {"spec": {"replicas": wanted}})
        elif dry_run:
            return [f"kubernetes: {what} has {have} replicas already"]
        return [*lines, await self._wait(cluster, what, wanted)]

    async def _wait(self, cluster: Cluster, what: str, wanted: int) -> str:
        """Wait until all are available, or long enough and there are some.

        Raises:
            UnavailableError: too few were, to be tried again.
        """
        settings = cluster.settings
        deadline_s = time.monotonic() + settings.wait_s
        while True:
            available = _available(await cluster.get(*_place(cluster)))
            if available >= wanted:
                return f"kubernetes: {what}: {available} of {wanted} available"
            if time.monotonic() >= deadline_s:
                break
            await asyncio.sleep(self._poll_s)
        if available < settings.least:
            raise UnavailableError(
                "capacity-short",
                f"{available} of {wanted} replicas of {what} are available after {settings.wait_s:g} s.",
                hint="See its pods and nodes.",
            )
        return f"kubernetes: {what}: {available} of {wanted} available after {settings.wait_s:g} s; going on"


def _place(cluster: Cluster) -> tuple[str, str]:
    """Return the API version and the path of what is scaled."""
    group, version, path = cluster.settings.scaled.split("/", 2)
    return f"{group}/{version}", path


def _available(there: dict[str, Any] | None) -> int:
    """Return how many replicas are available, as of the newest wish; none while it was not looked at."""
    if there is None:
        return 0
    status = there.get("status", {})
    if int(status.get("observedGeneration", 0)) < there["metadata"].get("generation", 0):
        return 0
    return int(status.get("availableReplicas", 0))
