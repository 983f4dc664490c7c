"""What is shown and what is sent, written out, so that type checkers see the fields.

A test compares everything here with the entity declarations.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, TypeAlias
from uuid import UUID

import msgspec

__all__ = [
    "Agent",
    "AuditEvent",
    "Config",
    "Increment",
    "Json",
    "Record",
    "SetChange",
    "Subscription",
    "Tenant",
    "User",
]

#: A document: what JSON can hold, an object or a list at the top.
Json: TypeAlias = dict[str, Any] | list[Any]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What every record shows; fields that a newer server adds are passed over.

    `residency` names the regions that hold it, `updated_in` the one that changed it last. `etag` is what
    `if_match` takes; it is empty in lists.
    """

    #: Fields whose values are sums over regions.
    counters: ClassVar[frozenset[str]] = frozenset()

    id: UUID
    zone: str
    residency: tuple[str, ...]
    updated_at: datetime
    updated_in: str
    etag: str = ""


class Tenant(Record, frozen=True, kw_only=True):
    """An organisation whose agents run here; owns everything else of its zone."""

    name: str
    status: str | None = None
    contact_email: str | None = None


class User(Record, frozen=True, kw_only=True):
    """A person who uses a tenant's agents."""

    counters: ClassVar[frozenset[str]] = frozenset({"login_count"})

    tenant_id: UUID
    display_name: str
    email: str | None = None
    locale: str | None = None
    preferences: tuple[str, ...] = ()
    last_login: datetime | None = None
    login_count: int = 0


class Agent(Record, frozen=True, kw_only=True):
    """A program that acts for a tenant."""

    tenant_id: UUID
    name: str
    status: str | None = None
    capabilities: Json | None = None
    description: str | None = None
    accepts: Json | None = None


class Config(Record, frozen=True, kw_only=True):
    """A tenant's settings, changed only by someone who saw the version before."""

    tenant_id: UUID
    config_version: int
    settings: Json


class Subscription(Record, frozen=True, kw_only=True):
    """An agent's wish to receive what is sent to a topic."""

    tenant_id: UUID
    topic: str
    agent_id: UUID


class AuditEvent(Record, frozen=True, kw_only=True):
    """Something that was done, written once and never changed."""

    tenant_id: UUID
    actor: str
    action: str
    subject: str | None = None
    detail: Json | None = None


class SetChange(msgspec.Struct, frozen=True):
    """What to put into a set and what to take out."""

    add: Sequence[str] = ()
    remove: Sequence[str] = ()


class Increment(msgspec.Struct, frozen=True):
    """What to add to a counter; may be negative."""

    by: int = msgspec.field(name="increment")
