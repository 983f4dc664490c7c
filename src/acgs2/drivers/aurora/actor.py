"""Fences the old writer of a zone's database and lets a lawful region write.

Where the writer's region answers for it the writer hands over and nothing is lost. Where it does not, what
had not reached the target is lost: that is done only if it was decided before, and it is said how much.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

from acgs2.drivers.aurora.lag import Lag, read_lag
from acgs2.drivers.aurora.move import Global, global_of, next_move
from acgs2.drivers.aws import Caller, Patience, Unsure, connect, part
from acgs2.drivers.cloud import Cloud, Database
from acgs2.errors import RefusedError, UnavailableError
from acgs2.plan.may import May, anybody
from acgs2.plan.steps import Plan, Step, StepKind

__all__ = ["AuroraActor"]

_NAME = "RDS"
#: Somebody else moves it already, or it is not well enough for that.
_NOT_NOW = ("InvalidGlobalClusterStateFault", "InvalidDBClusterStateFault")


class AuroraActor:
    """Moves writers of global databases.

    Args:
        cloud: which zones have one.
        patience: how long AWS is waited for; `settle_s` for the writer to be where it shall be.
        glance: how long the region that is left is waited for.
        now: the time.
        pause: how is waited.
        rng: for the pauses between tries.
    """

    kinds = frozenset({StepKind.DATABASE, StepKind.READMIT})

    def __init__(
        self,
        cloud: Cloud,
        *,
        patience: Patience | None = None,
        glance: Patience | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pause: Callable[[float], None] = time.sleep,
        rng: Random | None = None,
    ) -> None:
        self._cloud, self._now, self._pause = cloud, now, pause
        self._patience = patience or Patience(deadline_s=30, cap_s=5)
        self._glance = glance or Patience(deadline_s=3, base_s=0.2, cap_s=1)
        self._rng = rng or Random()

    def act(self, step: Step, plan: Plan, *, dry_run: bool, may: May = anybody) -> list[str]:
        """See `Actor`."""
        if step.kind is StepKind.READMIT:
            return [
                line
                for zone in self._cloud.databases
                for line in _Move(self, zone, dry_run, may).readmit(plan.region)
            ]
        if step.zone not in self._cloud.databases:
            return [f"zone {step.zone}: every region of it writes; no database to move"]
        return _Move(self, step.zone, dry_run, may).to(step.target)

    def caller(self, service: str, region: str, may: May, *, glance: bool = False) -> Caller:
        """Return what calls a service in a region, for as long as it `may`."""
        endpoint = self._cloud.endpoints.get("cloudwatch" if service == "cloudwatch" else "rds")
        client = connect(service, region, endpoint_url=endpoint)
        name = _NAME if service == "rds" else "CloudWatch"
        patience = self._glance if glance else self._patience
        return Caller(client, patience, self._rng, self._pause, name, may=may)

    def groups(self, region: str, *, closed: bool) -> Sequence[str]:
        """Return the security groups that a region's cluster shall have; none if that is not ours to say."""
        place = self._cloud.regions.get(region)
        if place is None:
            return ()
        return place.closed_groups if closed else place.open_groups

    def settings(self, zone: str) -> Database:
        """Return what there is of a zone."""
        return self._cloud.databases[zone]

    @property
    def settle_s(self) -> float:
        """How long the writer may take to be where it shall be."""
        return self._patience.settle_s

    @property
    def handover_s(self) -> float:
        """How long it is asked to hand over, before anything is lost."""
        return self._patience.deadline_s

    def wait(self) -> None:
        """Pause between two looks."""
        self._pause(self._patience.poll_s)

    def now(self) -> datetime:
        """Return the time."""
        return self._now()


