"""Reading and writing records: SQL from the declarations, durability, idempotency."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from msgspec import UNSET
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from acgs2.api.door import refuse_role
from acgs2.api.region import RegionServer
from acgs2.api.schemas import Increment, SetChange
from acgs2.api.tokens import Principal
from acgs2.api.verification import admits, check_body
from acgs2.errors import ConflictError, ForbiddenError, InputError, NotFoundError, OutcomeUnknown
from acgs2.model.clock import moment_of
from acgs2.model.entity import Entity, FieldType, Scope
from acgs2.model.ids import request_key, uuid7
from acgs2.store.templates import fragments

__all__ = ["Records", "Request", "act_as", "flushed_position", "unknown_record"]

_JSON = (FieldType.JSON, FieldType.MAP)
#: What is shown where nothing was ever added, put in or counted.
_EMPTY: Mapping[FieldType, Any] = {FieldType.SET: [], FieldType.MAP: {}, FieldType.COUNTER: 0}
_RETRIED = ("40P01", "40001")
_TRIES = 5
#: What verdicts on agents' messages rest on; an agent does not change it.
_BY_SERVICES = ("agent", "subscription", "tenant_config")


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for a change, where it belongs, and how to know it again."""

    principal: Principal
    zone: str
    body: bytes
    idempotency_key: str | None = None
    if_match: str | None = None

    @property
    def digest(self) -> bytes:
        """Return what tells two requests with one idempotency key apart."""
        return hashlib.sha256(self.zone.encode() + b"\n" + self.body).digest()


