"""Failover and failback as operators see them: what is agreed, what is held of regions, how a plan begins."""

# Annotations are values here, so that OpenAPI is true.

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import PathParameter, QueryParameter
from msgspec import Meta

from acgs2.api.door import authenticate, operator_of, operators_only
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES
from acgs2.errors import ConflictError
from acgs2.plan import StepKind, document_of

__all__ = ["HANDLERS"]

Http = Request[Any, Any, Any]
RegionName = Annotated[str, Meta(max_length=63)]
Dry = Annotated[bool, QueryParameter(name="dry_run")]
Outside = Annotated[list[StepKind] | None, QueryParameter(name="outside")]
_COMMON: dict[str, Any] = {
    "guards": [authenticate, operators_only],
    "tags": ["operations"],
    "responses": RESPONSES,
}


class FailoverShown(msgspec.Struct):
    """All that is agreed (`acgs2.plan.Agreed`), and who carries it out.

    Only the region that leads knows what is held of all regions, and what each plan waits for.
    """

    version: int
    agreed: dict[str, Any]
    leader: str | None
    term: int
    judged: dict[str, dict[str, Any]]
    waits_for: dict[str, str]


class Begun(msgspec.Struct):
    """A plan (`acgs2.plan.Plan`), whether it was begun or only worked out, and what it would do outside."""

    plan: dict[str, Any]
    begun: bool
    calls: list[str] = []


@get("/api/v1/failover", summary="Plans, open and past, and what is held of regions", **_COMMON)
async def show(request: Http) -> FailoverShown:
    """Return what is agreed as this region last heard it."""
    server: RegionServer = request.app.state.server
    version, agreed = server.participation.require()
    leader, term = server.leader.known()
    control = server.controller
    judged = {region: msgspec.to_builtins(each) for region, each in control.judged.items()}
    return FailoverShown(version, document_of(agreed), leader, term, judged, dict(control.waits_for))


@post("/api/v1/failover/{region:str}", status_code=200, summary="Leave a region", **_COMMON)
async def leave(
    request: Http,
    region: Annotated[RegionName, PathParameter(name="region")],
    dry_run: Dry = False,
    outside: Outside = None,
) -> Begun:
    """Move what a region serves to lawful regions; the region that leads carries it out.

    With `dry_run` nothing is begun: the plan says what would be done, and why each target was chosen or not;
    `outside` adds steps that are carried out by others, such as `database`.
    """
    return await _begin(request, "failover", region, dry_run, (outside or ()) if dry_run else ())


@post("/api/v1/failback/{region:str}", status_code=200, summary="Bring a region back", **_COMMON)
async def come_back(
    request: Http, region: Annotated[RegionName, PathParameter(name="region")], dry_run: Dry = False
) -> Begun:
    """Give a region that was left its traffic again, share by share, each gated on how the last one went."""
    return await _begin(request, "failback", region, dry_run)


async def _begin(
    request: Http, kind: str, region: str, dry_run: bool, outside: Sequence[StepKind] = ()
) -> Begun:
    server: RegionServer = request.app.state.server
    principal = operator_of(request, "begin plans")
    _, agreed = server.participation.require()
    if not server.leader.held():
        await server.controller.look()  # judged by what is known here; the one that leads judges anew
    by = principal.name
    plan = server.controller.plan(kind, region, agreed, f"operator {by}", by=by, outside=outside)
    if dry_run:
        return Begun(msgspec.to_builtins(plan), False, await server.controller.rehearse(plan))
    if kind == "failback" and region not in agreed.traffic.down and region not in agreed.traffic.weights:
        raise ConflictError(
            "nothing-to-bring-back",
            f"No failover has left {region}: it is not to be brought back.",
            hint="What `acgs2 traffic drain` did, `acgs2 traffic restore` undoes.",
        )
    known = await server.controller.begin(plan)
    current = known.plans.get(region)
    if current != plan:
        raise ConflictError(
            "plan-open",
            f"A {current.kind if current else kind} of {region} is under way or over already.",
            hint="See `acgs2 failover`; a failback waits until the failover is done.",
        )
    return Begun(msgspec.to_builtins(plan), True)


HANDLERS: list[Any] = [show, leave, come_back]
