"""Held messages: who may see them, what approvers say about them, and how they end."""

# Annotations are values here, so that OpenAPI is true.

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, get, post
from litestar.params import HeaderParameter, JSONBody, PathParameter, QueryParameter
from msgspec import Meta
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from acgs2.api.audited import audit
from acgs2.api.door import PREFERENCE_HEADER, ZONE_HEADER, authenticate, check_zone, principal_of
from acgs2.api.in_force import Governed
from acgs2.api.records import flushed_position
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES, clean
from acgs2.api.tokens import Principal
from acgs2.bus.deliberations import (
    Groups,
    approval_key,
    approvals_of,
    conclusion,
    has_said,
    held_of,
    verdict_key,
)
from acgs2.errors import ConflictError, ForbiddenError, InputError, NotFoundError, OutcomeUnknown
from acgs2.model.clock import moment_of
from acgs2.policy.deliberation import missing, refusal, wanting
from acgs2.store.templates import fragments

__all__ = ["COMMON", "HANDLERS", "conclude", "groups_now", "may_see", "rows_of", "shown", "waiting"]

Http = Request[Any, Any, Any]
_QUERIES = fragments("bus.sql")
#: What the routes of held messages have in common.
COMMON: dict[str, Any] = {"guards": [authenticate], "tags": ["deliberations"], "responses": RESPONSES}
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
    """What one approver said, and whether that counts: not any more once the approver has left the group."""

    approver: str
    decision: str
    reason: str
    at: datetime
    counts: bool


class Deliberation(msgspec.Struct, kw_only=True):
    """A held message: what it says, why it is held, who must approve, and how it stands.

    `wanting` says which groups have too few people left to approve it, and how many: it will be denied at its
    deadline unless they are members again by then.
    """

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
    wanting: dict[str, int]
    approvals: list[Said]
    decided_in: str | None = None


class Deliberations(msgspec.Struct):
    """Held messages, the first to end first."""

    items: list[Deliberation]


@get("/api/v1/deliberations", summary="Messages that wait for people", **COMMON)
async def index(
    request: Http,
    tenant: Annotated[UUID | None, QueryParameter(name="tenant")] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=200)] = 50,
) -> Deliberations:
    """Return what waits and may be seen by the bearer: approvers see what they are named for."""
    server: RegionServer = request.app.state.server
    principal = principal_of(request)
    wanted = UUID(principal.tenant) if principal.tenant is not None else tenant
    rows = await waiting(server, list(server.rules.pairs), wanted, limit)
    groups = groups_now(server)
    return Deliberations([shown(row, groups) for row in rows if may_see(principal, row, groups)])


@get("/api/v1/deliberations/{message_id:uuid}", summary="A held message", **COMMON)
async def show(request: Http, message_id: MessageId) -> Deliberation:
    """Return a held message, whether it still waits or how it ended."""
    server: RegionServer = request.app.state.server
    return shown(await _one(server, principal_of(request), message_id), groups_now(server))


@post(
    "/api/v1/deliberations/{message_id:uuid}/approvals",
    status_code=201,
    summary="Approve or deny a held message",
    **COMMON,
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
    position = await _note(server, principal, row, data, governed.judge.groups())
    await server.confirmed(zone, position, peers)
    if server.governance.lease_left_s() <= 0:
        raise OutcomeUnknown(
            "outcome-unknown", "The region lost its serving lease meanwhile.", hint="Say it again."
        )
    if server.inboxes.serves(zone):
        await conclude(server, [message_id], governed)
    return shown(await _one(server, principal, message_id), groups_now(server))


async def _note(
    server: RegionServer, principal: Principal, row: Mapping[str, Any], word: Word, groups: Groups
) -> str:
    """Store an approval and its leaf; return the position that it is flushed to.

    What was said just so before is not refused for what has happened since: its answer may have been lost.
    """
    if has_said(row, principal.name, word.decision):
        async with server.database("SELECT", "approval") as conn:
            return await flushed_position(conn)
    reference = refusal(held_of(row, groups), principal.name, time.time_ns() // 1000)
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


async def conclude(server: RegionServer, keys: Sequence[UUID], governed: Governed) -> int:
    """End those of some held messages that can be ended now; return how many were.

    Only the region that serves the inboxes of their zone does this, one at a time.
    """
    ended, groups = 0, governed.judge.groups()
    async with server.database("INSERT", "verdict") as conn:
        for row in await rows_of(conn, keys):
            final = conclusion(row, groups, governed.halts, time.time_ns() // 1000)
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


async def rows_of(conn: Any, keys: Sequence[UUID]) -> list[dict[str, Any]]:
    """Return the messages of these keys that were held, with what became of them."""
    cursor = conn.cursor(row_factory=dict_row)
    await cursor.execute(_QUERIES["held"].encode(), {"keys": list(keys)})
    return await cursor.fetchall()


async def waiting(
    server: RegionServer, zones: list[str], tenant: UUID | None, limit: int
) -> list[dict[str, Any]]:
    """Return what waits in these zones, the first to end first; of one tenant where one is named."""
    names = {"zones": zones, "tenant": tenant, "limit": limit}
    async with server.database("SELECT", "message") as conn:
        found = await (await conn.execute(_QUERIES["waiting"].encode(), names)).fetchall()
        return await rows_of(conn, [key for (key,) in found])


async def _one(server: RegionServer, principal: Principal, message: UUID) -> dict[str, Any]:
    async with server.database("SELECT", "message") as conn:
        rows = await rows_of(conn, [message])
    if not rows or not may_see(principal, rows[0], groups_now(server)):
        raise NotFoundError(
            "deliberation-unknown",
            "No such message is held here.",
            hint="Ask in a region that holds its zone; approvers see what they are named for.",
        )
    return rows[0]


def groups_now(server: RegionServer) -> Groups | None:
    """Return who is in which group as far as this region knows, to show by; None where it does not."""
    known = server.governance.known
    return known.judge.groups() if known is not None else None


def may_see(principal: Principal, row: Mapping[str, Any], groups: Groups | None) -> bool:
    """Return whether a principal may see a held message: approvers what they are named for or proposed."""
    if principal.tenant not in (None, str(row["tenant_id"])):
        return False
    if principal.role == "agent":
        return principal.subject == str(row["from_agent"])
    if principal.role == "approver":
        held = held_of(row, groups)
        return any(principal.name in hold.members for hold in held.holds) or principal.name in held.proposers
    return True


def shown(row: Mapping[str, Any], groups: Groups | None) -> Deliberation:
    """Return a held message as it is shown."""
    held, verdict, basis = held_of(row, groups), row["verdict"], row["basis"]
    said = approvals_of(row)
    if verdict:
        rested = {each["approver"] for each in verdict["approvals"] or ()}
    else:
        rested = {each.approver for each in said if refusal(held, each.approver, each.at_us) is None}
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
        wanting=dict(wanting(held)) if not verdict else {},
        approvals=[
            Said(
                approver=s.approver,
                decision=s.decision,
                reason=s.reason,
                at=moment_of(s.at_us),
                counts=s.approver in rested,
            )
            for s in said
        ],
        decided_in=verdict["decided_in"] if verdict else None,
    )


HANDLERS: list[Any] = [index, show, say]
