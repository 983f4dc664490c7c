"""Where traffic goes: what plans have agreed, and what operators want."""

# Annotations are values here, so that OpenAPI is true.

from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import JSONBody
from msgspec import Meta

from acgs2.api.audited import audit
from acgs2.api.door import authenticate, operator_of, operators_only
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES
from acgs2.errors import InputError
from acgs2.plan import Agreed, Plan, Shares

__all__ = ["HANDLERS"]

Http = Request[Any, Any, Any]
_COMMON: dict[str, Any] = {
    "guards": [authenticate, operators_only],
    "tags": ["operations"],
    "responses": RESPONSES,
}


class TrafficChange(msgspec.Struct, forbid_unknown_fields=True):
    """What a region shall take of what reaches it, in percent, or that it shall take nothing at all."""

    region: Annotated[str, Meta(max_length=63)]
    weight: Annotated[int, Meta(ge=0, le=100)] | None = None
    down: bool | None = None


class PlanShown(msgspec.Struct):
    """An open plan and the step that it is at; `/api/v1/failover` has all of it."""

    id: str
    kind: str
    cause: str
    begun_us: int
    at: int
    steps: int
    step: str


class TrafficShown(msgspec.Struct):
    """Which regions take no part, what the others take, and who wants that.

    The version rises with every change of what is agreed; the highest is the newest, whoever says it.
    """

    version: int
    down: list[str]
    weights: dict[str, int]
    operator: Shares
    plans: dict[str, PlanShown]


@get("/api/v1/traffic", summary="Who takes which share of what reaches it", **_COMMON)
async def traffic(request: Http) -> TrafficShown:
    """Return what is agreed as this region last heard it, less than a second ago where it is connected."""
    server: RegionServer = request.app.state.server
    return _shown(*server.participation.require())


@post("/api/v1/traffic", status_code=200, summary="Give a region a share, or drain it", **_COMMON)
async def change(request: Http, data: JSONBody[TrafficChange]) -> TrafficShown:
    """Change what operators want of a region; the edge goes by it within a second.

    A region that a plan has taken out stays out, whatever operators want: it comes back by a failback.
    """
    server: RegionServer = request.app.state.server
    principal = operator_of(request, "change where traffic goes")
    _check(server, data)
    async with server.pool.connection() as conn:  # had first: what cannot be audited is not done
        version, agreed = await server.participation.change(lambda now: _changed(now, data))
        body = {
            "by": principal.name,
            "region": data.region,
            "weight": agreed.operator.weights.get(data.region, 100),
            "down": data.region in agreed.operator.down,
            "version": version,
        }
        await audit(conn, "traffic", None, body)
    return _shown(version, agreed)


def _check(server: RegionServer, data: TrafficChange) -> None:
    stacks = server.topology.stacks()
    if data.region not in stacks:
        raise InputError(
            "unknown-region", f"{data.region} serves no clients.", hint=f"Regions: {', '.join(stacks)}."
        )
    if (data.weight is None and data.down is None) or (data.weight is not None and data.down):
        raise InputError(
            "traffic-unclear",
            "Give a region a weight, or say that it is down.",
            hint='{"region": "eu-west-1", "weight": 25}, or {"region": "eu-west-1", "down": true}',
        )


def _changed(now: Agreed, data: TrafficChange) -> Agreed:
    if data.down:
        return now.set_by_operator(now.operator.without(data.region))
    had = now.operator.weights.get(data.region, 100)
    return now.set_by_operator(now.operator.giving(data.region, had if data.weight is None else data.weight))


def _shown(version: int, agreed: Agreed) -> TrafficShown:
    shares = agreed.shares
    return TrafficShown(
        version=version,
        down=[*shares.down],
        weights=shares.weights,
        operator=agreed.operator,
        plans={region: _plan(plan) for region, plan in agreed.plans.items()},
    )


def _plan(plan: Plan) -> PlanShown:
    step = plan.current.kind if plan.current is not None else ""
    return PlanShown(
        id=plan.id,
        kind=plan.kind,
        cause=plan.cause,
        begun_us=plan.begun_us,
        at=plan.at,
        steps=len(plan.steps),
        step=str(step),
    )


HANDLERS: list[Any] = [traffic, change]
