"""The bodies of requests and answers, one struct per entity and use, made from the declarations."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from acgs2.model.entity import Entity, Field, FieldType, Scope

__all__ = ["Increment", "Page", "SetChange", "create_of", "page_of", "patch_of", "record_of"]

_BIGINT = 2**63 - 1
Text = Annotated[str, Meta(max_length=1000, min_length=1)]


class SetChange(msgspec.Struct, forbid_unknown_fields=True):
    """What to put into a set and what to take out."""

    add: Annotated[list[Text], Meta(max_length=1000)] = []
    remove: Annotated[list[Text], Meta(max_length=1000)] = []


class Increment(msgspec.Struct, forbid_unknown_fields=True):
    """What to add to a counter; may be negative."""

    increment: Annotated[int, Meta(ge=-(2**31), le=2**31)]


class Page(msgspec.Struct):
    """A part of a list; `next` leads on, null at the end."""

    items: list[Any]
    next: str | None = None


def _scalar(field: Field) -> Any:
    match field.type:
        case FieldType.TEXT:
            least = 1 if field.required else 0
            pattern = r"^[^@\s]+@[^@\s]+$" if field.format == "email" else None
            return Annotated[str, Meta(min_length=least, max_length=field.max, pattern=pattern)]
        case FieldType.ENUM:
            return Literal[field.values]
        case FieldType.INTEGER:
            return Annotated[
                int, Meta(ge=field.min if field.min is not None else -_BIGINT, le=field.max or _BIGINT)
            ]
        case FieldType.BOOLEAN:
            return bool
        case FieldType.UUID:
            return UUID
        case FieldType.TIMESTAMP:
            return Annotated[datetime, Meta(tz=True)]
        case FieldType.JSON:
            return dict[str, Any] | list[Any]
        case FieldType.MAP:
            return dict[str, Any]
        case FieldType.SET:
            return Annotated[list[Text], Meta(max_length=field.max)]
        case FieldType.COUNTER:
            return Annotated[int, Meta(ge=-(2**31), le=2**31)]


@cache
def create_of(entity: Entity) -> type[msgspec.Struct]:
    """Return the body of a request that creates a record."""
    fields: list[Any] = [("tenant_id", UUID)] if entity.scope is Scope.TENANT else []
    writable = [f for f in entity.fields if not f.read_only]
    fields += [(f.name, _scalar(f)) for f in writable if f.required]
    fields += [(f.name, _scalar(f) | UnsetType, UNSET) for f in writable if not f.required]
    return msgspec.defstruct(_name(entity, "Create"), fields, forbid_unknown_fields=True, kw_only=True)


@cache
def patch_of(entity: Entity) -> type[msgspec.Struct]:
    """Return the body of a request that changes a record; what is absent stays as it is."""
    fields: list[Any] = []
    for field in (f for f in entity.fields if not f.read_only):
        kind: Any = {FieldType.SET: SetChange, FieldType.COUNTER: Increment}.get(field.type) or _scalar(field)
        if not field.required and field.type not in (FieldType.SET, FieldType.COUNTER):
            kind = kind | None
        fields.append((field.name, kind | UnsetType, UNSET))
    return msgspec.defstruct(_name(entity, "Patch"), fields, forbid_unknown_fields=True, kw_only=True)


@cache
def record_of(entity: Entity) -> type[msgspec.Struct]:
    """Return the answer that shows a record."""
    fields: list[Any] = [("id", UUID), ("zone", str)]
    fields += [("tenant_id", UUID)] if entity.scope is Scope.TENANT else []
    plain = {
        FieldType.TEXT: str,
        FieldType.ENUM: str,
        FieldType.INTEGER: int,
        FieldType.BOOLEAN: bool,
        FieldType.TIMESTAMP: datetime,
        FieldType.JSON: Any,
        FieldType.MAP: dict[str, Any],
        FieldType.SET: list[str],
        FieldType.COUNTER: int,
        FieldType.UUID: UUID,
    }
    fields += [
        (f.name, plain[f.type] if f.required or f.type is FieldType.JSON else plain[f.type] | None)
        for f in entity.fields
    ]
    fields += [("residency", list[str]), ("updated_at", datetime), ("updated_in", str)]
    return msgspec.defstruct(_name(entity, ""), fields, kw_only=True)


@cache
def page_of(entity: Entity) -> type[msgspec.Struct]:
    """Return the answer that lists records."""
    fields: list[Any] = [("items", list[record_of(entity)]), ("next", str | None, None)]
    return msgspec.defstruct(_name(entity, "Page"), fields, kw_only=True)


def _name(entity: Entity, suffix: str) -> str:
    return "".join(part.title() for part in entity.name.split("_")) + suffix
