"""Records and signatures are written by hand, and say what the entity declarations say."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, get_type_hints
from uuid import UUID

import msgspec
import pytest
from msgspec import UNSET, UnsetType

from acgs2 import Client
from acgs2.client.models import (
    Agent,
    AuditEvent,
    Config,
    Increment,
    Json,
    Record,
    SetChange,
    Subscription,
    Tenant,
    User,
)
from acgs2.client.requests import shows
from acgs2.client.resources import Agents, AuditEvents, Configs, Resource, Subscriptions, Tenants, Users
from acgs2.client.sync import SyncClient
from acgs2.model import entities
from acgs2.model.entity import Entity, Field, FieldType, Scope, Strategy

KINDS: dict[str, tuple[type[Record], type[Resource[Any]], str]] = {
    "tenant": (Tenant, Tenants, "tenants"),
    "user_profile": (User, Users, "users"),
    "agent": (Agent, Agents, "agents"),
    "tenant_config": (Config, Configs, "configs"),
    "subscription": (Subscription, Subscriptions, "subscriptions"),
    "audit_event": (AuditEvent, AuditEvents, "audit_events"),
}
SHOWN: dict[FieldType, Any] = {
    FieldType.TEXT: str,
    FieldType.ENUM: str,
    FieldType.INTEGER: int,
    FieldType.BOOLEAN: bool,
    FieldType.TIMESTAMP: datetime,
    FieldType.JSON: Json,
    FieldType.SET: tuple[str, ...],
    FieldType.COUNTER: int,
    FieldType.UUID: UUID,
}
SENT: dict[FieldType, Any] = {FieldType.SET: Sequence[str], FieldType.UUID: UUID | str}
CHANGED: dict[FieldType, Any] = {FieldType.SET: SetChange, FieldType.COUNTER: Increment}
SUMS = (FieldType.SET, FieldType.COUNTER)

each = pytest.mark.parametrize("entity", [entities()[name] for name in KINDS], ids=list(KINDS))


def sent(field: Field) -> Any:
    return Literal[field.values] if field.type is FieldType.ENUM else SENT.get(field.type, SHOWN[field.type])


def parameters(function: Any) -> dict[str, tuple[Any, Any]]:
    """Return a function's own parameters with type and default; options are a type of their own."""
    hints = get_type_hints(function)
    return {
        p.name: (hints[p.name], p.default)
        for p in inspect.signature(function).parameters.values()
        if p.name not in ("self", "id") and p.kind is not p.VAR_KEYWORD
    }


def test_there_is_a_resource_for_all_that_plain_requests_write() -> None:
    assert set(KINDS) == {e.name for e in entities().values() if not e.managed}
    client = Client("http://127.0.0.1", token="x")
    sync = SyncClient("http://127.0.0.1", token="x")
    for _, resource, name in KINDS.values():
        assert isinstance(getattr(client, name), resource)
        acts = {n for n in dir(resource) if not n.startswith("_")}
        assert acts == {n for n in dir(getattr(sync, name)) if not n.startswith("_")}


@each
def test_a_record_has_the_declared_fields(entity: Entity) -> None:
    shown, _, _ = KINDS[entity.name]
    own = {"id": UUID, "zone": str, "residency": tuple[str, ...], "updated_at": datetime, "updated_in": str}
    own |= {"etag": str} | ({"tenant_id": UUID} if entity.scope is Scope.TENANT else {})
    versions = (entity.version_field,)
    for field in entity.fields:
        given = field.required or field.type in SUMS or field.name in versions
        own[field.name] = SHOWN[field.type] if given else SHOWN[field.type] | None
    hints = get_type_hints(shown)
    hints.pop("counters")
    assert hints == own
    assert shown.counters == {f.name for f in entity.fields if f.type is FieldType.COUNTER}


@each
def test_create_takes_what_is_declared(entity: Entity) -> None:
    _, resource, _ = KINDS[entity.name]
    empty = inspect.Parameter.empty
    own: dict[str, Any] = {"tenant_id": (UUID | str, empty)} if entity.scope is Scope.TENANT else {}
    for field in (f for f in entity.fields if not f.read_only):
        kind = sent(field)
        own[field.name] = (kind, empty) if field.required else (kind | UnsetType, UNSET)
    assert parameters(resource.create) == own  # type: ignore[attr-defined]


@each
def test_change_takes_what_is_declared(entity: Entity) -> None:
    _, resource, _ = KINDS[entity.name]
    if entity.strategy is Strategy.APPEND_ONLY:
        assert not hasattr(resource, "change")
        return
    seen = (str, inspect.Parameter.empty) if entity.version_field else (str | None, None)
    own: dict[str, Any] = {"if_match": seen}
    for field in (f for f in entity.fields if not f.read_only):
        kind = CHANGED.get(field.type) or sent(field)
        if not field.required and field.type not in SUMS:
            kind = kind | None
        own[field.name] = (kind | UnsetType, UNSET)
    assert parameters(resource.change) == own  # type: ignore[attr-defined]
    assert parameters(resource.erase) == {"if_match": seen}  # type: ignore[attr-defined]


ANSWER = {
    "id": "018f0000-0000-7000-8000-000000000001",
    "zone": "eu",
    "tenant_id": "018f0000-0000-7000-8000-000000000002",
    "display_name": "Ann",
    "preferences": ["a", "b"],
    "last_login": "2026-01-01T00:00:00Z",
    "login_count": 2,
    "residency": ["eu-west-1"],
    "updated_at": "2026-01-01T00:00:00Z",
    "updated_in": "eu-west-1",
}


def test_what_a_newer_server_adds_is_passed_over_and_what_an_older_one_lacks_is_unset() -> None:
    user = msgspec.json.decode(msgspec.json.encode({**ANSWER, "shoe_size": 43}), type=User)
    assert (user.preferences, user.email, user.etag) == (("a", "b"), None, "")


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"display_name": "Ann"}, True),
        ({"display_name": "Bob"}, False),
        ({"email": None}, True),
        ({"preferences": SetChange(add=["a"], remove=["c"])}, True),
        ({"preferences": SetChange(add=["a", "c"], remove=["c"])}, True),
        ({"preferences": SetChange(add=["c"])}, False),
        ({"preferences": SetChange(remove=["b"])}, False),
        ({"last_login": datetime.fromisoformat("2026-01-01T01:00:00+01:00")}, True),
        ({"last_login": None}, False),
        ({"login_count": Increment(0)}, False),
    ],
)
def test_a_read_tells_whether_a_change_is_there(fields: dict[str, Any], shown: bool) -> None:
    assert shows(msgspec.json.decode(msgspec.json.encode(ANSWER), type=User), fields) is shown


def test_a_document_is_the_same_however_it_is_written() -> None:
    config = Config(
        **{k: v for k, v in ANSWER.items() if k in Record.__struct_fields__ and k != "etag"},
        tenant_id=UUID(int=1),
        config_version=2,
        settings={"a": [1, 2]},
    )
    assert shows(config, {"settings": {"a": (1, 2)}})
    assert not shows(config, {"settings": {"a": [2, 1]}})
