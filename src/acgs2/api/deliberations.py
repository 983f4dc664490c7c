"""Held messages: who may see them, what approvers say about them, and how they end."""

# Annotations are values here, so that OpenAPI is true.

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, get, post
from litestar.params import HeaderParameter, JSONBody, PathParameter, QueryParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage
from msgspec import Meta
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from acgs2.api.audited import audit
from acgs2.api.door import PREFERENCE_HEADER, ZONE_HEADER, authenticate, check_zone, principal_of
from acgs2.api.records import flushed_position
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES, clean
from acgs2.api.tokens import Principal
from acgs2.bus.deliberations import approval_key, approvals_of, conclusion, held_of, verdict_key
from acgs2.errors import ConflictError, ForbiddenError, InputError, NotFoundError, OutcomeUnknown
from acgs2.model.clock import moment_of
from acgs2.policy import Halts
from acgs2.policy.deliberation import missing, refusal
from acgs2.store.templates import fragments

__all__ = ["HANDLERS", "Said", "conclude", "held_rows", "may_see", "shown_of"]

Http = Request[Any, Any, Any]
_QUERIES = fragments("bus.sql")
_POLL_S = 0.25
_COMMON: dict[str, Any] = {"guards": [authenticate], "tags": ["deliberations"], "responses": RESPONSES}
_REFUSALS = {
    "approver-is-proposer": "Who proposed a message does not approve it.",
    "approver-not-named": "You are not one of those who were named to approve this message.",
    "deliberation-expired": "The time to approve this message is over; it is denied.",
}
MessageId = Annotated[UUID, PathParameter(description="The message that is held.")]
Zone = Annotated[
    str | None, HeaderParameter(name=ZONE_HEADER, max_length=63, description="The message's zone.")
]


class Word(msgspec.Struct, forbid_unknown_fields=True):
    """What an approver says, once; a second word by the same one is refused."""

    decision: Literal["approve", "deny"]
    reason: Annotated[str, Meta(max_length=2000)] = ""


class Said(msgspec.Struct, kw_only=True):
    """What one approver said."""

    approver: str
    decision: str
    reason: str
    at: datetime


class Deliberation(msgspec.Struct, kw_only=True):
    """A held message: what it says, why it is held, who must approve, and how it stands."""

    message_id: UUID
    zone: str
    tenant_id: UUID
    from_agent: UUID
    to_agent: UUID | None
    topic: str | None
    message_type: str
    priority: int
    content: str | None
    payload: Any
    impact: float
    reasons: list[str]
    policies: list[str]
    factors: Any
    holds: Any
    held_since: datetime
    deadline: datetime
    state: str
    missing: dict[str, int]
    approvals: list[Said]
    decided_in: str | None = None


class Deliberations(msgspec.Struct):
    """Held messages, the first to end first."""

    items: list[Deliberation]


@get("/api/v1/deliberations", summary="Messages that wait for people", **_COMMON)
async def index(
    request: Http,
    tenant: Annotated[UUID | None, QueryParameter(name="tenant")] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=200)] = 50,
) -> Deliberations:
    """Return what waits and may be seen by the bearer: approvers see what they are named for."""
    server: RegionServer = request.app.state.server
    principal = principal_of(request)
    wanted = UUID(principal.tenant) if principal.tenant is not None else tenant
    rows = await _waiting(server, list(server.rules.pairs), wanted, limit)
    return Deliberations([shown_of(row) for row in rows if may_see(principal, row)])


@get(
    "/api/v1/deliberations/events",
    media_type="text/event-stream",
    summary="Messages that wait, as they come and end",
    **_COMMON,
)
async def events(request: Http) -> ServerSentEvent:
    """Send an event for every held message when it comes, when something is said, and when it ends."""
    server: RegionServer = request.app.state.server
    return ServerSentEvent(_events(server, principal_of(request)))


@get("/api/v1/deliberations/{message_id:uuid}", summary="A held message", **_COMMON)
async def show(request: Http, message_id: MessageId) -> Deliberation:
    """Return a held message, whether it still waits or how it ended."""
    server: RegionServer = request.app.state.server
    return shown_of(await _one(server, principal_of(request), message_id))


