"""Records by kind, their fields written out, so that editors and type checkers know them.

A test compares every signature with the entity declarations.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Generic, Literal, TypeVar, Unpack
from uuid import UUID

from msgspec import UNSET, UnsetType

from acgs2.client.calls import Caller
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
from acgs2.client.requests import Defaults, ReadOptions, Requests, WriteOptions

__all__ = ["Agents", "AuditEvents", "Configs", "Resource", "Subscriptions", "Tenants", "Users"]

R = TypeVar("R", bound=Record)


class Resource(Generic[R]):
    """Records of one kind."""

    def __init__(self, requests: Requests[R]) -> None:
        self._requests = requests

    async def get(self, id: UUID | str, **options: Unpack[ReadOptions]) -> R:
        """Return a record.

        Raises:
            NotFoundError: it is not in this region, or not the bearer's.
            ConflictError: it was erased (`erased`).
        """
        return await self._requests.get(id, options)

    def list(
        self, *, tenant: UUID | str | None = None, limit: int = 50, **options: Unpack[ReadOptions]
    ) -> AsyncIterator[R]:
        """Iterate over all records that the bearer sees, in the order of their ids.

        Args:
            tenant: only this tenant's.
            limit: how many are asked for at a time, 1 to 200; each time has the whole deadline.
            options: see ReadOptions.
        """
        return self._requests.list(tenant, limit, options)


class Tenants(Resource[Tenant]):
    """Organisations whose agents run here; only operators and services change them."""

    def __init__(self, caller: Caller, defaults: Defaults) -> None:
        super().__init__(Requests(caller, defaults, "tenants", Tenant))

    async def create(
        self,
        *,
        name: str,
        status: Literal["active", "suspended"] | UnsetType = UNSET,
        contact_email: str | UnsetType = UNSET,
        **options: Unpack[WriteOptions],
    ) -> Tenant:
        """Store a new tenant."""
        fields = {"name": name, "status": status, "contact_email": contact_email}
        return await self._requests.create(fields, options)

    async def change(
        self,
        id: UUID | str,
        *,
        if_match: str | None = None,
        name: str | UnsetType = UNSET,
        status: Literal["active", "suspended"] | UnsetType | None = UNSET,
        contact_email: str | UnsetType | None = UNSET,
        **options: Unpack[WriteOptions],
    ) -> Tenant:
        """Change a tenant; what is not named stays as it is."""
        fields = {"name": name, "status": status, "contact_email": contact_email}
        return await self._requests.change(id, fields, if_match, options)

    async def erase(
        self, id: UUID | str, *, if_match: str | None = None, **options: Unpack[ReadOptions]
    ) -> None:
        """Erase a tenant everywhere; its id is never used again."""
        await self._requests.erase(id, if_match, options)


class Users(Resource[User]):
    """People who use a tenant's agents."""

    def __init__(self, caller: Caller, defaults: Defaults) -> None:
        super().__init__(Requests(caller, defaults, "users", User))

    async def create(
        self,
        *,
        tenant_id: UUID | str,
        display_name: str,
        email: str | UnsetType = UNSET,
        locale: str | UnsetType = UNSET,
        preferences: Sequence[str] | UnsetType = UNSET,
        last_login: datetime | UnsetType = UNSET,
        login_count: int | UnsetType = UNSET,
        **options: Unpack[WriteOptions],
    ) -> User:
        """Store a new user."""
        fields = {
            "tenant_id": tenant_id,
            "display_name": display_name,
            "email": email,
            "locale": locale,
            "preferences": preferences,
            "last_login": last_login,
            "login_count": login_count,
        }
        return await self._requests.create(fields, options)

    async def change(
        self,
        id: UUID | str,
        *,
        if_match: str | None = None,
        display_name: str | UnsetType = UNSET,
        email: str | UnsetType | None = UNSET,
        locale: str | UnsetType | None = UNSET,
        preferences: SetChange | UnsetType = UNSET,
        last_login: datetime | UnsetType | None = UNSET,
        login_count: Increment | UnsetType = UNSET,
        **options: Unpack[WriteOptions],
    ) -> User:
        """Change a user; what is not named stays as it is."""
        fields = {
            "display_name": display_name,
            "email": email,
            "locale": locale,
            "preferences": preferences,
            "last_login": last_login,
            "login_count": login_count,
        }
        return await self._requests.change(id, fields, if_match, options)

    async def erase(
        self, id: UUID | str, *, if_match: str | None = None, **options: Unpack[ReadOptions]
    ) -> None:
        """Erase a user everywhere; the id is never used again."""
        await self._requests.erase(id, if_match, options)


