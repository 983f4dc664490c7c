"""Inboxes over HTTP: claim, acknowledge, return, what was given up, and who serves them."""

# Annotations are values here, so that OpenAPI is true.

import time
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, get, post
from litestar.connection import ASGIConnection
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta
from psycopg.rows import dict_row

from acgs2.api.door import authenticate, guard_read, operators_only, principal_of
from acgs2.api.records import flushed_position
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES, Zone
from acgs2.api.tokens import Principal
from acgs2.api.waiting import waited_for
from acgs2.bus.claims import ClaimId, of_generation
from acgs2.bus.desk import Claimed, Receiver
from acgs2.errors import ForbiddenError, InputError, NotFoundError
from acgs2.model import entities
from acgs2.store.templates import fragments

__all__ = ["HANDLERS", "consumer", "deliveries_of", "receiver_of"]

Http = Request[Any, Any, Any]
_QUERIES = fragments("delivery.sql")
_GUARDS: list[Any] = [authenticate, guard_read(entities()["message"])]
_KNOWN_S = 1.0
_KNOWN_MOST = 10_000
_MOVE_S = 5.0
Agent = Annotated[UUID, PathParameter(description="The id of an agent.")]
ClaimText = Annotated[str, Meta(min_length=1, max_length=100)]
Claims = Annotated[list[ClaimText], Meta(min_length=1, max_length=500)]
Dead = Annotated[int, QueryParameter(name="limit", ge=1, le=500)]
Since = Annotated[datetime | None, QueryParameter(name="after", description="Only what was given up later.")]
MessageId = Annotated[UUID, QueryParameter(name="message_id", description="Of one message.")]
_COMMON: dict[str, Any] = {"guards": _GUARDS, "tags": ["inbox"], "responses": RESPONSES}


class ClaimRequest(msgspec.Struct, forbid_unknown_fields=True):
    """How many messages, how long to wait for the first, and for how long they are held."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    wait_s: Annotated[float, Meta(ge=0, le=20)] = 0
    hold_s: Annotated[float, Meta(ge=1, le=3600)] = 30


class ClaimAnswer(msgspec.Struct):
    """What was claimed, in the order in which it is to be worked on, and the generation of the inbox."""

    generation: int
    claims: list[Claimed]


class Acknowledgement(msgspec.Struct, forbid_unknown_fields=True):
    """Claims that are done with, as they were given."""

    claims: Claims


class GivenBack(msgspec.Struct, forbid_unknown_fields=True):
    """Claims to be delivered again, and after how long."""

    claims: Claims
    delay_s: Annotated[float, Meta(ge=0, le=3600)] = 0


class Requeued(msgspec.Struct, forbid_unknown_fields=True):
    """Dead letters to be delivered after all; all of them if none is named."""

    messages: Annotated[list[UUID], Meta(max_length=500)] | None = None


class Handover(msgspec.Struct, forbid_unknown_fields=True):
    """Which region shall serve a zone's inboxes."""

    to: Annotated[str, Meta(min_length=1, max_length=63)]


async def receiver_of(connection: ASGIConnection[Any, Any, Any, Any], agent: UUID) -> Receiver:
    """Return an agent that the principal may know of.

    Raises:
        NotFoundError: there is none of its tenant here (`agent-unknown`).
    """
    server: RegionServer = connection.app.state.server
    known = server.known_receivers
    found, at_s = known.get(agent, (None, float("-inf")))
    if time.monotonic() - at_s > _KNOWN_S:
        async with server.pool.connection() as conn:
            row = await (await conn.execute(_QUERIES["agent"].encode(), {"agent": agent})).fetchone()
        found = Receiver(agent, row[0], row[1]) if row is not None else None
        if len(known) >= _KNOWN_MOST:
            known.clear()
        known[agent] = (found, time.monotonic())
    tenant = principal_of(connection).tenant
    if found is None or tenant not in (None, str(found.tenant)):
        raise NotFoundError(
            "agent-unknown",
            "There is no such agent here.",
            hint="Ask a region that may hold its zone, with a token of its tenant.",
        )
    return found