@post(
    "/api/v1/deliberations/{message_id:uuid}/approvals",
    status_code=201,
    summary="Approve or deny a held message",
    **_COMMON,
)
async def say(request: Http, message_id: MessageId, data: JSONBody[Word], zone: Zone = None) -> Deliberation:
    """Note what an approver says; returns the message as it stands then."""
    server: RegionServer = request.app.state.server
    principal = principal_of(request)
    clean(await request.body(), data)
    if not zone:
        raise InputError(
            "zone-missing", f"An approval needs the header {ZONE_HEADER}.", hint="Name its zone."
        )
    check_zone(server, "approval", zone, request.headers.get(PREFERENCE_HEADER, "auto"))
    governed = server.governance.require()
    if not governed.constitution.permits(principal.role, "approve"):
        raise ForbiddenError(
            "role-not-allowed",
            f"Who acts as {principal.role} approves nothing.",
            hint="Approvers have tokens of their own: `acgs2 token NAME --role approver`.",
        )
    row = await _one(server, principal, message_id)
    if row["zone"] != zone:
        raise ForbiddenError("zone-mismatch", f"The message belongs to another zone than {zone}.")
    peers = server.require_pair(zone)
    position = await _note(server, principal, row, data)
    await server.confirmed(zone, position, peers)
    if server.governance.lease_left_s() <= 0:
        raise OutcomeUnknown(
            "outcome-unknown", "The region lost its serving lease meanwhile.", hint="Say it again."
        )
    if server.inboxes.serves(zone):
        await conclude(server, [message_id], governed.halts)
    return shown_of(await _one(server, principal, message_id))


async def _note(server: RegionServer, principal: Principal, row: Mapping[str, Any], word: Word) -> str:
    """Store an approval and its leaf; return the position that it is flushed to."""
    now_us = time.time_ns() // 1000
    reference = refusal(held_of(row), principal.name, now_us)
    if reference is not None:
        kind = ConflictError if reference == "deliberation-expired" else ForbiddenError
        raise kind(reference, _REFUSALS[reference], hint="See who was named with `acgs2 deliberations show`.")
    if row["verdict"] is not None:
        raise ConflictError(
            "deliberation-closed",
            f"The message is {row['verdict']['reason']} already.",
            hint="Nothing is left.",
        )
    names = {
        "key": approval_key(row["key"], principal.name),
        "zone": row["zone"],
        "tenant_id": row["tenant_id"],
        "message_id": row["key"],
        "approver": principal.name,
        "decision": word.decision,
        "reason": word.reason,
    }
    async with server.database("INSERT", "approval") as conn:
        async with conn.transaction():
            if await (await conn.execute(_QUERIES["approve"].encode(), names)).fetchone():
                body = {k: str(names[k]) for k in ("approver", "decision", "message_id", "tenant_id", "zone")}
                await audit(conn, "approval", row["key"], body | {"region": server.region}, row["tenant_id"])
            else:
                said = await (await conn.execute(_QUERIES["said"].encode(), names)).fetchone()
                if said is None or said[0] != word.decision:
                    raise ConflictError(
                        "approval-given", "You have said otherwise before.", hint="A word once given stands."
                    )
        return await flushed_position(conn)