class Agents(Resource[Agent]):
    """Programs that act for a tenant."""

    def __init__(self, caller: Caller, defaults: Defaults) -> None:
        super().__init__(Requests(caller, defaults, "agents", Agent))

    async def create(
        self,
        *,
        tenant_id: UUID | str,
        name: str,
        status: Literal["active", "halted", "retired"] | UnsetType = UNSET,
        capabilities: Json | UnsetType = UNSET,
        description: str | UnsetType = UNSET,
        accepts: Json | UnsetType = UNSET,
        **options: Unpack[WriteOptions],
    ) -> Agent:
        """Store a new agent."""
        fields = {
            "tenant_id": tenant_id,
            "name": name,
            "status": status,
            "capabilities": capabilities,
            "description": description,
            "accepts": accepts,
        }
        return await self._requests.create(fields, options)

    async def change(
        self,
        id: UUID | str,
        *,
        if_match: str | None = None,
        name: str | UnsetType = UNSET,
        status: Literal["active", "halted", "retired"] | UnsetType | None = UNSET,
        capabilities: Json | UnsetType | None = UNSET,
        description: str | UnsetType | None = UNSET,
        accepts: Json | UnsetType | None = UNSET,
        **options: Unpack[WriteOptions],
    ) -> Agent:
        """Change an agent; what is not named stays as it is."""
        fields = {
            "name": name,
            "status": status,
            "capabilities": capabilities,
            "description": description,
            "accepts": accepts,
        }
        return await self._requests.change(id, fields, if_match, options)

    async def erase(
        self, id: UUID | str, *, if_match: str | None = None, **options: Unpack[ReadOptions]
    ) -> None:
        """Erase an agent everywhere; its id is never used again."""
        await self._requests.erase(id, if_match, options)


class Configs(Resource[Config]):
    """Tenants' settings; who changes them says which version they saw."""

    def __init__(self, caller: Caller, defaults: Defaults) -> None:
        super().__init__(Requests(caller, defaults, "configs", Config))

    async def create(
        self, *, tenant_id: UUID | str, settings: Json, **options: Unpack[WriteOptions]
    ) -> Config:
        """Store a tenant's settings."""
        return await self._requests.create({"tenant_id": tenant_id, "settings": settings}, options)

    async def change(
        self,
        id: UUID | str,
        *,
        if_match: str,
        settings: Json | UnsetType = UNSET,
        **options: Unpack[WriteOptions],
    ) -> Config:
        """Change settings.

        Raises:
            ConflictError: they have changed since `if_match` was seen (`version-mismatch`).
        """
        return await self._requests.change(id, {"settings": settings}, if_match, options)

    async def erase(self, id: UUID | str, *, if_match: str, **options: Unpack[ReadOptions]) -> None:
        """Erase settings everywhere; their id is never used again."""
        await self._requests.erase(id, if_match, options)


class Subscriptions(Resource[Subscription]):
    """Agents' wishes to receive what is sent to a topic of their tenant."""

    def __init__(self, caller: Caller, defaults: Defaults) -> None:
        super().__init__(Requests(caller, defaults, "subscriptions", Subscription))

    async def create(
        self,
        *,
        tenant_id: UUID | str,
        topic: str,
        agent_id: UUID | str,
        **options: Unpack[WriteOptions],
    ) -> Subscription:
        """Store a new subscription."""
        fields = {"tenant_id": tenant_id, "topic": topic, "agent_id": agent_id}
        return await self._requests.create(fields, options)

    async def change(
        self,
        id: UUID | str,
        *,
        if_match: str | None = None,
        topic: str | UnsetType = UNSET,
        agent_id: UUID | str | UnsetType = UNSET,
        **options: Unpack[WriteOptions],
    ) -> Subscription:
        """Change a subscription; what is not named stays as it is."""
        fields = {"topic": topic, "agent_id": agent_id}
        return await self._requests.change(id, fields, if_match, options)

    async def erase(
        self, id: UUID | str, *, if_match: str | None = None, **options: Unpack[ReadOptions]
    ) -> None:
        """End a subscription everywhere; the id is never used again."""
        await self._requests.erase(id, if_match, options)


class AuditEvents(Resource[AuditEvent]):
    """What was done, written once and never changed."""

    def __init__(self, caller: Caller, defaults: Defaults) -> None:
        super().__init__(Requests(caller, defaults, "audit-events", AuditEvent))

    async def create(
        self,
        *,
        tenant_id: UUID | str,
        actor: str,
        action: str,
        subject: str | UnsetType = UNSET,
        detail: Json | UnsetType = UNSET,
        **options: Unpack[WriteOptions],
    ) -> AuditEvent:
        """Store an event."""
        fields = {
            "tenant_id": tenant_id,
            "actor": actor,
            "action": action,
            "subject": subject,
            "detail": detail,
        }
        return await self._requests.create(fields, options)

    async def erase(
        self, id: UUID | str, *, if_match: str | None = None, **options: Unpack[ReadOptions]
    ) -> None:
        """Erase an event everywhere; its id is never used again."""
        await self._requests.erase(id, if_match, options)
