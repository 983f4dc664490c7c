"""What a global database needs for its writer to be in a region, from what AWS says of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from acgs2.drivers.cloud import Database
from acgs2.errors import RefusedError, UnavailableError

__all__ = ["Global", "Move", "global_of", "next_move"]

Move = Literal["none", "wait", "switchover", "failover"]


@dataclass(frozen=True, slots=True)
class Global:
    """A global database: its clusters by region, who writes, to which cluster the writer is on its way."""

    id: str
    clusters: Mapping[str, str]
    writer: str | None
    moving_to: str | None = None

    def cluster(self, region: str) -> str:
        """Return the ARN of a region's cluster.

        Raises:
            RefusedError: it has none there.
        """
        if region not in self.clusters:
            raise RefusedError(
                "no-database-there",
                f"{self.id} has no cluster in {region}.",
                hint=f"It has some in {', '.join(self.clusters)}; add one, or move elsewhere.",
            )
        return self.clusters[region]


def global_of(given: Mapping[str, Any]) -> Global:
    """Return a global database from a member of DescribeGlobalClusters' answer."""
    members = given.get("GlobalClusterMembers") or []
    clusters = {_region(m["DBClusterArn"]): str(m["DBClusterArn"]) for m in members}
    writers = [_region(m["DBClusterArn"]) for m in members if m.get("IsWriter")]
    state = given.get("FailoverState") or {}
    return Global(
        str(given["GlobalClusterIdentifier"]),
        clusters,
        writers[0] if writers else None,
        str(state["ToDbClusterArn"]) if state.get("ToDbClusterArn") else None,
    )


def next_move(found: Global, target: str, settings: Database, lag_s: float | None, *, healthy: bool) -> Move:
    """Decide what is to be done for the writer to be in a region.

    Args:
        found: the database as it is.
        target: the region that shall write.
        settings: whether anything may be lost.
        lag_s: how far the target is behind, None where nobody knows.
        healthy: whether the writer's own region answers for it: then nothing needs to be lost.

    Raises:
        RefusedError: it has no cluster there, or that would lose what it has not been decided may be lost.
        UnavailableError: it is being moved elsewhere.
    """
    cluster = found.cluster(target)
    if found.moving_to is not None:
        if found.moving_to == cluster:
            return "wait"
        raise UnavailableError(
            "database-moving",
            f"The writer of {found.id} is on its way to {found.moving_to}, not to {target}.",
            hint="Wait until it is there.",
        )
    if found.writer == target:
        return "none"
    if healthy:
        return "switchover"
    _lossy(found, target, settings, lag_s)
    return "failover"


def _lossy(found: Global, target: str, settings: Database, lag_s: float | None) -> None:
    """See whether so much may be lost.

    Raises:
        RefusedError: it may not, by decision or for want of one.
    """
    behind = (
        f"{target} is {lag_s:g} s behind" if lag_s is not None else f"how far {target} is behind is unknown"
    )
    if settings.data_loss == "refuse":
        raise RefusedError(
            "data-loss-not-decided",
            f"The writer of {found.id} in {found.writer} cannot be asked to hand over, and {behind}.",
            hint="Wait for it, or decide for loss: data_loss: allow in cloud.yaml.",
            lag_s=lag_s,
        )
    most_s = settings.at_most_s
    if most_s is not None and (lag_s is None or lag_s > most_s):
        raise RefusedError(
            "data-loss-too-large",
            f"At most {most_s:g} s of {found.id} may be lost, and {behind}.",
            hint="Wait, or raise at_most_s in cloud.yaml.",
            lag_s=lag_s,
        )


def _region(arn: str) -> str:
    return arn.split(":")[3]
