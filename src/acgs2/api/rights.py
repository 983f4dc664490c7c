"""Acts by which rights begin and end: transfers, consents, moves, a person's erasure; what is still owed."""

# Annotations are values here, so that OpenAPI is true.

import os
import time
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
import psycopg
from litestar import Request as Http
from litestar import delete, get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import ValidationError

from acgs2.api.door import authenticate, guard_write, operators_only, principal_of
from acgs2.api.records import act_as, flushed_position
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES, Key, Zone
from acgs2.errors import InputError, NotFoundError, RefusedError
from acgs2.model import entities
from acgs2.model.entity import Residency
from acgs2.model.ids import uuid7
from acgs2.residency import lint_transfer
from acgs2.store.region import register_key
from acgs2.store.templates import fragments
from acgs2.topology.models import Transfer

__all__ = ["ACTS", "HANDLERS"]

_QUERIES = fragments("rights.sql")
_OPERATORS: list[Any] = [authenticate, operators_only]
_CONSENT = entities()["consent"]
Name = Annotated[str, Meta(min_length=1, max_length=63)]
Note = Annotated[str, Meta(max_length=1000)]
Moment = Annotated[datetime, Meta(tz=True)]
Id = Annotated[UUID, PathParameter(description="The id.")]
Owed = Annotated[bool, QueryParameter(name="open", description="Only what is not done yet.")]
Subject = Annotated[UUID | None, QueryParameter(name="key", description="Of one record.")]


class NewTransfer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A permission for records of a zone to be held in a region that is not its home."""

    zone: Name
    to: Name
    instrument: Name
    entities: Annotated[list[Name], Meta(min_length=1, max_length=50)]
    begins: Moment | None = None
    expires: Moment | None = None
    importer_certified: bool = False
    persons_per_year: Annotated[int, Meta(ge=0)] | None = None
    note: Note | None = None


class NewConsent(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A person's consent to a region outside their zone's homes; evidence says where it is on file."""

    tenant_id: UUID
    subject_id: UUID
    to_region: Name
    evidence: Note