async def consumer(connection: ASGIConnection[Any, Any, Any, Any], agent: UUID) -> Receiver:
    """Return the receiver whose messages the principal may take: itself, or a service's of the tenant.

    Raises:
        ForbiddenError: the principal is neither (`other-agents-inbox`).
        NotFoundError: see `receiver_of`.
    """
    principal = principal_of(connection)
    found = await receiver_of(connection, agent)
    itself = principal.role == "agent" and principal.subject.lower() == str(agent)
    if not (itself or (principal.role == "service" and principal.tenant is not None)):
        raise ForbiddenError(
            "other-agents-inbox",
            "Only the agent itself, or a service of its tenant, takes its messages.",
            hint="Use the agent's own token: its subject is the agent's id.",
        )
    return found


async def _keeper(request: Http, agent: UUID) -> Receiver:
    """Return the receiver whose dead letters the principal may see to; operators may see to all."""
    if principal_of(request).role == "operator":
        return await receiver_of(request, agent)
    return await consumer(request, agent)


@post("/api/v1/inboxes/{agent:uuid}/claim", status_code=200, summary="Take messages", **_COMMON)
async def claim(request: Http, agent: Agent, data: JSONBody[ClaimRequest], zone: Zone = None) -> ClaimAnswer:
    """Hold messages for a while, urgent ones first, of each conversation one at a time; may wait for them."""
    receiver = await consumer(request, agent)
    inboxes = request.app.state.server.inboxes
    async with waited_for(request, lambda: inboxes.desk.wake([agent])) as gone:
        generation, claims = await inboxes.desk.claim(
            receiver,
            data.limit,
            data.hold_s,
            data.wait_s,
            lambda known: inboxes.require(receiver, known),
            gone,
        )
    return ClaimAnswer(generation, claims)


@post("/api/v1/inboxes/{agent:uuid}/acknowledge", status_code=200, summary="Be done with messages", **_COMMON)
async def acknowledge(
    request: Http, agent: Agent, data: JSONBody[Acknowledgement], zone: Zone = None
) -> dict[str, Any]:
    """Say that messages need not be delivered again; safe to repeat. Refused whole in another generation."""
    receiver = await consumer(request, agent)
    claims = [ClaimId.parse(each) for each in data.claims]
    inboxes = request.app.state.server.inboxes
    generation = inboxes.require(receiver)
    of_generation(claims, generation)
    outcomes = await inboxes.desk.acknowledge(receiver, claims)
    inboxes.require(receiver, generation)
    return _outcomes(generation, data.claims, outcomes)


@post("/api/v1/inboxes/{agent:uuid}/return", status_code=200, summary="Give messages back", **_COMMON)
async def give_back(
    request: Http, agent: Agent, data: JSONBody[GivenBack], zone: Zone = None
) -> dict[str, Any]:
    """Let messages be delivered again, at once or after a delay; that counts as an attempt."""
    receiver = await consumer(request, agent)
    claims = [ClaimId.parse(each) for each in data.claims]
    inboxes = request.app.state.server.inboxes
    generation = inboxes.require(receiver)
    of_generation(claims, generation)
    outcomes = await inboxes.desk.give_back(receiver, claims, generation, data.delay_s)
    inboxes.require(receiver, generation)
    return _outcomes(generation, data.claims, outcomes)


def _outcomes(generation: int, claims: list[str], outcomes: list[str]) -> dict[str, Any]:
    said = [{"claim": c, "outcome": o} for c, o in zip(claims, outcomes, strict=True)]
    return {"generation": generation, "claims": said}


