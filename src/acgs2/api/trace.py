"""The trace of a message: what became of it as far as one region knows, and which region knows more."""

# Annotations are values here, so that OpenAPI is true.

import asyncio
import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, get
from psycopg.rows import dict_row

from acgs2.api.deliberations import Said, groups_now, may_see, rows_of, shown
from acgs2.api.door import guard_read, principal_of
from acgs2.api.inboxes import deliveries_of
from acgs2.api.records import Records, flushed_position, unknown_record
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES, RecordId, Zone
from acgs2.api.tokens import Principal
from acgs2.audit.keys import Trusted, read_trusted
from acgs2.audit.leaf import Leaf
from acgs2.audit.reader import LogReader, Place, Proven
from acgs2.bus.deliberations import Groups
from acgs2.errors import ConflictError, OutcomeUnknown
from acgs2.model import entities
from acgs2.model.clock import moment_of
from acgs2.store.templates import fragments

__all__ = ["ACTS"]

Http = Request[Any, Any, Any]
_QUERIES = fragments("bus.sql")
_MESSAGE = entities()["message"]
#: How long a peer is waited for to say that it has the message on disk.
_CONFIRM_S = 0.3
_AUDITORS = ("operator", "auditor")


class Heads(msgspec.Struct, kw_only=True):
    """Who says something to whom; what is said is shown by the message's own route."""

    message_id: UUID
    conversation_id: UUID
    tenant_id: UUID
    from_agent: UUID
    to_agent: UUID | None
    to_tenant_id: UUID | None
    topic: str | None
    message_type: str
    priority: int | None
    constitutional_hash: str
    proposer: str
    expires_at: datetime | None


class Acceptance(msgspec.Struct):
    """Where a message was accepted, when, and under which verdict."""

    region: str
    at: datetime
    decision: str


class Judgement(msgspec.Struct, kw_only=True):
    """The verdict that stands: the strictest, where a message was accepted in two regions at once."""

    decision: str
    impact: float
    basis: Any
    accepted: list[Acceptance]


class Standing(msgspec.Struct, kw_only=True):
    """How a deliberation stands; `approvals` is null where they are not the bearer's to see."""

    state: str
    held_since: datetime
    deadline: datetime
    ended_at: datetime | None
    decided_in: str | None
    holds: Any
    missing: dict[str, int]
    approvals: list[Said] | None


class Whereabouts(msgspec.Struct, kw_only=True):
    """Which regions may hold a message, and why; which have it on disk and were sent it, as known here."""

    zone: str
    residency: dict[str, str | None]
    durable_in: list[str]
    been_in: list[str]


class Delivery(msgspec.Struct, kw_only=True):
    """Where the delivery to one agent stands, as known in a region; `done` is known for two hours."""

    agent: UUID
    state: Literal["ready", "claimed", "done", "dead"]
    attempts: int
    generation: int | None
    region: str
    reason: str | None
    at: datetime | None


class Deliveries(msgspec.Struct, kw_only=True):
    """The deliveries as known here, and who hands them out: only there is known what is under way."""

    zone: str
    served_by: str | None
    generation: int
    endpoints: list[dict[str, str]]
    items: list[Delivery]


class Logged(msgspec.Struct, kw_only=True):
    """One leaf of an audit log about the message, and the command that proves it.

    `state` is `proven` (in a checkpoint, with the proof), `not-yet-sequenced`, `elsewhere` (in another
    region's log: ask there), or `missing` (done here, and no log that is kept here has a leaf of it).
    """

    kind: str
    region: str
    at: datetime
    state: Literal["proven", "not-yet-sequenced", "elsewhere", "missing"]
    prove: str
    log: str | None = None
    index: int | None = None
    entry: str | None = None
    checkpoint: str | None = None
    proof: list[str] | None = None
    witnesses: list[str] = []


class Trace(msgspec.Struct, kw_only=True):
    """What became of a message as known in `region`; `audit` is null where it is not the bearer's to read."""

    region: str
    message: Heads
    verdict: Judgement
    deliberation: Standing | None
    receipt: Whereabouts
    deliveries: Deliveries
    audit: list[Logged] | None


@get(
    "/{record_id:uuid}/trace",
    guards=[guard_read(_MESSAGE)],
    operation_id="trace_message",
    summary="What became of a message",
    responses=RESPONSES,
)
async def trace(request: Http, record_id: RecordId, zone: Zone = None) -> Trace:
    """Return verdict, deliberation, whereabouts, deliveries and proofs of a message, never what it says."""
    server: RegionServer = request.app.state.server
    principal = principal_of(request)
    message = await Records(server, _MESSAGE).get(principal, record_id)
    async with server.database("SELECT", "message") as conn:
        cursor = conn.cursor(row_factory=dict_row)
        await cursor.execute(_QUERIES["trace"].encode(), {"key": record_id})
        known = await cursor.fetchone()
        if known is None:
            raise ConflictError("erased", "The record was erased; its id is not used again.")
        held = await rows_of(conn, [record_id])
        position = await flushed_position(conn)
    groups = groups_now(server)
    if principal.role == "approver" and not (held and may_see(principal, held[0], groups)):
        raise unknown_record(_MESSAGE)
    return Trace(
        region=server.region,
        message=msgspec.convert({"message_id": record_id} | message, Heads),
        verdict=Judgement(
            decision=message["decision"],
            impact=(message["impact"] or 0) / 1000,
            basis=message["basis"],
            accepted=[
                Acceptance(act["region"], moment_of(act["at_us"]), act["decision"])
                for act in known["acts"]
                if act["kind"] == "message"
            ],
        ),
        deliberation=_held(principal, held[0], groups) if held else None,
        receipt=await _whereabouts(server, message, known, position),
        deliveries=await _deliveries(server, principal, record_id, known["to_zone"]),
        audit=await _logged(server, record_id, principal.tenant, known["acts"])
        if _may_read_log(principal, message["tenant_id"])
        else None,
    )