class Withdrawal(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A person's withdrawal of a consent (GDPR art. 7(3)), whether it is known here or not."""

    tenant_id: UUID
    subject_id: UUID
    to_region: Name


class Move(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Where a tenant and everything of it shall belong."""

    to_zone: Name


async def _written(
    request: Http[Any, Any, Any], zone: str, entity: str, query: str, parameters: Any
) -> list[dict[str, Any]]:
    """Carry one query out and return its rows once it is as durable as the zone asks."""
    server: RegionServer = request.app.state.server
    peers = server.require_pair(zone)
    statement = _QUERIES[query].encode()
    async with server.database(query, entity) as conn:
        async with conn.transaction():
            await act_as(conn, principal_of(request))
            cursor = conn.cursor(row_factory=dict_row)
            await cursor.execute(statement, parameters)
            rows = await cursor.fetchall() if cursor.description else []
        flushed = await flushed_position(conn)
    await server.confirmed(zone, flushed, peers)
    return rows


@post(
    "/",
    guards=[operators_only],
    tags=["rights"],
    summary="Register a transfer",
    responses=RESPONSES,
)
async def register(request: Http[Any, Any, Any], data: JSONBody[NewTransfer]) -> dict[str, Any]:
    """Register a transfer that the zone's law accepts; what it newly allows is sent, and only that."""
    server: RegionServer = request.app.state.server
    transfer = _lawful(server, data)
    key = uuid7(time.time_ns() // 1_000_000, os.urandom(10))
    names = {
        "key": key,
        "zone": transfer.zone,
        "to": transfer.to,
        "instrument": transfer.instrument,
        "entities": Jsonb(sorted(set(transfer.entities))),
        "begins": data.begins,
        "expires": data.expires,
        "certified": transfer.importer_certified,
        "note": data.note,
    }
    rows = await _written(request, transfer.zone, "transfer", "register", names)
    return rows[0]


def _lawful(server: RegionServer, data: NewTransfer) -> Transfer:
    """Return the transfer, or refuse what its zone's law does not accept."""
    if data.zone not in server.topology.zones:
        raise InputError(
            "zone-unknown",
            f"There is no zone {data.zone!r}.",
            hint=f"Zones: {', '.join(server.topology.zones)}.",
        )
    if data.to not in server.topology.regions:
        raise InputError(
            "region-unknown",
            f"There is no region {data.to!r}.",
            hint=f"Regions: {', '.join(server.topology.regions)}.",
        )
    known = [e.name for e in entities().values() if e.residency is Residency.ZONE]
    unknown = sorted(set(data.entities) - set(known))
    if unknown:
        raise InputError(
            "entity-unknown",
            f"There are no records of kind {', '.join(unknown)}.",
            hint=f"Kinds: {', '.join(known)}.",
        )
    try:
        transfer = Transfer(**{f: getattr(data, f) for f in data.__struct_fields__ if f != "note"})
    except ValidationError as error:
        raise InputError(
            "transfer-invalid", error.errors()[0]["msg"], hint=f"See {error.errors()[0]['loc'][0]}."
        ) from error
    if not any(data.to in server.topology.peers(home) for home in server.topology.zones[data.zone].regions):
        raise RefusedError(
            "transfer-unlawful",
            f"There is no link from a home of {data.zone} to {data.to}.",
            hint="Regions of two cloud partitions are not linked.",
        )
    wrong = [f for f in lint_transfer(server.topology, transfer, datetime.now(UTC)) if f.severity == "error"]
    if wrong:
        raise RefusedError(
            "transfer-unlawful",
            " ".join(f.message for f in wrong),
            hint=wrong[0].hint,
            findings=[f.as_dict() for f in wrong],
        )
    return transfer


@post(
    "/{record_id:uuid}/revoke",
    guards=[operators_only],
    tags=["rights"],
    status_code=200,
    summary="Revoke a transfer: whoever held data by it erases it",
    responses=RESPONSES,
)
async def revoke(request: Http[Any, Any, Any], record_id: Id) -> dict[str, Any]:
    """Revoke a transfer for good, at once; a new permission is a new transfer."""
    server: RegionServer = request.app.state.server
    names = {"key": record_id}
    async with server.pool.connection() as conn:
        known = await (await conn.execute(_QUERIES["zone_of_transfer"].encode(), names)).fetchone()
    # As durable as the data of the zone that it protects: a revocation that is lost lets data out again.
    rows = await _written(request, known[0], "transfer", "revoke", names) if known is not None else []
    if not rows:
        raise NotFoundError("transfer-unknown", "There is no such transfer.", hint="See /api/v1/transfers.")
    return rows[0]


@post(
    "/",
    guards=[guard_write(_CONSENT)],
    tags=["rights"],
    summary="Record a person's consent to a region",
    responses=RESPONSES,
)
async def grant(
    request: Http[Any, Any, Any], data: JSONBody[NewConsent], zone: Zone = None
) -> dict[str, Any]:
    """Record consent; what is about the person is then sent there, if a transfer rests on consent."""
    server: RegionServer = request.app.state.server
    await _known_subject(request, data.tenant_id, data.subject_id)
    if data.to_region not in server.topology.regions:
        raise InputError(
            "region-unknown",
            f"There is no region {data.to_region!r}.",
            hint=f"Regions: {', '.join(server.topology.regions)}.",
        )
    names = _names(request, data) | {"evidence": data.evidence}
    rows = await _written(request, names["zone"], "consent", "grant", names)
    return rows[0]


@post(
    "/withdraw",
    guards=[guard_write(_CONSENT)],
    tags=["rights"],
    status_code=200,
    summary="Record that a person withdraws consent",
    responses=RESPONSES,
)
async def withdraw(
    request: Http[Any, Any, Any], data: JSONBody[Withdrawal], zone: Zone = None
) -> dict[str, Any]:
    """Withdraw consent: that region erases what it holds by it. It wins over concurrent grants."""
    await _known_subject(request, data.tenant_id, data.subject_id)
    names = _names(request, data)
    rows = await _written(request, names["zone"], "consent", "withdraw", names)
    return rows[0]


def _names(request: Http[Any, Any, Any], data: NewConsent | Withdrawal) -> dict[str, Any]:
    return {
        "key": register_key("consent", f"{data.subject_id}/{data.to_region}"),
        "zone": request.scope["state"]["zone"],
        "tenant": data.tenant_id,
        "subject": data.subject_id,
        "to": data.to_region,
    }


async def _known_subject(request: Http[Any, Any, Any], tenant: UUID, subject: UUID) -> None:
    server: RegionServer = request.app.state.server
    names = {"subject": subject, "tenant": tenant, "zone": request.scope["state"]["zone"]}
    principal = principal_of(request)
    async with server.pool.connection() as conn:
        known = await (await conn.execute(_QUERIES["known_subject"].encode(), names)).fetchone()
    if known is None or principal.tenant not in (None, str(tenant)):
        raise NotFoundError(
            "subject-unknown",
            "This tenant has no such person in this zone.",
            hint="The id of the person is that of their user record.",
        )


@delete(
    "/api/v1/subjects/{record_id:uuid}",
    guards=[authenticate, guard_write(_CONSENT)],
    tags=["rights"],
    status_code=200,
    summary="Erase everything that is about a person, everywhere",
    responses=RESPONSES,
)
async def erase_subject(request: Http[Any, Any, Any], record_id: Id, zone: Zone = None) -> dict[str, Any]:
    """Erase for everybody (GDPR art. 17); answers with who held it and has to confirm."""
    server: RegionServer = request.app.state.server
    tenant = principal_of(request).tenant
    named: str = request.scope["state"]["zone"]
    peers = server.require_pair(named)
    erased: dict[str, int] = {}
    async with server.database("UPDATE", "subject") as conn:
        async with conn.transaction():
            await act_as(conn, principal_of(request))
            for entity in entities().values():
                if entity.subject is None:
                    continue
                statement = sql.SQL(
                    "UPDATE {} SET erased = true WHERE {} = %s AND zone = %s AND NOT erased"
                    " AND (%s::uuid IS NULL OR tenant_id = %s::uuid)"
                ).format(sql.Identifier("acgs", entity.name), sql.Identifier(entity.subject))
                done = await conn.execute(statement, (record_id, named, tenant, tenant))
                erased[entity.name] = done.rowcount
        flushed = await flushed_position(conn)
        owed = await _duties(conn, record_id, only_open=False)
    if not any(erased.values()) and not owed:
        raise NotFoundError(
            "subject-unknown",
            "Nothing about this person is held here.",
            hint="Ask a home region of their zone.",
        )
    await server.confirmed(named, flushed, peers)
    return {"subject": record_id, "erased": erased, "owed": owed}


@post(
    "/{record_id:uuid}/move",
    guards=[operators_only],
    tags=["rights"],
    status_code=200,
    summary="Move a tenant and everything of it to another zone",
    responses=RESPONSES,
)
async def move(
    request: Http[Any, Any, Any], record_id: Id, data: JSONBody[Move], idempotency_key: Key = None
) -> dict[str, Any]:
    """Move a tenant; asked of a region that may hold both zones. Regions of the old zone forget it."""
    server: RegionServer = request.app.state.server
    server.rules.holders("tenant", data.to_zone)
    names = {"key": record_id, "zone": data.to_zone}
    rows = await _written(request, data.to_zone, "tenant", "move", names)
    if not rows:
        raise NotFoundError(
            "tenant-unknown", "There is no such tenant here.", hint="Ask a region that may hold both zones."
        )
    return rows[0]


async def _duties(
    conn: psycopg.AsyncConnection[Any], key: UUID | None, *, only_open: bool
) -> list[dict[str, Any]]:
    cursor = conn.cursor(row_factory=dict_row)
    await cursor.execute(_QUERIES["duties"].encode(), {"key": key, "open": only_open})
    return await cursor.fetchall()


@get("/api/v1/duties", guards=_OPERATORS, tags=["rights"], summary="What other regions must confirm")
async def duties(
    request: Http[Any, Any, Any], key: Subject = None, only_open: Owed = False
) -> list[dict[str, Any]]:
    """Return erasures and expulsions that began here, with who confirmed them and when."""
    server: RegionServer = request.app.state.server
    async with server.pool.connection() as conn:
        return await _duties(conn, key, only_open=only_open)


@get("/api/v1/disposals", guards=_OPERATORS, tags=["rights"], summary="Which region forgot which zone's data")
async def disposals(request: Http[Any, Any, Any]) -> list[dict[str, Any]]:
    """Return the reports of regions that lost a right, this one's among them, newest first."""
    server: RegionServer = request.app.state.server
    async with server.pool.connection() as conn:
        cursor = conn.cursor(row_factory=dict_row)
        await cursor.execute(_QUERIES["disposals"].encode())
        return await cursor.fetchall()


#: Routes of their own, and those that stand beside an entity's.
HANDLERS: list[Any] = [erase_subject, duties, disposals]
ACTS: dict[str, list[Any]] = {"transfer": [register, revoke], "consent": [grant, withdraw], "tenant": [move]}
