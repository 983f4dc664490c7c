"""A frame for programs that act as agents: handlers by message type and topic, and a run that ends well."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

import anyio
from anyio.abc import TaskGroup

from acgs2.client.inbox import Inbox, InboxMessage
from acgs2.client.lanes import Lanes
from acgs2.client.requests import id_text
from acgs2.errors import AcgsError, InputError, RuntimeFault

if TYPE_CHECKING:
    from acgs2.client.client import Client

__all__ = ["AgentProgram", "Handler"]

_LOG = logging.getLogger("acgs2.client.program")
#: How long a message that could not be handled rests, by how often it was delivered.
_REST_S, _REST_MOST_S = 1.0, 60.0
_HOLD_S = 60.0

Handler = Callable[[InboxMessage], Awaitable[None]]


class AgentProgram:
    """A program that acts as an agent: what comes for it goes to the handlers that were named for it.

        program = AgentProgram(client, agent_id)

        @program.on("question")
        async def answer(message):
            await message.reply("answer", content="42")

        await program.run()

    A handler that returns has done with its message; one that raises has it delivered again, later each
    time, and given up after five deliveries. Messages of one conversation are handled one after the other.

    Args:
        client: an open client, with the agent's own token or one of a service of its tenant.
        agent: its id.
        concurrency: how many messages are handled at once.
        hold_s: how long a handler may take; after that its message may be given to another program too.
        wait_s: how long one claim waits for something to come, and `stop` for that claim.
        grace_s: how long handlers may go on after `stop`; those that take longer are cancelled.
    """

    def __init__(
        self,
        client: Client,
        agent: UUID | str,
        *,
        concurrency: int = 8,
        hold_s: float = _HOLD_S,
        wait_s: float = 5.0,
        grace_s: float = 10.0,
    ) -> None:
        if not 1 <= concurrency <= 100:
            raise InputError(
                "concurrency-invalid", "1 to 100 messages are handled at once.", hint="Leave it at 8."
            )
        self.agent = UUID(id_text(agent))
        self._client = client
        self._concurrency = concurrency
        self._hold_s, self._wait_s, self._grace_s = hold_s, wait_s, grace_s
        self._types: dict[str, Handler] = {}
        self._topics: dict[str, Handler] = {}
        self._otherwise: Handler | None = None
        self._lanes: Lanes[UUID, InboxMessage] = Lanes()
        self._changed: anyio.Event | None = None
        self._taking: anyio.CancelScope | None = None
        self._stopping = False
        self._running = False

    def on(self, message_type: str) -> Callable[[Handler], Handler]:
        """Handle messages of a type that were sent to the agent."""
        return self._named(self._types, message_type)

    def on_topic(self, topic: str) -> Callable[[Handler], Handler]:
        """Handle what is sent to a topic; the agent is subscribed to it when the program runs."""
        return self._named(self._topics, topic)

    def otherwise(self, handler: Handler) -> Handler:
        """Handle what nothing else does; without it, that is returned until it is given up."""
        self._otherwise = handler
        return handler

    def _named(self, handlers: dict[str, Handler], name: str) -> Callable[[Handler], Handler]:
        if not isinstance(name, str) or not name or name in handlers:
            raise InputError(
                "handler-invalid", f"{name!r} has a handler already, or is no name.", hint="Name each once."
            )

        def noted(handler: Handler) -> Handler:
            handlers[name] = handler
            return handler

        return noted

    def stop(self) -> None:
        """Take nothing more, and let `run` end when the handlers have, and the last claim, for `wait_s`."""
        self._stopping = True
        if self._taking is not None:
            self._taking.deadline = anyio.current_time() + self._grace_s

    async def run(self) -> None:
        """Handle messages until `stop`, or until something happens that time does not mend.

        Raises:
            AcgsError: the inbox is not the client's, the agent is halted, or a topic is not subscribed to.
        """
        if self._running:
            raise RuntimeFault("already-running", "The program runs already.", hint="Run it once at a time.")
        self._running = True
        fault: AcgsError | None = None
        try:
            await self._subscribe()
            inbox = self._client.inbox(
                self.agent, limit=self._concurrency, hold_s=self._hold_s, wait_s=self._wait_s
            )
            async with inbox, anyio.create_task_group() as work:
                try:
                    await self._take_until_stopped(inbox, work)
                except AcgsError as error:
                    fault = error
                await self._finish()
                work.cancel_scope.cancel()
        finally:
            self._running = self._stopping = False
            self._taking = None
            self._lanes = Lanes()
        if fault is not None:
            raise fault

    async def _subscribe(self) -> None:
        """Subscribe to topics; an agent's own token may not, and then it must have been done."""
        if not self._topics:
            return
        tenant = (await self._client.agents.get(self.agent)).tenant_id
        found = self._client.subscriptions.list(tenant=tenant)
        have = {each.topic async for each in found if each.agent_id == self.agent}
        for topic in self._topics.keys() - have:
            key = uuid5(self.agent, f"subscription\n{topic}")
            await self._client.subscriptions.create(
                tenant_id=tenant, topic=topic, agent_id=self.agent, idempotency_key=str(key)
            )

    async def _take_until_stopped(self, inbox: Inbox, work: TaskGroup) -> None:
        with anyio.CancelScope() as self._taking:
            while (room := await self._room()) and not self._stopping:
                taken = await inbox.take(room)
                if self._stopping:
                    await inbox.give_back(taken)
                    return
                for message in taken:
                    if self._lanes.put(message.conversation_id, message):
                        work.start_soon(self._work, inbox, message)

    async def _room(self) -> int:
        """Return how many more can be handled, waiting until it is at least one."""
        while (room := self._concurrency - len(self._lanes)) <= 0:
            self._changed = anyio.Event()
            await self._changed.wait()
        return room

    async def _work(self, inbox: Inbox, message: InboxMessage) -> None:
        """Handle a message, and after it those of its conversation."""
        following: InboxMessage | None = message
        while following is not None:
            if inbox.is_begun(following):
                await self._handle(following)
            following = self._lanes.next(message.conversation_id)
            if self._changed is not None:
                self._changed.set()

    async def _handle(self, message: InboxMessage) -> None:
        handlers, name = self._types, message.message_type
        if message.topic is not None:
            handlers, name = self._topics, message.topic
        handler = handlers.get(name) or self._otherwise
        rest_s = min(_REST_S * 2 ** (message.attempt - 1), _REST_MOST_S)
        if handler is None:
            _LOG.warning("no handler of %s for %r", self.agent, message)
            await message.return_(rest_s)
            return
        try:
            await handler(message)
        except Exception:  # noqa: BLE001 - the edge of a handler: one message's failure is not the others'
            _LOG.exception("%s could not handle %r", self.agent, message)
            await message.return_(rest_s)
            return
        await message.acknowledge()

    async def _finish(self) -> None:
        """Wait until what was begun is done, for as long as it is given."""
        with anyio.move_on_after(self._grace_s):
            while len(self._lanes):
                self._changed = anyio.Event()
                await self._changed.wait()
