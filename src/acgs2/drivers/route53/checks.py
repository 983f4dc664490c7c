"""Health checks of ours in Route 53: known by their tag, made before records name them, gone after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from acgs2.drivers.aws import Caller, part
from acgs2.drivers.dns import Check, Desired, Held
from acgs2.drivers.route53.wire import check_to, held_of, updated
from acgs2.errors import RefusedError

__all__ = ["TAG", "create", "drop", "read_checks", "update"]

#: The tag of every health check of ours; its value is the topology's name.
TAG = "acgs2-topology"
_TAGS_AT_ONCE = 10
_GENERATIONS = 50

Write = Callable[..., dict[str, Any]]


def read_checks(caller: Caller, desired: Desired) -> list[Held]:
    """Read the health checks that bear the topology's tag and look at regions of its domain.

    The domain counts too: two topologies of one name, one of them in trial, may share an account.
    """
    found: list[Held] = []
    start: dict[str, Any] = {}
    while True:
        answer = caller.call("list_health_checks", **start)
        held = (held_of(given, desired.domain) for given in part(answer, "HealthChecks"))
        found += [one for one in held if one is not None]
        if not answer.get("IsTruncated"):
            break
        start = {"Marker": part(answer, "NextMarker")}
    return [one for one in found if one.id in _tagged(caller, [h.id for h in found], desired.topology)]


def _tagged(caller: Caller, ids: list[str], topology: str) -> set[str]:
    ours: set[str] = set()
    for begin in range(0, len(ids), _TAGS_AT_ONCE):
        some = ids[begin : begin + _TAGS_AT_ONCE]
        answer = caller.call("list_tags_for_resources", ResourceType="healthcheck", ResourceIds=some)
        for one in part(answer, "ResourceTagSets"):
            if {"Key": TAG, "Value": topology} in one.get("Tags", []):
                ours.add(one["ResourceId"])
    return ours


def create(write: Write, check: Check, topology: str) -> str:
    """Make a health check and return its id.

    A repeat, after a lost answer or a death before the tags were on, finds the one that was made. A reference
    of a check that was deleted is refused for days; then the next generation of it is tried.
    """
    for generation in range(_GENERATIONS):
        try:
            answer = write(
                "create_health_check",
                f"create {check.name}: https://{check.fqdn}:{check.port}{check.path}",
                CallerReference=check.reference(topology, generation),
                HealthCheckConfig=check_to(check),
            )
        except RefusedError as error:
            if error.context.get("code") != "HealthCheckAlreadyExists":
                raise
            continue
        made = str(part(answer, "HealthCheck")["Id"])
        tags = {"Name": check.name, "Region": check.region, TAG: topology}
        write(
            "change_tags_for_resource",
            f"tag {check.name}",
            ResourceType="healthcheck",
            ResourceId=made,
            AddTags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )
        return made
    raise RefusedError("route53-refuses", f"{check.name} was made and deleted too often in the last days.")


def update(write: Write, id_: str, check: Check) -> None:
    """Change a health check in place."""
    write("update_health_check", f"update {check.name} ({id_})", HealthCheckId=id_, **updated(check))


def drop(write: Write, id_: str) -> None:
    """Delete a health check; one that is gone already is as good."""
    try:
        write("delete_health_check", f"delete health check {id_}", HealthCheckId=id_)
    except RefusedError as error:
        if error.context.get("code") != "NoSuchHealthCheck":
            raise
