"""What is decided from headers alone, before any body is read: who asks, for which zone, and whether here."""

from __future__ import annotations

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from acgs2.api.region import RegionServer
from acgs2.api.tokens import Principal, TokenError
from acgs2.errors import ForbiddenError, InputError, ResidencyError
from acgs2.model.entity import Entity, Scope

__all__ = ["ZONE_HEADER", "authenticate", "guard_read", "guard_write", "operators_only"]

ZONE_HEADER = "x-data-sovereignty"
PREFERENCE_HEADER = "x-region-preference"
Connection = ASGIConnection[Any, Any, Any, Any]


def authenticate(connection: Connection, _: BaseRouteHandler) -> None:
    """Establish the principal; raises TokenError."""
    server: RegionServer = connection.app.state.server
    header = connection.headers.get("authorization", "")
    kind, _space, token = header.partition(" ")
    if kind.lower() != "bearer" or not token:
        raise TokenError(
            "token-missing",
            "The request has no bearer token.",
            hint="Send `Authorization: Bearer TOKEN`; `acgs2 token` makes one.",
        )
    connection.scope["state"]["principal"] = server.verifier.verify(token.strip())


def principal_of(connection: Connection) -> Principal:
    """Return who asks, established by `authenticate`."""
    return connection.scope["state"]["principal"]


def operators_only(connection: Connection, _: BaseRouteHandler) -> None:
    """Refuse principals of a tenant; raises ForbiddenError."""
    if principal_of(connection).tenant is not None:
        raise ForbiddenError(
            "operators-only",
            "Only operators and services may do this.",
            hint="Use a token without a tenant.",
        )


def guard_write(entity: Entity) -> Any:
    """Return the guard of routes that write an entity; a tenant does not change tenants."""

    def guard(connection: Connection, handler: BaseRouteHandler) -> None:
        if entity.scope is Scope.ROOT:
            operators_only(connection, handler)
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


def guard_read(entity: Entity) -> Any:
    """Return the guard of routes that read an entity: the header is optional there."""

    def guard(connection: Connection, _: BaseRouteHandler) -> None:
        zone = connection.headers.get(ZONE_HEADER)
        if zone:
            _lawful(connection, entity, zone)
            connection.scope["state"]["zone"] = zone

    return guard


def _lawful(connection: Connection, entity: Entity, zone: str) -> None:
    server: RegionServer = connection.app.state.server
    holders = server.rules.holders(entity.name, zone)
    preference = connection.headers.get(PREFERENCE_HEADER, "auto")
    # What is about people who consented may be here too; the database knows of whom.
    admitted = (*holders, *server.rules.by_consent.get((entity.name, zone), ()))
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
