"""What is decided from headers alone, before any body is read: who asks, for which zone, and whether here."""

from __future__ import annotations

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from acgs2.api.region import RegionServer
from acgs2.api.tokens import CONTROLLER, Principal, TokenError
from acgs2.api.verification import check_operation
from acgs2.errors import ForbiddenError, InputError, ResidencyError
from acgs2.model.entity import Entity, Scope

__all__ = [
    "ONCE",
    "PREFERENCE_HEADER",
    "ZONE_HEADER",
    "authenticate",
    "check_zone",
    "guard_read",
    "guard_write",
    "operator_of",
    "operators_only",
    "principal_of",
    "refuse_role",
    "what_is_said",
]

ZONE_HEADER = "x-data-sovereignty"
PREFERENCE_HEADER = "x-region-preference"
Connection = ASGIConnection[Any, Any, Any, Any]


#: What decides who asks, for what, where; two of one could be understood differently on the way here.
ONCE = (
    "authorization",
    ZONE_HEADER,
    PREFERENCE_HEADER,
    "idempotency-key",
    "if-match",
    "content-type",
    "content-encoding",
)


def authenticate(connection: Connection, handler: BaseRouteHandler) -> None:
    """Establish the principal; raises TokenError, or InputError for headers that say nothing clear.

    Raises ForbiddenError where a controller asks for what is no part of a verification: every other check
    need not know of that role.
    """
    server: RegionServer = connection.app.state.server
    _clear(connection)
    header = connection.headers.get("authorization", "")
    kind, _space, token = header.partition(" ")
    if kind.lower() != "bearer" or not token:
        raise TokenError(
            "token-missing",
            "The request has no bearer token.",
            hint="Send `Authorization: Bearer TOKEN`; `acgs2 token` makes one.",
        )
    principal = connection.scope["state"]["principal"] = server.verifier.verify(token.strip())
    check_operation(principal, getattr(handler, "operation_id", None))


def _clear(connection: Connection) -> None:
    """Refuse headers that are there twice, and bodies that are not JSON as it is."""
    for name in ONCE:
        if len(connection.headers.getall(name, [])) > 1:
            raise InputError("header-repeated", f"The header {name} is there twice.", hint="Send it once.")
    kind = connection.headers.get("content-type")
    if kind is not None and kind.partition(";")[0].strip().lower() != "application/json":
        raise InputError("media-type-unknown", "The body is not called JSON.", hint="Send application/json.")
    if connection.headers.get("content-encoding", "identity").lower() != "identity":
        raise InputError("encoding-unknown", "The body is encoded.", hint="Send it without Content-Encoding.")


def principal_of(connection: Connection) -> Principal:
    """Return who asks, established by `authenticate`."""
    return connection.scope["state"]["principal"]


def operators_only(connection: Connection, _: BaseRouteHandler) -> None:
    """Refuse principals of a tenant; raises ForbiddenError."""
    principal = principal_of(connection)
    if principal.tenant is not None or principal.role not in ("operator", "service"):
        raise ForbiddenError(
            "operators-only",
            "Only operators and services may do this.",
            hint="Use a token without a tenant.",
        )


def operator_of(connection: Connection, act: str) -> Principal:
    """Return who asks, where only operators do such an act; raises ForbiddenError for services."""
    principal = principal_of(connection)
    if principal.role != "operator":
        raise ForbiddenError(
            "role-not-allowed",
            f"Who acts as {principal.role} may not {act}.",
            hint="Ask an operator.",
        )
    return principal


def guard_write(entity: Entity) -> Any:
    """Return the guard of routes that write an entity; a tenant does not change tenants."""

    def guard(connection: Connection, handler: BaseRouteHandler) -> None:
        principal = principal_of(connection)
        # `authenticate` let a controller come this far for what verifies a zone only.
        if entity.scope is Scope.ROOT and principal.role != CONTROLLER:
            operators_only(connection, handler)
        if principal.role in ("approver", "auditor"):
            raise refuse_role(principal, entity)
        zone = connection.headers.get(ZONE_HEADER)
        if not zone:
            raise InputError(
                "zone-missing",
                f"A write needs the header {ZONE_HEADER}.",
                hint="Name the zone that the data belongs to, such as eu.",
            )
        _lawful(connection, entity, zone)
        connection.scope["state"]["zone"] = zone

    return guard


def refuse_role(principal: Principal, entity: Entity) -> ForbiddenError:
    """Return the refusal of who may not write records of an entity, whosever they are."""
    return ForbiddenError(
        "role-not-allowed",
        f"Who acts as {principal.role} does not write {entity.name} records.",
        hint="Let a service of the tenant do it, or an operator.",
    )


def guard_read(entity: Entity) -> Any:
    """Return the guard of routes that read an entity: the header is optional there."""

    def guard(connection: Connection, _: BaseRouteHandler) -> None:
        zone = connection.headers.get(ZONE_HEADER)
        if zone:
            _lawful(connection, entity, zone)
            connection.scope["state"]["zone"] = zone

    return guard


def what_is_said(connection: Connection, _: BaseRouteHandler) -> None:
    """Refuse who watches over messages and takes no part in them; raises ForbiddenError.

    Approvers are shown what was held for them, auditors what is logged.
    """
    role = principal_of(connection).role
    if role in ("approver", "auditor"):
        raise ForbiddenError(
            "role-not-allowed",
            f"Who acts as {role} does not read what messages say.",
            hint="Approvers see held messages by /api/v1/deliberations; traces and the log show no contents.",
        )


def _lawful(connection: Connection, entity: Entity, zone: str) -> None:
    server: RegionServer = connection.app.state.server
    check_zone(server, entity.name, zone, connection.headers.get(PREFERENCE_HEADER, "auto"))


def check_zone(server: RegionServer, entity: str, zone: str, preference: str) -> None:
    """Refuse what this region may not hold, or what was asked of another one.

    Args:
        server: of the region that was asked.
        entity: which kind of records it is about.
        zone: whose they are.
        preference: `auto`, or the region that the caller prefers.

    Raises:
        InputError: there is no such zone or region.
        ForbiddenError: the preferred region may not hold it (`region-not-lawful`).
        ResidencyError: it belongs to another region; `endpoints` says which.
    """
    holders = server.rules.holders(entity, zone)
    # What is about people who consented may be here too; the database knows of whom.
    admitted = (*holders, *server.rules.by_consent.get((entity, zone), ()))
    wanted = server.region if preference == "auto" else preference
    if wanted not in server.topology.regions:
        raise InputError(
            "region-unknown",
            f"There is no region {wanted!r}.",
            hint=f"Regions: auto, {', '.join(server.topology.regions)}.",
        )
    if preference != "auto" and wanted not in admitted:
        raise ForbiddenError(
            "region-not-lawful",
            f"{wanted} may not hold data of zone {zone}.",
            hint=f"Lawful: {', '.join(holders) or 'none'}.",
            zone=zone,
            lawful=list(holders),
        )
    if server.region not in admitted or wanted != server.region:
        towards = [wanted] if wanted != server.region else list(holders)
        raise ResidencyError(
            "residency-not-lawful-here" if server.region not in admitted else "other-region-preferred",
            f"Data of zone {zone} is not taken in {server.region}.",
            hint="Send the request to one of the endpoints.",
            zone=zone,
            region=server.region,
            endpoints=server.endpoints(towards),
        )
