"""Makes the meshes of regions go by what is agreed on about traffic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from acgs2.drivers.cloud import Cloud
from acgs2.drivers.kubernetes.cluster import Cluster, visit
from acgs2.drivers.kubernetes.istio import PLURALS, VERSION, objects
from acgs2.drivers.shares import shares_at
from acgs2.plan import Rights
from acgs2.plan.may import May, anybody
from acgs2.plan.steps import Agreed, Plan, Step, StepKind
from acgs2.topology import Topology

__all__ = ["MeshActor"]


class MeshActor:
    """Applies a region's Istio objects: those of the step's target, or of every region that takes part.

    Args:
        topology: regions, zones and limits.
        cloud: the regions' clusters.
        agreed: what is agreed on when a step is done.
        rights: who may hold what then.
    """

    kinds = frozenset({StepKind.MESH, StepKind.WEIGHT, StepKind.CLOSE})

    def __init__(
        self, topology: Topology, cloud: Cloud, agreed: Callable[[], Agreed], rights: Callable[[], Rights]
    ) -> None:
        self._topology, self._cloud = topology, cloud
        self._agreed, self._rights = agreed, rights

    def act(self, step: Step, plan: Plan, *, dry_run: bool, may: May = anybody) -> list[str]:
        """See `Actor`."""
        shares = shares_at(step, plan, self._agreed())
        regions = [step.target] if step.target else [r for r in self._cloud.regions if r not in shares.down]
        lines: list[str] = []
        for region in regions:
            place = self._cloud.regions.get(region)
            if place is None or place.kubernetes is None or not place.kubernetes.mesh:
                continue
            wanted = objects(self._topology, self._rights(), shares, region)

            async def apply(cluster: Cluster, wanted: list[dict[str, Any]] = wanted) -> list[str]:
                return await _apply(cluster, wanted, dry_run=dry_run)

            lines += visit(region, place.kubernetes, apply, may)
        return lines or ["kubernetes: no mesh to change"]


async def _apply(cluster: Cluster, wanted: list[dict[str, Any]], *, dry_run: bool) -> list[str]:
    lines: list[str] = []
    for each in wanted:
        name = each["metadata"]["name"]
        path = f"{PLURALS[each['kind']]}/{name}"
        there = await cluster.get(VERSION, path)
        if there is not None and _says(there, each):
            continue
        verb = "apply" if there is None else "change"
        lines.append(
            f"kubernetes: {verb} {each['kind']} {cluster.settings.namespace}/{name} of {cluster.region}"
        )
        if not dry_run:
            await cluster.apply(VERSION, path, each)
    return lines or [f"kubernetes: the mesh of {cluster.region} says it already"]


def _says(there: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Return whether an object says what is wanted, whatever else its metadata has."""
    labels = there["metadata"].get("labels", {})
    return there.get("spec") == wanted["spec"] and wanted["metadata"]["labels"].items() <= labels.items()
