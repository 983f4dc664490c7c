"""What comes for an agent: claimed, worked on once, acknowledged or returned, wherever it is served."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self
from uuid import UUID

import anyio

from acgs2.client.bus import InboxCalls, Messages
from acgs2.client.letters import Claimed, Letter, Receipt, Settled
from acgs2.client.memory import Before, Memory
from acgs2.client.requests import ReadOptions, id_text
from acgs2.errors import ConflictError, InputError, ResidencyError, UnavailableError

__all__ = ["Inbox", "InboxMessage"]

_LOG = logging.getLogger("acgs2.client.inbox")
#: Waits after a claim that was given up after all its attempts; with full jitter, as within calls.
_BASE_S, _CAP_S = 0.2, 5.0
#: A message is not begun in the last part of its hold: it would soon be given to somebody else too.
_MARGIN = 0.1
#: How long those that are left are given back when an inbox is closed.
_GOODBYE_S = 3.0
#: What no time mends.
_LASTING = ("certificate-untrusted", "endpoint-not-trusted")
_PASSING = (UnavailableError, ResidencyError)


class InboxMessage:
    """A message that is held for this consumer until it is acknowledged or returned.

    Args:
        inbox: which gave it.
        claimed: as it came.
        until_s: when its hold ends, on the client's clock.
    """

    def __init__(self, inbox: Inbox, claimed: Claimed, until_s: float) -> None:
        self._inbox = inbox
        self.letter: Letter = claimed.message
        self.claim = claimed.claim
        self.attempt = claimed.attempt
        self.until_s = until_s
        #: Whether it was acknowledged or returned.
        self.settled = False

    def __repr__(self) -> str:
        """Return what can be logged: no contents."""
        return f"<InboxMessage {self.message_id} {self.message_type!r} attempt {self.attempt}>"

    @property
    def message_id(self) -> UUID:
        """Return the id, by which a message that comes again is known."""
        return self.letter.message_id

    @property
    def conversation_id(self) -> UUID:
        """Return what it belongs to."""
        return self.letter.conversation_id

    @property
    def message_type(self) -> str:
        """Return what kind of message it is."""
        return self.letter.message_type

    @property
    def from_agent(self) -> UUID:
        """Return who said it."""
        return self.letter.from_agent

    @property
    def topic(self) -> str | None:
        """Return the topic that it was sent to, if it was."""
        return self.letter.topic

    @property
    def content(self) -> str:
        """Return its text."""
        return self.letter.content or ""

    @property
    def payload(self) -> Any:
        """Return its document."""
        return self.letter.payload if self.letter.payload is not None else {}

    async def acknowledge(self) -> bool:
        """Be done with it: it is not delivered again.

        Returns whether that is noted; if not, it may come again, and is acknowledged then without being
        shown again by this inbox.
        """
        return await self._inbox.acknowledge(self)

    async def return_(self, delay_s: float = 0.0) -> bool:
        """Let it be delivered again after a delay; after five deliveries it is given up."""
        return await self._inbox.give_back([self], delay_s)

    async def reply(
        self,
        message_type: str,
        *,
        content: str = "",
        payload: Mapping[str, Any] | None = None,
        priority: Literal[0, 1, 2, 3] = 1,
        expires_at: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        message_id: UUID | str | None = None,
    ) -> Receipt:
        """Answer who sent it, in the same conversation; see `Client.send`."""
        return await self._inbox.reply(
            self.letter,
            message_type,
            content=content,
            payload=payload,
            priority=priority,
            expires_at=expires_at,
            metadata=metadata,
            message_id=message_id,
        )


class Inbox:
    """An agent's inbox, iterated over as `async for message in client.inbox(agent)`.

    Going on to the next message acknowledges the one before. Leaving the loop, by an error or by `break`,
    returns what was not acknowledged. What comes again is told by its id and not shown twice.

    Args:
        calls: how to claim and settle.
        messages: how to reply.
        agent: whose it is.
        limit: how many messages are claimed at once.
        hold_s: for how long each is held.
        wait_s: how long one claim waits for the first.
        remember: how many messages that are done with are remembered.
        options: zone and region.
    """

    def __init__(
        self,
        calls: InboxCalls,
        messages: Messages,
        agent: UUID | str,
        *,
        limit: int,
        hold_s: float,
        wait_s: float,
        remember: int,
        options: ReadOptions,
    ) -> None:
        _check(limit, hold_s, wait_s, remember)
        self.agent = UUID(id_text(agent))
        self.limit = limit
        #: In which generation the inbox was served when it last gave something.
        self.generation = 0
        self._hold_s, self._wait_s = hold_s, wait_s
        self._calls, self._messages = calls, messages
        self._options = options
        self._memory = Memory(remember)
        self._open: dict[UUID, InboxMessage] = {}

    async def __aenter__(self) -> Self:
        """Return the inbox."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back what is held."""
        await self.close()

    def __aiter__(self) -> AsyncIterator[InboxMessage]:
        """Iterate over messages as they come, without an end."""
        return self._each()

    async def _each(self) -> AsyncIterator[InboxMessage]:
        try:
            while True:
                for message in await self.take(self.limit):
                    if self.is_begun(message):
                        yield message
                        await message.acknowledge()
        finally:
            await self.close()

    def is_begun(self, message: InboxMessage) -> bool:
        """Return whether a message may be worked on still; if its hold is over it comes again."""
        if self._calls.clock() < message.until_s:
            return True
        self._let_go(message)
        return False

    async def take(self, limit: int) -> list[InboxMessage]:
        """Return up to so many messages that were not given before, none if nothing came in `wait_s`.

        Waits through outages and takeovers for as long as they last. One that is cancelled while it waits
        takes nothing. Let it end all the same where you can: what an answer gives that is on its way then
        comes again only when its hold ends.

        Raises:
            AcgsError: what time does not mend, such as `other-agents-inbox` or `halted`.
        """
        failures = 0
        while True:
            try:
                given = await self._calls.claim(
                    str(self.agent), limit, self._wait_s, self._hold_s, self._options
                )
            except _PASSING as error:
                if error.reference in _LASTING:
                    raise
                _LOG.warning("inbox %s waits: %s", self.agent, error.reference)
                await anyio.sleep(self._calls.jitter() * min(_CAP_S, _BASE_S * 2 ** min(failures, 16)))
                failures += 1
                continue
            self.generation = given.generation
            return await self._sorted(given.claims)

    async def _sorted(self, claims: tuple[Claimed, ...]) -> list[InboxMessage]:
        """Return those that are new; acknowledge those that are done, and hold on to those in work."""
        until_s = self._calls.clock() + self._hold_s * (1 - _MARGIN)
        fresh: list[InboxMessage] = []
        done: list[str] = []
        for claimed in claims:
            known = claimed.message.message_id
            match self._memory.take(known):
                case Before.NEW:
                    self._open[known] = made = InboxMessage(self, claimed, until_s)
                    fresh.append(made)
                case Before.OPEN:
                    # Its hold ended while it is worked on: what settles it is the claim that is good now.
                    self._open[known].claim = claimed.claim
                case Before.DONE:
                    done.append(claimed.claim)
        if done:
            await self._settle(lambda: self._calls.acknowledge(str(self.agent), done, self._options))
        return fresh

    async def acknowledge(self, message: InboxMessage) -> bool:
        """See InboxMessage."""
        if message.settled:
            return True
        message.settled = True
        self._memory.done(message.message_id)
        self._open.pop(message.message_id, None)
        claims = [message.claim]
        return await self._settle(lambda: self._calls.acknowledge(str(self.agent), claims, self._options))

    async def give_back(self, messages: list[InboxMessage], delay_s: float = 0.0) -> bool:
        """Return messages that are not settled, to be delivered again after a delay."""
        left = [each for each in messages if not each.settled]
        if not left:
            return True
        for each in left:
            each.settled = True
            self._let_go(each)
        claims = [each.claim for each in left]
        return await self._settle(
            lambda: self._calls.give_back(str(self.agent), claims, delay_s, self._options)
        )

    def _let_go(self, message: InboxMessage) -> None:
        self._memory.forget(message.message_id)
        self._open.pop(message.message_id, None)

    async def _settle(self, act: Callable[[], Any]) -> bool:
        """Settle claims if that can be done; what cannot comes again when its hold ends."""
        try:
            settled: Settled = await act()
        except (ConflictError, *_PASSING) as error:
            _LOG.info("inbox %s could not settle a claim: %s", self.agent, error.reference)
            return False
        return all(each.outcome != "lapsed" for each in settled.claims)

    async def reply(self, letter: Letter, message_type: str, **said: Any) -> Receipt:
        """See InboxMessage."""
        mine = letter.to_tenant_id or letter.tenant_id
        return await self._messages.send(
            from_agent=self.agent,
            to_agent=letter.from_agent,
            message_type=message_type,
            conversation_id=letter.conversation_id,
            tenant_id=mine,
            to_tenant_id=letter.tenant_id if letter.tenant_id != mine else None,
            **said,
            **self._options,
        )

    async def close(self) -> None:
        """Give back what is held, as far as that can be done soon; safe to repeat."""
        with anyio.move_on_after(_GOODBYE_S, shield=True):
            await self.give_back(list(self._open.values()))


def _check(limit: int, hold_s: float, wait_s: float, remember: int) -> None:
    wrong = {
        "limit": not 1 <= limit <= 100,
        "hold_s": not 1 <= hold_s <= 3600,
        "wait_s": not 0 <= wait_s <= 20,
        "remember": remember < 1,
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise InputError(
                "inbox-invalid",
                f"{name} of the inbox is out of range.",
                hint="limit is 1 to 100, hold_s 1 to 3600, wait_s 0 to 20, remember at least 1.",
            )