class _Move:
    """One act on one zone's database, and its lines."""

    def __init__(self, actor: AuroraActor, zone: str, dry_run: bool, may: May) -> None:
        self._actor, self._zone, self._dry_run, self._may = actor, zone, dry_run, may
        self._settings = actor.settings(zone)
        self.lines: list[str] = []

    def to(self, target: str) -> list[str]:
        """Fence the writer, then have the target write."""
        rds = self._actor.caller("rds", target, self._may)
        found = self._look(rds)
        left = found.writer
        if left in (None, target) or found.moving_to:
            healthy, lag = True, None  # nothing of it is needed any more
        else:
            found.cluster(target)
            healthy = self._fence(left, found)
            lag = self._lag(found, target, left)
        self._groups(rds, target, found.cluster(target), closed=False)
        begun_s = time.monotonic()
        while True:
            move = next_move(found, target, self._settings, lag.lag_s if lag else None, healthy=healthy)
            if move == "none":
                self._say(f"{target} writes {found.id}")
                return self.lines
            refused = self._start(move, found, target, lag) if move != "wait" else ""
            if self._dry_run:
                return self.lines
            waited_s = time.monotonic() - begun_s
            if waited_s > self._actor.settle_s:
                raise UnavailableError(
                    "database-moving",
                    f"{target} does not write {found.id} yet, after {waited_s:.0f} s. {refused}".strip(),
                    hint="It goes on; look again.",
                    lines=self.lines,
                )
            if refused and self._settings.data_loss == "allow" and waited_s > self._actor.handover_s:
                healthy = False
            self._actor.wait()
            found = self._look(rds)

    def readmit(self, region: str) -> list[str]:
        """Open the cluster of a region that comes back; it writes only if it is still the writer."""
        rds = self._actor.caller("rds", region, self._may)
        found = self._look(rds)
        if region in found.clusters:
            self._groups(rds, region, found.clusters[region], closed=False)
        return self.lines

    def _look(self, rds: Caller) -> Global:
        id_ = self._settings.global_cluster
        try:
            answer = rds.call("describe_global_clusters", GlobalClusterIdentifier=id_)
        except RefusedError as error:
            if error.context.get("code") != "GlobalClusterNotFoundFault":
                raise
            raise RefusedError(
                "global-database-unknown",
                f"There is no global database {id_}.",
                hint=f"Check databases.{self._zone} in cloud.yaml, and whose credentials these are.",
            ) from error
        return global_of(part(answer, "GlobalClusters", _NAME)[0])

    def _fence(self, region: str, found: Global) -> bool:
        """Let nobody in to the writer that is left; return whether its region answers for it."""
        rds = self._actor.caller("rds", region, self._may, glance=True)
        cluster = found.clusters[region]
        try:
            status = self._status(rds, cluster)["Status"]
            if not self._actor.groups(region, closed=True):
                self._say(f"no closed_groups for {region}: its servers are fenced, its database is not")
            self._groups(rds, region, cluster, closed=True)
        except UnavailableError as error:
            self._say(f"RDS in {region} does not answer, so {cluster} stays open: {error.message}")
            return False
        if status != "available":
            self._say(f"{cluster} is {status}")
        return True

    def _groups(self, rds: Caller, region: str, cluster: str, *, closed: bool) -> None:
        """Give a cluster its security groups, if it has others, and see that it has them."""
        wanted = self._actor.groups(region, closed=closed)
        if not wanted or self._has(rds, cluster) == {*wanted}:
            return
        self._say(f"modify_db_cluster: {cluster} has {', '.join(wanted)}: {'closed' if closed else 'open'}")
        if self._dry_run:
            return
        rds.call(
            "modify_db_cluster",
            DBClusterIdentifier=_identifier(cluster),
            VpcSecurityGroupIds=[*wanted],
            ApplyImmediately=True,
        )
        if self._has(rds, cluster) != {*wanted}:
            raise UnavailableError(
                "database-open", f"{cluster} does not have its security groups yet.", hint="Look again."
            )

    def _has(self, rds: Caller, cluster: str) -> set[str]:
        groups = self._status(rds, cluster).get("VpcSecurityGroups") or []
        return {str(group["VpcSecurityGroupId"]) for group in groups}

    def _status(self, rds: Caller, cluster: str) -> dict[str, Any]:
        answer = rds.call("describe_db_clusters", DBClusterIdentifier=_identifier(cluster))
        return dict(part(answer, "DBClusters", _NAME)[0])

    def _lag(self, found: Global, target: str, left: str) -> Lag | None:
        for region in (target, left):
            caller = self._actor.caller("cloudwatch", region, self._may, glance=True)
            lag = read_lag(caller, _identifier(found.cluster(target)), self._actor.now())
            if lag is not None:
                return lag
        return None

    def _start(self, move: str, found: Global, target: str, lag: Lag | None) -> str:
        """Begin it; return why it was refused for now, or nothing."""
        planned = move == "switchover"
        known = f"{lag}" if lag else "unknown: CloudWatch has no lag of it"
        said = "nothing is lost" if planned else f"what may be lost: {known}"
        sent: dict[str, Any] = {
            "GlobalClusterIdentifier": found.id,
            "TargetDbClusterIdentifier": found.cluster(target),
        }
        if not planned:
            sent["AllowDataLoss"] = True
        self._say(f"{move}_global_cluster: {found.id} from {found.writer} to {target}; {said}")
        if self._dry_run:
            return ""
        caller = self._actor.caller("rds", str(found.writer) if planned else target, self._may)
        try:
            caller.call(f"{move}_global_cluster", repeatable=False, **sent)
        except Unsure:
            self._say("its answer was lost; looking")
        except RefusedError as error:
            if error.context.get("code") not in _NOT_NOW:
                raise
            self._say(f"refused for now: {error.message}")
            return error.message
        return ""

    def _say(self, line: str) -> None:
        self.lines.append(f"aurora: zone {self._zone}: {line}")


def _identifier(arn: str) -> str:
    return arn.rpartition(":")[2]