async def conclude(server: RegionServer, keys: Sequence[UUID], halts: Halts) -> int:
    """End those of some held messages that can be ended now; return how many were.

    Only the region that serves the inboxes of their zone does this, one at a time.
    """
    ended = 0
    async with server.database("INSERT", "verdict") as conn:
        for row in await held_rows(conn, keys):
            final = conclusion(row, halts, time.time_ns() // 1000)
            if final is None or row["verdict"] is not None:
                continue
            counted = [msgspec.to_builtins(each) for each in final.counted]
            names = {
                "key": verdict_key(row["key"]),
                "zone": row["zone"],
                "tenant_id": row["tenant_id"],
                "message_id": row["key"],
                "decision": final.decision,
                "reason": str(final.reason),
                "approvals": Jsonb(counted),
                "decided_in": server.region,
            }
            async with conn.transaction():
                if not server.inboxes.serves(row["zone"]):
                    return ended
                if await (await conn.execute(_QUERIES["conclude"].encode(), names)).fetchone():
                    body = {
                        k: str(names[k]) for k in ("decision", "message_id", "reason", "tenant_id", "zone")
                    }
                    body |= {"approvers": [each.approver for each in final.counted], "region": server.region}
                    await audit(conn, "verdict", row["key"], body, row["tenant_id"])
                    ended += 1
    return ended


async def held_rows(conn: Any, keys: Sequence[UUID]) -> list[dict[str, Any]]:
    """Return those of some messages that were held, with what was said about them and how they ended."""
    cursor = conn.cursor(row_factory=dict_row)
    await cursor.execute(_QUERIES["held"].encode(), {"keys": list(keys)})
    return await cursor.fetchall()


async def _waiting(
    server: RegionServer, zones: list[str], tenant: UUID | None, limit: int
) -> list[dict[str, Any]]:
    names = {"zones": zones, "tenant": tenant, "limit": limit}
    async with server.database("SELECT", "message") as conn:
        found = await (await conn.execute(_QUERIES["waiting"].encode(), names)).fetchall()
        return await held_rows(conn, [key for (key,) in found])


async def _one(server: RegionServer, principal: Principal, message: UUID) -> dict[str, Any]:
    async with server.database("SELECT", "message") as conn:
        rows = await held_rows(conn, [message])
    if not rows or not may_see(principal, rows[0]):
        raise NotFoundError(
            "deliberation-unknown",
            "No such message is held here.",
            hint="Ask in a region that holds its zone; approvers see what they are named for.",
        )
    return rows[0]


def may_see(principal: Principal, row: Mapping[str, Any]) -> bool:
    """Return whether a held message and what was said about it is the bearer's to see."""
    if principal.tenant not in (None, str(row["tenant_id"])):
        return False
    if principal.role == "agent":
        return principal.subject == str(row["from_agent"])
    if principal.role == "approver":
        held = held_of(row)
        return any(principal.name in hold.members for hold in held.holds) or principal.name in held.proposers
    return True


def shown_of(row: Mapping[str, Any]) -> Deliberation:
    """Return a row of `held` as the API shows it."""
    held, verdict, basis = held_of(row), row["verdict"], row["basis"]
    said = approvals_of(row)
    return Deliberation(
        message_id=row["key"],
        **{
            name: row[name]
            for name in ("zone", "tenant_id", "from_agent", "to_agent", "topic", "message_type", "priority")
        },
        content=row["content"],
        payload=row["payload"],
        impact=(row["impact"] or 0) / 1000,
        reasons=basis.get("reasons", []),
        policies=basis.get("policies", []),
        factors=basis.get("factors", []),
        holds=basis.get("holds", []),
        held_since=moment_of(row["hlc"]),
        deadline=moment_of(held.deadline_us),
        state=verdict["reason"] if verdict else "open",
        missing=dict(missing(held, said)) if not verdict else {},
        approvals=[
            Said(approver=s.approver, decision=s.decision, reason=s.reason, at=moment_of(s.at_us))
            for s in said
        ],
        decided_in=verdict["decided_in"] if verdict else None,
    )


async def _events(server: RegionServer, principal: Principal) -> AsyncIterator[ServerSentEventMessage]:
    """Yield what changed, message by message; a comment now and then shows that somebody is there."""
    seen: dict[UUID, bytes] = {}
    while True:
        wanted = UUID(principal.tenant) if principal.tenant is not None else None
        rows = await _waiting(server, list(server.rules.pairs), wanted, 200)
        gone = [key for key in seen if key not in {row["key"] for row in rows}]
        if gone:
            async with server.database("SELECT", "message") as conn:
                rows += await held_rows(conn, gone)
        for row in rows:
            if not may_see(principal, row):
                continue
            shown = msgspec.json.encode(shown_of(row))
            if seen.get(row["key"]) != shown:
                seen[row["key"]] = shown
                yield ServerSentEventMessage(data=shown.decode(), event="deliberation", id=str(row["key"]))
        for key in gone:
            seen.pop(key, None)
        await asyncio.sleep(_POLL_S)


HANDLERS: list[Any] = [index, events, show, say]