async def _rows(server: RegionServer, query: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    async with server.pool.connection() as conn:
        cursor = conn.cursor(row_factory=dict_row)
        await cursor.execute(_QUERIES[query].encode(), names)
        return await cursor.fetchall()


@get("/api/v1/inboxes/{agent:uuid}", summary="How full an inbox is, and who serves it", **_COMMON)
async def show(request: Http, agent: Agent, zone: Zone = None) -> dict[str, Any]:
    """Return how much waits and is held here, and which region serves it in which generation."""
    server: RegionServer = request.app.state.server
    receiver = await _keeper(request, agent)
    names = {"agent": agent, "tenant": receiver.tenant}
    (depth,) = await _rows(server, "depth", names)
    region, generation = server.inboxes.served().get(receiver.zone, (None, 0))
    return {
        "agent": agent,
        "zone": receiver.zone,
        **depth,
        "served_by": region,
        "generation": generation,
        "region": server.region,
    }


@get("/api/v1/inboxes/{agent:uuid}/dead", summary="What was given up", **_COMMON)
async def dead(
    request: Http, agent: Agent, limit: Dead = 100, after: Since = None, zone: Zone = None
) -> dict[str, Any]:
    """Return dead letters, the oldest first, with the reason: expired, or attempts."""
    receiver = await _keeper(request, agent)
    names = {"agent": agent, "tenant": receiver.tenant, "limit": limit, "after": after}
    return {"items": await _rows(request.app.state.server, "dead", names)}


@post("/api/v1/inboxes/{agent:uuid}/dead/requeue", status_code=200, summary="Deliver after all", **_COMMON)
async def requeue(request: Http, agent: Agent, data: JSONBody[Requeued], zone: Zone = None) -> dict[str, Any]:
    """Put dead letters to the end of the inbox; what has expired stays where it is."""
    server: RegionServer = request.app.state.server
    receiver = await _keeper(request, agent)
    generation = server.inboxes.require(receiver)
    names = {"agent": agent, "tenant": receiver.tenant, "messages": data.messages}
    (row,) = await _rows(server, "requeue", names)
    server.inboxes.require(receiver, generation)
    return {"generation": generation, "requeued": row["requeue"]}


@get("/api/v1/inboxes", guards=[authenticate], tags=["inbox"], summary="Who serves", responses=RESPONSES)
async def served(request: Http) -> dict[str, Any]:
    """Return of each zone which region serves its inboxes, as far as is known here, and the generation."""
    known = request.app.state.server.inboxes.served()
    return {"zones": [{"zone": z, "region": r, "generation": g} for z, (r, g) in known.items()]}


@post(
    "/api/v1/inboxes/{of:str}/move",
    status_code=200,
    guards=[authenticate, operators_only],
    tags=["inbox"],
    summary="Hand a zone's inboxes over",
    responses=RESPONSES,
)
async def move(
    request: Http,
    of: Annotated[str, PathParameter(description="A zone.", max_length=63)],
    data: JSONBody[Handover],
) -> dict[str, Any]:
    """Let another region serve a zone's inboxes from now on; asked of the region that serves them."""
    server: RegionServer = request.app.state.server
    if of not in server.rules.pairs:
        raise InputError(
            "zone-unknown", "There is no such zone.", hint=f"Zones: {', '.join(server.rules.pairs)}."
        )

    async def known_there() -> None:
        async with server.pool.connection() as conn:
            position = await flushed_position(conn)
        await server.watcher.wait(position, [data.to], _MOVE_S)

    await server.inboxes.move(of, data.to, known_there)
    return {"zone": of, "from": server.region, "to": data.to}


@get("/api/v1/deliveries", summary="What became of a message", **_COMMON)
async def deliveries(request: Http, message_id: MessageId, zone: Zone = None) -> dict[str, Any]:
    """Return where a message's deliveries stand here, agent by agent: state, attempts, generation, region.

    What was acknowledged is known for two hours; later it is only not there any more.
    """
    return {"items": await deliveries_of(request.app.state.server, principal_of(request), message_id)}


async def deliveries_of(server: RegionServer, principal: Principal, message_id: UUID) -> list[dict[str, Any]]:
    """Return where those deliveries of a message stand here that are the bearer's to know."""
    names = {
        "message_id": message_id,
        "tenant": principal.tenant,
        "agent": principal.subject.lower() if principal.role == "agent" else None,
    }
    return await _rows(server, "deliveries", names)


HANDLERS: list[Any] = [claim, acknowledge, give_back, show, dead, requeue, served, move, deliveries]