class Records:
    """The records of one entity in this region."""

    def __init__(self, server: RegionServer, entity: Entity) -> None:
        self._server = server
        self._entity = entity
        self._table = sql.Identifier("acgs", entity.name)
        owner = ("tenant_id",) if entity.scope is Scope.TENANT else ()
        self._owner = owner[0] if owner else "key"
        self._columns = (
            "key",
            "zone",
            *owner,
            *(f.name for f in entity.fields),
            "residency",
            "hlc",
            "origin",
            "vv",
            "erased",
        )
        self._shown = sql.SQL(", ").join(map(sql.Identifier, self._columns))

    async def create(
        self, request: Request, body: msgspec.Struct, key: UUID | None = None
    ) -> tuple[dict[str, Any], int]:
        """Store a new record, under a key that follows from what it is if one is given.

        Returns it with the HTTP status, 200 for a repeat or where there is one of that key.
        """
        check_body(request.principal, request.zone, body)
        values = self._values(body)
        if self._entity.scope is Scope.TENANT:
            await self._owned(request, values["tenant_id"])
            self._by_services(request.principal)
        if key is None and request.idempotency_key is None:
            key = uuid7(time.time_ns() // 1_000_000, os.urandom(10))
        elif key is None:
            key = request_key(request.principal.name, self._entity.name, str(request.idempotency_key))
        names = ["key", "zone", *values]
        statement = sql.SQL(
            "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (key) DO NOTHING RETURNING {}"
        ).format(
            self._table,
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join([sql.Placeholder()] * len(names)),
            self._shown,
        )

        async def act(conn: psycopg.AsyncConnection[Any]) -> dict[str, Any] | None:
            if self._entity.audited is not None:
                await act_as(conn, request.principal)
            cursor = conn.cursor(row_factory=dict_row)
            await cursor.execute(statement, [key, request.zone, *values.values()])
            return await cursor.fetchone()

        return await self._change(request, key, 201, act)

    async def patch(self, request: Request, key: UUID, body: msgspec.Struct) -> tuple[dict[str, Any], int]:
        """Change a record; returns it as it is now."""
        assignments: list[sql.Composable] = []
        parameters: list[Any] = []
        for name, value in msgspec.structs.asdict(body).items():
            if value is not UNSET:
                clause, given = self._assignment(name, value)
                assignments.append(clause)
                parameters += given
        if not assignments:
            raise InputError("nothing-to-change", "The body changes nothing.", hint="Name a field.")
        if self._entity.version_field:
            assignments.append(sql.SQL("{0} = {0} + 1").format(sql.Identifier(self._entity.version_field)))
        return await self._update(request, key, sql.SQL(", ").join(assignments), parameters)

    async def erase(self, request: Request, key: UUID) -> None:
        """Erase a record for everybody; its id is never used again."""
        await self._update(request, key, sql.SQL("erased = true"), [], missing_is_done=True)

    async def get(self, principal: Principal, key: UUID) -> dict[str, Any]:
        """Return a record; raises NotFoundError, or ConflictError `erased`."""
        async with self._server.database("SELECT", self._entity.name) as conn:
            return await self._get(conn, principal, key)

    async def list(
        self, principal: Principal, limit: int, after: UUID | None, tenant: UUID | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Return records in the order of their ids, and where to go on."""
        if principal.tenant is not None:
            tenant = UUID(principal.tenant)
        conditions: list[sql.Composable] = [sql.SQL("NOT erased")]
        parameters: list[Any] = []
        if tenant is not None:
            conditions.append(sql.SQL("{} = %s").format(sql.Identifier(self._owner)))
            parameters.append(tenant)
        if principal.role == "agent" and self._entity.name == "message":
            conditions.append(sql.SQL("%s IN (from_agent, to_agent)"))
            parameters.append(UUID(principal.subject))
        if after is not None:
            conditions.append(sql.SQL("key > %s"))
            parameters.append(after)
        statement = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY key LIMIT %s").format(
            self._shown, self._table, sql.SQL(" AND ").join(conditions)
        )
        async with self._server.database("SELECT", self._entity.name) as conn:
            cursor = conn.cursor(row_factory=dict_row)
            await cursor.execute(statement, [*parameters, limit + 1])
            rows = await cursor.fetchall()
        more = str(rows[limit - 1]["key"]) if len(rows) > limit else None
        return [self.show(row) for row in rows[:limit]], more

    def show(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row as the API shows it."""
        hidden = ("key", "hlc", "origin", "vv", "erased")
        shown = {name: row[name] for name in self._columns if name not in hidden}
        if not row["erased"]:
            shown |= {
                f.name: _EMPTY[f.type]
                for f in self._entity.fields
                if f.type in _EMPTY and row[f.name] is None
            }
        return {
            "id": row["key"],
            **shown,
            "updated_at": moment_of(row["hlc"]),
            "updated_in": row["origin"].partition("#")[0],
            "_etag": self._etag(row),
        }

    def _etag(self, row: Mapping[str, Any]) -> str:
        # Two regions may give one number to two contents: the vector tells which of them was seen.
        vector = ",".join(f"{o}={n}" for o, n in sorted(row["vv"].items()))
        digest = hashlib.sha256(vector.encode()).hexdigest()[:16]
        return (
            f'"{row[self._entity.version_field]}-{digest}"' if self._entity.version_field else f'"{digest}"'
        )

    def _values(self, body: msgspec.Struct) -> dict[str, Any]:
        values: dict[str, Any] = {}
        given = msgspec.structs.asdict(body)
        if "tenant_id" in given:
            values["tenant_id"] = given["tenant_id"]
        for field in self._entity.fields:
            value = given.get(field.name, UNSET)
            if value is UNSET and field.default is not None:
                value = field.default
            if value is not UNSET:
                values[field.name] = Jsonb(value) if field.type in _JSON else value
        return values

    def _assignment(self, name: str, value: Any) -> tuple[sql.Composable, list[Any]]:
        column = sql.Identifier(name)
        if isinstance(value, SetChange):
            change = sql.SQL(
                "{0} = ARRAY(SELECT unnest(coalesce({0}, '{{}}') || %s::text[]) "
                "EXCEPT SELECT unnest(%s::text[]))"
            )
            return change.format(column), [value.add, value.remove]
        if isinstance(value, Increment):
            return sql.SQL("{0} = coalesce({0}, 0) + %s").format(column), [value.increment]
        json = self._entity.field(name).type in _JSON and value is not None
        return sql.SQL("{} = %s").format(column), [Jsonb(value) if json else value]

    def _by_services(self, principal: Principal) -> None:
        """Refuse agents that would change what verdicts about them rest on; first, whose it is is checked."""
        if principal.role == "agent" and self._entity.name in _BY_SERVICES:
            raise refuse_role(principal, self._entity)

    async def _owned(self, request: Request, tenant: UUID) -> None:
        """Check that the tenant is here, is the principal's, and is of the zone that the header names."""
        if request.principal.tenant not in (None, str(tenant)):
            raise NotFoundError(
                "tenant-unknown", "There is no such tenant.", hint="Use your own tenant's id."
            )
        async with self._server.database("SELECT", "tenant") as conn:
            cursor = await conn.execute(fragments("api.sql")["tenant_zone"].encode(), {"key": tenant})
            row = await cursor.fetchone()
        if row is None:
            raise NotFoundError(
                "tenant-unknown", "There is no such tenant.", hint="Create it first, in its zone."
            )
        _same_zone(row[0], request.zone)

    async def _get(
        self, conn: psycopg.AsyncConnection[Any], principal: Principal, key: UUID
    ) -> dict[str, Any]:
        cursor = conn.cursor(row_factory=dict_row)
        await cursor.execute(
            sql.SQL("SELECT {} FROM {} WHERE key = %s").format(self._shown, self._table), [key]
        )
        row = await cursor.fetchone()
        if row is None or not self._may_see(principal, row):
            raise unknown_record(self._entity)
        if row["erased"]:
            raise _erased()
        return self.show(row)

    def _may_see(self, principal: Principal, row: Mapping[str, Any]) -> bool:
        """Return whether a record is the bearer's; a message is its receiver's too."""
        if self._entity.name != "message":
            return self._is_theirs(principal, row)
        if principal.role == "agent":
            return principal.subject in (str(row["from_agent"]), str(row["to_agent"]))
        return principal.tenant in (None, str(row["tenant_id"]), str(row["to_tenant_id"]))

    def _is_theirs(self, principal: Principal, row: Mapping[str, Any]) -> bool:
        return principal.tenant in (None, str(row[self._owner])) and admits(principal, row)

    async def _update(
        self,
        request: Request,
        key: UUID,
        assignments: sql.Composable,
        parameters: list[Any],
        *,
        missing_is_done: bool = False,
    ) -> tuple[dict[str, Any], int]:
        if self._entity.version_field and request.if_match is None:
            raise InputError(
                "if-match-missing",
                f"A {self._entity.name} is changed only with If-Match.",
                hint="Send the ETag of the version that you saw.",
            )
        statement = sql.SQL("UPDATE {} SET {} WHERE key = %s AND NOT erased RETURNING {}").format(
            self._table, assignments, self._shown
        )
        lock = sql.SQL("SELECT {} FROM {} WHERE key = %s FOR UPDATE").format(self._shown, self._table)

        async def act(conn: psycopg.AsyncConnection[Any]) -> dict[str, Any] | None:
            if self._entity.audited is not None or missing_is_done:
                await act_as(conn, request.principal)
            cursor = conn.cursor(row_factory=dict_row)
            await cursor.execute(lock, [key])
            row = await cursor.fetchone()
            if row is None:
                return None
            if not self._is_theirs(request.principal, row):
                return None
            self._by_services(request.principal)
            _same_zone(row["zone"], request.zone)
            if row["erased"]:
                if missing_is_done:
                    return row
                raise _erased()
            if request.if_match not in (None, "*", self._etag(row)):
                raise ConflictError(
                    "version-mismatch",
                    "The record has changed since you saw it.",
                    hint="Read it again and decide anew.",
                    etag=self._etag(row),
                )
            await cursor.execute(statement, [*parameters, key])
            return await cursor.fetchone()

        return await self._change(request, key, 200, act)

    async def _change(self, request: Request, key: UUID, status: int, act: Any) -> tuple[dict[str, Any], int]:
        """Carry a change out in one transaction and answer when it is durable."""
        peers = self._server.require_pair(request.zone)
        row, status, flushed = await self._committed(request, key, status, act)
        await self._server.confirmed(request.zone, flushed, peers)
        return row, status

    async def _committed(
        self, request: Request, key: UUID, status: int, act: Any
    ) -> tuple[dict[str, Any], int, str]:
        """Commit, again where a deadlock's victim was rolled back whole; also return the flushed position."""
        tries = 0
        while True:
            tries += 1
            try:
                # A new record is inserted, everything else updates one.
                operation = "INSERT" if status == 201 else "UPDATE"
                async with self._server.database(operation, self._entity.name) as conn:
                    row, answered = await self._transaction(conn, request, key, status, act)
                    return row, answered, await flushed_position(conn)
            except psycopg.errors.OperationalError as error:
                # The links go first, we try again.
                if error.sqlstate not in _RETRIED or tries == _TRIES:
                    raise

    async def _transaction(
        self, conn: psycopg.AsyncConnection[Any], request: Request, key: UUID, status: int, act: Any
    ) -> tuple[dict[str, Any], int]:
        committing = False
        try:
            async with conn.transaction():
                repeat = await self._remember(conn, request, key, status)
                row = None if repeat else await act(conn)
                if row is None:
                    shown = await self._get(conn, request.principal, key)
                    status = repeat or 200
                else:
                    shown = self.show(row)
                committing = True
        except psycopg.OperationalError as error:
            if committing and error.sqlstate not in _RETRIED:
                raise OutcomeUnknown(
                    "outcome-unknown",
                    "The connection broke while the change was committed.",
                    hint="Repeat the request with the same Idempotency-Key.",
                ) from error
            raise
        return shown, status

    async def _remember(
        self, conn: psycopg.AsyncConnection[Any], request: Request, key: UUID, status: int
    ) -> int | None:
        """Note the request; return the first answer's status if it was carried out before."""
        if request.idempotency_key is None:
            return None
        queries = fragments("api.sql")
        names = {
            "principal": request.principal.name,
            "idempotency_key": request.idempotency_key,
            "digest": request.digest,
            "entity": self._entity.name,
            "key": key,
            "status": status,
        }
        if await (await conn.execute(queries["remember"].encode(), names)).fetchone():
            return None
        row = await (await conn.execute(queries["recall"].encode(), names)).fetchone()
        if row is None or (row[0], row[1], row[2]) != (request.digest, self._entity.name, key):
            raise ConflictError(
                "idempotency-key-reused",
                "Another request was made with this Idempotency-Key.",
                hint="Use a new key for a new request.",
            )
        return int(row[3])


async def act_as(conn: psycopg.AsyncConnection[Any], principal: Principal) -> None:
    """Say who acts until the transaction ends: what the database logs of it has the name."""
    await conn.execute(fragments("api.sql")["act_as"].encode(), {"actor": principal.name})


async def flushed_position(conn: psycopg.AsyncConnection[Any]) -> str:
    """Return the position that a commit has been flushed to; raises OutcomeUnknown, for it has happened."""
    try:
        row = await (await conn.execute(fragments("api.sql")["flushed"].encode())).fetchone()
    except psycopg.Error as error:
        raise OutcomeUnknown(
            "outcome-unknown",
            "The connection broke after the change was committed.",
            hint="Repeat the request with the same Idempotency-Key.",
        ) from error
    return row[0] if row else "FFFFFFFF/FFFFFFFF"


def unknown_record(entity: Entity) -> NotFoundError:
    """Return the refusal of who asks for a record that is not here, or not theirs to see."""
    return NotFoundError(
        "record-unknown",
        f"There is no such {entity.name} here.",
        hint="Ask in a region that holds its zone.",
    )


def _erased() -> ConflictError:
    return ConflictError("erased", "The record was erased; its id is not used again.")


def _same_zone(actual: str, named: str) -> None:
    if actual != named:
        raise ForbiddenError(
            "zone-mismatch",
            f"The record belongs to another zone than {named}.",
            hint="Name the zone that it belongs to.",
        )
