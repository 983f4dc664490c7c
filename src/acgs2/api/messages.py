"""`POST /api/v1/messages`: the one door for what agents do. Answered without the framework's routing.

A handler of its own, because every microsecond here is paid by every message; the framework has all
other routes. `message_door` describes it in the schema, from the same structs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, cast
from uuid import UUID

import msgspec
import psycopg
from litestar import Response
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import UNSET, Meta, UnsetType

from acgs2.api.door import ONCE, PREFERENCE_HEADER, ZONE_HEADER, check_zone
from acgs2.api.observe import PROBLEM
from acgs2.api.problems import answer_to, from_database, problem
from acgs2.api.region import RegionServer
from acgs2.api.tokens import Principal, TokenError
from acgs2.bus.accept import Parties, judged, parties, row_of
from acgs2.bus.committer import Stored
from acgs2.bus.request import SendRequest, decode
from acgs2.errors import (
    PROBLEM_TYPES,
    AcgsError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    OutcomeUnknown,
    RefusedError,
    ResidencyError,
    UnavailableError,
)
from acgs2.logs.write import get_logger
from acgs2.model.clock import moment_of

__all__ = ["PATH", "Receipt", "with_messages"]

_LOG = get_logger("acgs2.bus")
PATH = "/api/v1/messages"
#: A record is at most 256 KiB; the rest is what surrounds it.
_BODY_BYTES = 300 * 1024
#: How often a message is judged again because an agent changed meanwhile, or its id was being stored.
_TRIES = 4
_WATCHED = {name.encode(): name for name in (*ONCE, PREFERENCE_HEADER)}
#: Principals that may speak: agents for themselves, services for the agents of their tenant.
_PROPOSERS = ("agent", "service")
Moment = Annotated[datetime, Meta(tz=True)]


class Held(msgspec.Struct, kw_only=True):
    """Who must approve a held message, how many of them, and until when."""

    group: str | None
    approvals: int | None
    deadline: Moment


class Receipt(msgspec.Struct, kw_only=True):
    """That a message was accepted, under which verdict, and where it is durable; `impact` is 0 to 1."""

    message_id: UUID
    conversation_id: UUID
    decision: str
    impact: float
    basis: dict[str, Any]
    zone: str
    accepted_at: Moment
    accepted_in: str
    residency: list[str]
    durable_in: list[str]
    deliberation: Held | UnsetType = UNSET


def with_messages(handle: ASGIApp, server: RegionServer) -> ASGIApp:
    """Return the handler of an application that takes messages in before any routing."""

    async def handled(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await handle(scope, receive, send)
            return
        cast(dict[str, Any], scope)["path_template"] = PATH
        try:
            status, body = await _take_in(server, scope, receive)
            headers = [(b"content-type", b"application/json")]
        except (AcgsError, psycopg.Error) as error:
            response = answer_to(error if isinstance(error, AcgsError) else from_database(error))
            status, headers, body = _problem(scope, response)
        except Exception:  # noqa: BLE001 - the edge of the server, as in problems.py
            _LOG.exception("message-failed")
            response = problem(500, "internal", "The server failed.", hint="See its log; this is a bug.")
            status, headers, body = _problem(scope, response)
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})  # pyright: ignore[reportArgumentType]
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return handled


def _problem(scope: Scope, response: Response[Any]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    scope["state"][PROBLEM] = response.content["type"].removeprefix(PROBLEM_TYPES)
    headers = [(b"content-type", b"application/problem+json")]
    headers += [(n.lower().encode(), v.encode("latin-1", "replace")) for n, v in response.headers.items()]
    return response.status_code or 500, headers, msgspec.json.encode(response.content)


async def _take_in(server: RegionServer, scope: Scope, receive: Receive) -> tuple[int, bytes]:
    headers = _headers(scope)
    principal = scope["state"]["principal"] = _principal(server, headers)
    _may_propose(principal)
    zone = headers.get(ZONE_HEADER)
    if not zone:
        raise InputError(
            "zone-missing",
            f"A message needs the header {ZONE_HEADER}.",
            hint="Name the zone that the sender's tenant belongs to, such as eu.",
        )
    check_zone(server, "message", zone, headers.get(PREFERENCE_HEADER, "auto"))
    scope["state"]["zone"] = zone
    now = datetime.now(UTC)
    request = decode(await _body(headers, receive), now)
    _may_speak(principal, request)
    return await _accept(server, principal, zone, request)


async def _accept(
    server: RegionServer, principal: Principal, zone: str, request: SendRequest
) -> tuple[int, bytes]:
    peers: Sequence[str] = ()
    for _ in range(_TRIES):
        governed = server.governance.require()
        peers = server.require_pair(zone)
        _constitutional(request, governed.constitution.id)
        between = await parties(request, server.agents)
        _not_halted(governed.halts, between)
        if between.sender.zone != zone:
            raise _refused("zone-mismatch", zone)
        _reaches(server, zone, between)
        verdict = judged(request, zone, between, governed.judge)
        row = row_of(request, zone, principal.name, between, verdict)
        stored = await server.committer.submit(row)
        if stored.outcome not in ("stale", "again"):
            break
        server.agents.forget(request.from_agent, request.to_agent)
    else:
        raise UnavailableError(
            "agents-changing", "The agents of the message keep changing.", hint="Send it again."
        )
    if server.governance.lease_left_s() <= 0:
        raise OutcomeUnknown(
            "outcome-unknown",
            "The region lost its serving lease while the message was stored.",
            hint="Send the same message again; it will not be stored twice.",
        )
    return _answer(server, zone, request, stored, [server.region, *peers])


def _answer(
    server: RegionServer, zone: str, request: SendRequest, stored: Stored, durable_in: Sequence[str]
) -> tuple[int, bytes]:
    if stored.outcome not in ("accepted", "repeat"):
        raise _refused(stored.outcome, zone)
    accepted_at = moment_of(stored.accepted_us or 0)
    receipt = Receipt(
        message_id=request.message_id,
        conversation_id=request.conversation_id,
        decision=stored.decision,
        impact=stored.impact / 1000,
        basis=stored.basis,
        zone=zone,
        accepted_at=accepted_at,
        accepted_in=(stored.origin or "").partition("#")[0],
        residency=[*stored.residency],
        durable_in=[*durable_in],
    )
    if stored.decision == "deny":
        raise ForbiddenError(
            "denied-by-policy",
            f"The message is refused. {' '.join(stored.basis.get('reasons', ())) or 'Nothing permits it.'}",
            hint="`basis` has the policies that decided; the message is stored, audited, and not delivered.",
            **{name: value for name, value in msgspec.structs.asdict(receipt).items() if value is not UNSET},
        )
    if stored.decision == "deliberate":
        deadline_s = stored.basis.get("deadline_s", 300)
        receipt.deliberation = Held(
            group=stored.basis.get("group"),
            approvals=stored.basis.get("approvals"),
            deadline=accepted_at + timedelta(seconds=deadline_s),
        )
    fresh = 202 if stored.decision == "deliberate" else 201
    return (fresh if stored.outcome == "accepted" else 200), msgspec.json.encode(receipt)


def _refused(outcome: str, zone: str) -> AcgsError:
    if outcome == "reused":
        return ConflictError(
            "message-id-reused",
            "Another message was accepted with this message_id.",
            hint="Give every message an id of its own; repeat one unchanged.",
        )
    if outcome == "erased":
        return ConflictError("erased", "The message was erased; its id is not used again.")
    if outcome == "tenant-unknown":
        return NotFoundError(
            "tenant-unknown", "There is no such tenant.", hint="Create it first, in its zone."
        )
    if outcome == "zone-mismatch":
        return ForbiddenError(
            "zone-mismatch",
            f"The tenant belongs to another zone than {zone}.",
            hint="Name the zone that it belongs to.",
        )
    return ForbiddenError("tenant-suspended", "The tenant is suspended.", hint="Ask its operator.")


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers that decide; refuse those that are there twice, and bodies that are not JSON."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        known = _WATCHED.get(name)
        if known is None:
            continue
        if known in found:
            raise InputError("header-repeated", f"The header {known} is there twice.", hint="Send it once.")
        found[known] = value.decode("latin-1")
    kind = found.get("content-type", "")
    if kind and kind.partition(";")[0].strip().lower() != "application/json":
        raise InputError("media-type-unknown", "The body is not called JSON.", hint="Send application/json.")
    if found.get("content-encoding", "identity").lower() != "identity":
        raise InputError("encoding-unknown", "The body is encoded.", hint="Send it without Content-Encoding.")
    return found


def _principal(server: RegionServer, headers: dict[str, str]) -> Principal:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        raise TokenError(
            "token-missing",
            "The request has no bearer token.",
            hint="Send `Authorization: Bearer TOKEN`; `acgs2 token` makes one.",
        )
    return server.verifier.verify(token.strip())


def _may_propose(principal: Principal) -> None:
    if principal.role not in _PROPOSERS or principal.tenant is None:
        raise ForbiddenError(
            "role-not-allowed",
            f"Who acts as {principal.role}{'' if principal.tenant else ' of no tenant'} sends no messages.",
            hint="Agents speak for themselves, services for the agents of their tenant.",
        )


def _may_speak(principal: Principal, request: SendRequest) -> None:
    if principal.tenant != str(request.tenant_id):
        raise NotFoundError("tenant-unknown", "There is no such tenant.", hint="Use your own tenant's id.")
    if principal.role == "agent" and principal.subject != str(request.from_agent):
        raise ForbiddenError(
            "not-the-sender", "An agent speaks only for itself.", hint="Send it as the agent of your token."
        )


def _constitutional(request: SendRequest, in_force: str) -> None:
    if request.constitutional_hash != in_force:
        raise RefusedError(
            "constitutional-hash-mismatch",
            "The message names another constitution than the one in force.",
            hint="Learn which one is in force and decide anew; it is never corrected here.",
            in_force=in_force,
        )


def _not_halted(halts: Any, between: Parties) -> None:
    for known in (between.sender, between.receiver):
        if known is None:
            continue
        halt = halts.of(str(known.tenant_id), str(known.key))
        if halt is not None:
            raise ForbiddenError(
                "halted",
                f"{halt.scope} is halted: {halt.reason}.",
                hint="Two operators can resume it: `acgs2 halt list`.",
                halt=str(halt.id),
            )


def _reaches(server: RegionServer, zone: str, between: Parties) -> None:
    """Refuse what may not be held where its receiver is served."""
    if between.receiver is None or between.receiver.zone == zone:
        return
    serving = server.inboxes.served_in(between.receiver.zone)
    holders = server.rules.holders("message", zone)
    if serving not in holders:
        raise ResidencyError(
            "residency-violation",
            f"The receiver is served in {serving or 'no region'}, which may not hold data of zone {zone}.",
            hint="A transfer must permit it; see `acgs2 transfers list`.",
            zone=zone,
            lawful=list(holders),
        )


async def _body(headers: dict[str, str], receive: Receive) -> bytes:
    size = 0
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InputError("body-incomplete", "The body ended early.", hint="Send all of it.")
        part = message.get("body", b"")
        size += len(part)
        if size > _BODY_BYTES:
            raise InputError("body-too-large", "The body is larger than 300 KiB.", hint="Send less at once.")
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)