def _held(principal: Principal, row: Mapping[str, Any], groups: Groups | None) -> Standing:
    standing, ended = shown(row, groups), row["verdict"]
    return Standing(
        state=standing.state,
        held_since=standing.held_since,
        deadline=standing.deadline,
        ended_at=moment_of(ended["at_us"]) if ended else None,
        decided_in=standing.decided_in,
        holds=standing.holds,
        missing=standing.missing,
        approvals=standing.approvals if may_see(principal, row, groups) else None,
    )


async def _whereabouts(
    server: RegionServer, shown: Mapping[str, Any], known: Mapping[str, Any], position: str
) -> Whereabouts:
    """Return where a message is.

    A region that sent it had it on disk before; of what was accepted here, peers say how far they have come.
    """
    accepted_in = known["origin"].partition("#")[0]
    durable = {server.region, accepted_in}
    if server.life is not None and known["origin"] == f"{server.region}#{server.life.incarnation}":
        peers = [r for r in shown["residency"] if r != server.region and server.watcher.connected(r)]
        confirmed = await asyncio.gather(*(_confirmed(server, position, peer) for peer in peers))
        durable.update(peer for peer, has in zip(peers, confirmed, strict=True) if has)
    return Whereabouts(
        zone=shown["zone"],
        residency={region: known["grounds"].get(region) for region in shown["residency"]},
        durable_in=sorted(durable),
        been_in=sorted({server.region, accepted_in, *known["sent_to"]}),
    )


async def _confirmed(server: RegionServer, position: str, peer: str) -> bool:
    try:
        await server.watcher.wait(position, [peer], _CONFIRM_S)
    except OutcomeUnknown:
        return False
    return True


async def _deliveries(server: RegionServer, principal: Principal, message: UUID, zone: str) -> Deliveries:
    region, generation = server.inboxes.served().get(zone, (None, 0))
    return Deliveries(
        zone=zone,
        served_by=region,
        generation=generation,
        endpoints=server.endpoints([region]) if region is not None else [],
        items=msgspec.convert(await deliveries_of(server, principal, message), list[Delivery]),
    )


def _may_read_log(principal: Principal, tenant: UUID) -> bool:
    if principal.tenant is not None:
        return principal.tenant == str(tenant)
    return principal.role in _AUDITORS


async def _logged(
    server: RegionServer, message: UUID, tenant: str | None, acts: Sequence[Mapping[str, Any]]
) -> list[Logged]:
    """Return the leaves about a message that are kept here, and those that must be kept elsewhere."""
    path = server.config.audit_keys_path
    trusted = await asyncio.to_thread(read_trusted, Path(path)) if path is not None else Trusted(())
    async with server.pool.connection() as conn:
        reader = LogReader(conn, trusted, server.audit.needed)
        logs = dict(await reader.logs())
        places = await reader.places(message, UUID(tenant) if tenant is not None else None)
        proven = [await reader.prove(place) for place in places]
    found = [_leaf(server.region, message, logs, *each) for each in zip(places, proven, strict=True)]
    here = [leaf.kind for leaf in found]
    for act in acts:
        if act["region"] != server.region:
            state = "elsewhere"
        elif act["kind"] in here:
            here.remove(act["kind"])
            continue
        else:
            state = "missing"
        found.append(
            Logged(
                kind=act["kind"],
                region=act["region"],
                at=moment_of(act["at_us"]),
                state=state,
                prove=_command(message, act["region"]),
            )
        )
    return sorted(found, key=lambda leaf: leaf.at)


def _leaf(region: str, message: UUID, logs: Mapping[int, str], place: Place, proven: Proven | None) -> Logged:
    leaf = Leaf.parse(place.entry)
    return Logged(
        kind=leaf.kind,
        region=region,
        at=moment_of(leaf.at_us),
        state="proven" if proven is not None else "not-yet-sequenced",
        prove=_command(message, region),
        log=logs[place.log] if place.log is not None else None,
        index=place.index,
        entry=place.entry.decode(),
        checkpoint=proven.checkpoint if proven is not None else None,
        proof=[base64.b64encode(each).decode() for each in proven.proof] if proven is not None else None,
        witnesses=list(proven.witnesses) if proven is not None else [],
    )


def _command(message: UUID, region: str) -> str:
    return f"acgs2 audit prove {message} --region {region}"


#: What of a message has a route of its own.
ACTS: dict[str, list[Any]] = {"message": [trace]}
