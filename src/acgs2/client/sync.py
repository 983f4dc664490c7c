"""The client for programs that are not async: the same one, in a thread with an event loop of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, Unpack
from uuid import UUID

from anyio.from_thread import BlockingPortal, start_blocking_portal

from acgs2.client.bus import CONSTITUTION, Deliberations, Messages
from acgs2.client.client import Client
from acgs2.client.inbox import Inbox, InboxMessage
from acgs2.client.letters import Letter
from acgs2.client.models import Agent, AuditEvent, Config, Record, Subscription, Tenant, User
from acgs2.client.places import AUTO
from acgs2.client.requests import ReadOptions
from acgs2.client.resources import Agents, AuditEvents, Configs, Resource, Subscriptions, Tenants, Users
from acgs2.client.tokens import TokenSource
from acgs2.errors import RuntimeFault

__all__ = ["SyncClient"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=Record)
_END: Any = object()


class _Bridge:
    """Makes plain functions of those of an async client; the thread is there while it is entered."""

    def __init__(self) -> None:
        self.portal: BlockingPortal | None = None

    def open(self) -> BlockingPortal:
        if self.portal is None:
            raise RuntimeFault(
                "client-closed", "The client is not open.", hint="Call within `with SyncClient(...)`."
            )
        return self.portal

    def call(self, function: Callable[P, Awaitable[T]]) -> Callable[P, T]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.open().call(partial(function, *args, **kwargs))

        return called

    def each(self, function: Callable[P, AsyncIterator[T]]) -> Callable[P, Iterator[T]]:
        @wraps(function)
        def iterated(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            items = function(*args, **kwargs)
            while (item := self.open().call(partial(anext, items, _END))) is not _END:
                yield item

        return iterated


class _Sync(Generic[R]):
    def __init__(self, bridge: _Bridge, resource: Resource[R]) -> None:
        self.get = bridge.call(resource.get)
        self.list = bridge.each(resource.list)


class SyncTenants(_Sync[Tenant]):
    """As `Tenants`, not async."""

    def __init__(self, bridge: _Bridge, resource: Tenants) -> None:
        super().__init__(bridge, resource)
        self.create = bridge.call(resource.create)
        self.change = bridge.call(resource.change)
        self.erase = bridge.call(resource.erase)


class SyncUsers(_Sync[User]):
    """As `Users`, not async."""

    def __init__(self, bridge: _Bridge, resource: Users) -> None:
        super().__init__(bridge, resource)
        self.create = bridge.call(resource.create)
        self.change = bridge.call(resource.change)
        self.erase = bridge.call(resource.erase)


class SyncAgents(_Sync[Agent]):
    """As `Agents`, not async."""

    def __init__(self, bridge: _Bridge, resource: Agents) -> None:
        super().__init__(bridge, resource)
        self.create = bridge.call(resource.create)
        self.change = bridge.call(resource.change)
        self.erase = bridge.call(resource.erase)


class SyncConfigs(_Sync[Config]):
    """As `Configs`, not async."""

    def __init__(self, bridge: _Bridge, resource: Configs) -> None:
        super().__init__(bridge, resource)
        self.create = bridge.call(resource.create)
        self.change = bridge.call(resource.change)
        self.erase = bridge.call(resource.erase)


class SyncSubscriptions(_Sync[Subscription]):
    """As `Subscriptions`, not async."""

    def __init__(self, bridge: _Bridge, resource: Subscriptions) -> None:
        super().__init__(bridge, resource)
        self.create = bridge.call(resource.create)
        self.change = bridge.call(resource.change)
        self.erase = bridge.call(resource.erase)


class SyncAuditEvents(_Sync[AuditEvent]):
    """As `AuditEvents`, not async."""

    def __init__(self, bridge: _Bridge, resource: AuditEvents) -> None:
        super().__init__(bridge, resource)
        self.create = bridge.call(resource.create)
        self.erase = bridge.call(resource.erase)


class SyncMessages:
    """As `Messages`, not async."""

    def __init__(self, bridge: _Bridge, resource: Messages) -> None:
        self.send = bridge.call(resource.send)
        self.get = bridge.call(resource.get)
        self.trace = bridge.call(resource.trace)


class SyncDeliberations:
    """As `Deliberations`, not async."""

    def __init__(self, bridge: _Bridge, resource: Deliberations) -> None:
        self.list = bridge.call(resource.list)
        self.get = bridge.call(resource.get)
        self.approve = bridge.call(resource.approve)
        self.deny = bridge.call(resource.deny)
        self.wait = bridge.call(resource.wait)


class SyncInboxMessage:
    """As `InboxMessage`, not async."""

    def __init__(self, bridge: _Bridge, message: InboxMessage) -> None:
        self.letter: Letter = message.letter
        self.attempt = message.attempt
        self.message_id = message.message_id
        self.conversation_id = message.conversation_id
        self.message_type = message.message_type
        self.from_agent = message.from_agent
        self.topic = message.topic
        self.content = message.content
        self.payload = message.payload
        self.acknowledge = bridge.call(message.acknowledge)
        self.return_ = bridge.call(message.return_)
        self.reply = bridge.call(message.reply)


class SyncInbox:
    """As `Inbox`, not async: `for message in client.inbox(agent)` blocks until something comes."""

    def __init__(self, bridge: _Bridge, inbox: Inbox) -> None:
        self._bridge = bridge
        self._inbox = inbox
        self.close = bridge.call(inbox.close)

    def __iter__(self) -> Iterator[SyncInboxMessage]:
        """Iterate over messages as they come; going on acknowledges the one before."""
        messages = aiter(self._inbox)
        try:
            while True:
                yield SyncInboxMessage(self._bridge, self._bridge.open().call(partial(anext, messages)))
        finally:
            if self._bridge.portal is not None:  # else the client has given back what was held
                self.close()


class SyncClient:
    """The same as `Client`, used as `with SyncClient(...) as client`, from one thread or several."""

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        zone: str | None = None,
        token: TokenSource,
        region: str = AUTO,
        ca: str | Path | None = None,
        domain: str | None = None,
        timeout_s: float = 30.0,
        constitution: str = CONSTITUTION,
    ) -> None:
        self._client = Client(
            url,
            zone=zone,
            token=token,
            region=region,
            ca=ca,
            domain=domain,
            timeout_s=timeout_s,
            constitution=constitution,
        )
        self._bridge = _Bridge()
        self._open = ExitStack()
        self.tenants = SyncTenants(self._bridge, self._client.tenants)
        self.users = SyncUsers(self._bridge, self._client.users)
        self.agents = SyncAgents(self._bridge, self._client.agents)
        self.configs = SyncConfigs(self._bridge, self._client.configs)
        self.subscriptions = SyncSubscriptions(self._bridge, self._client.subscriptions)
        self.audit_events = SyncAuditEvents(self._bridge, self._client.audit_events)
        self.messages = SyncMessages(self._bridge, self._client.messages)
        self.deliberations = SyncDeliberations(self._bridge, self._client.deliberations)
        self.send = self.messages.send
        self.approve = self.deliberations.approve
        self.deny = self.deliberations.deny
        self.wait_for_verdict = self.deliberations.wait

    def inbox(
        self,
        agent: UUID | str,
        *,
        limit: int = 10,
        hold_s: float = 30.0,
        wait_s: float = 20.0,
        remember: int = 10_000,
        **options: Unpack[ReadOptions],
    ) -> SyncInbox:
        """Return an agent's inbox; see `Client.inbox`."""
        made = self._client.inbox(
            agent, limit=limit, hold_s=hold_s, wait_s=wait_s, remember=remember, **options
        )
        return SyncInbox(self._bridge, made)

    def __enter__(self) -> Self:
        """Open the client and its thread."""
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(portal.wrap_async_context_manager(self._client))
            self._bridge.portal = portal
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections, and end the thread."""
        self._bridge.portal = None
        self._open.__exit__(kind, error, trace)
