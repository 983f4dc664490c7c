"""Moving the writer of a global database, which moto has not, on moto's global databases.

As the API reference has them ("FailoverGlobalCluster", "SwitchoverGlobalCluster", "FailoverState"); requests and
answers are read and written by the service's published model, like all of moto's.

- A switchover wants the writer's cluster available and its region well. A failover wants AllowDataLoss: without
  it the call is a switchover.
- Either is pending first and under way then, here for a look each, and no second one begins meanwhile.
- A global database that is asked for by name exists.

For tests: a cluster called `*-unwell` never hands over.
"""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.rds.exceptions import RDSClientError
from moto.rds.models import GlobalCluster
from moto.rds.responses import RDSResponse

__all__ = ["install"]

_GOING = {"pending": "failing-over", "failing-over": ""}


def _describe(self: RDSResponse) -> ActionResult:
    named = (self.params.get("GlobalClusterIdentifier") or "").lower()
    found = [c for c in self.global_backend.describe_global_clusters() if not named or c.resource_id == named]
    if named and not found:
        raise _fault("GlobalClusterNotFoundFault", f"Global cluster {named} not found")
    result = ActionResult({"GlobalClusters": [_shown(each) for each in found]})
    for each in found:
        _go_on(each)
    return result


def _failover(self: RDSResponse) -> ActionResult:
    if self.params.get("AllowDataLoss") and self.params.get("Switchover"):
        raise _fault("InvalidParameterCombination", "Both AllowDataLoss and Switchover were specified")
    return _begin(self, lossy=bool(self.params.get("AllowDataLoss")))


def _switchover(self: RDSResponse) -> ActionResult:
    return _begin(self, lossy=False)


def _begin(self: RDSResponse, *, lossy: bool) -> ActionResult:
    backend = self.global_backend
    found = backend.global_clusters.get(self.params["GlobalClusterIdentifier"])
    if found is None:
        raise _fault("GlobalClusterNotFoundFault", "Global cluster not found")
    wanted = self.params["TargetDbClusterIdentifier"]
    target = next((m for m in found.members if m.db_cluster_arn == wanted), None)
    if target is None:
        raise _fault("DBClusterNotFoundFault", f"{wanted} is not a member")
    if "failover_state" in vars(found):
        raise _fault("InvalidGlobalClusterStateFault", "A move is under way")
    if target.is_writer:
        raise _fault("InvalidDBClusterStateFault", f"{wanted} is the primary")
    writer = next(m for m in found.members if m.is_writer)
    if not lossy and writer.resource_id.endswith("-unwell"):
        raise _fault("InvalidGlobalClusterStateFault", f"{writer.db_cluster_arn} is not healthy")
    vars(found)["failover_state"] = {
        "Status": "pending",
        "FromDbClusterArn": writer.db_cluster_arn,
        "ToDbClusterArn": target.db_cluster_arn,
        "IsDataLossAllowed": lossy,
    }
    return ActionResult({"GlobalCluster": _shown(found)})


def _go_on(cluster: GlobalCluster) -> None:
    state = vars(cluster).get("failover_state")
    if state is None:
        return
    state["Status"] = _GOING[state["Status"]]
    if state["Status"]:
        return
    for member in cluster.members:
        member.is_writer = member.db_cluster_arn == state["ToDbClusterArn"]
    del vars(cluster)["failover_state"]


def _shown(cluster: GlobalCluster) -> dict[str, Any]:
    return {
        "GlobalClusterIdentifier": cluster.global_cluster_identifier,
        "GlobalClusterArn": cluster.global_cluster_arn,
        "Status": cluster.status,
        "Engine": cluster.engine,
        "GlobalClusterMembers": cluster.global_cluster_members,
        "FailoverState": dict(vars(cluster)["failover_state"]) if "failover_state" in vars(cluster) else {},
    }


def _fault(code: str, message: str) -> RDSClientError:
    return RDSClientError(code, message)


def install() -> None:
    """Have moto's RDS answer so."""
    RDSResponse.describe_global_clusters = _describe  # type: ignore[method-assign]
    RDSResponse.failover_global_cluster = _failover  # type: ignore[attr-defined]
    RDSResponse.switchover_global_cluster = _switchover  # type: ignore[attr-defined]
