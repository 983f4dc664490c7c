"""Where agents take and acknowledge messages: many share a transaction, and waiting costs no connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg_pool import AsyncConnectionPool

from acgs2.bus.batch import Batch
from acgs2.bus.claims import ClaimId
from acgs2.store.templates import fragments

__all__ = ["CHANNEL", "MAX_ATTEMPTS", "Claimed", "Counted", "Desk", "Receiver", "tidied"]

#: The channel on which the database says which agents something has come for.
CHANNEL = "acgs_inbox"
#: After how many deliveries that were not acknowledged a message is given up.
MAX_ATTEMPTS = 5
_QUERIES = fragments("delivery.sql")
#: A wake that was lost, and what becomes claimable by itself beyond those looked at, is found after so long.
_LOOK_S = 5.0
_TELL_S = 0.2
_TELL_MOST = 2000
_POOL_S = 3.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """An agent and where it belongs."""

    agent: UUID
    tenant: UUID
    zone: str


class Claimed(msgspec.Struct):
    """A message that is held for whoever was given this, until the deadline."""

    claim: str
    message: msgspec.Raw
    attempt: int
    deadline: datetime


@dataclass
class Counted:
    """What is told to whoever counts."""

    redelivered: Callable[[int], None]
    acknowledged: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class _Claiming:
    receiver: Receiver
    generation: int
    limit: int
    hold_s: float


class Desk:
    """Claims and acknowledgements of one region's inboxes.

    Args:
        pool: of the region's database, as the application.
        counted: told of redeliveries, and how long acknowledged messages took.
    """

    def __init__(self, pool: AsyncConnectionPool[Any], counted: Counted) -> None:
        self._pool = pool
        self._counted = counted
        self._claims: Batch[_Claiming, list[Claimed]] = Batch(self._claim, unheard=self._untake)
        self._acks: Batch[tuple[UUID, ClaimId], str] = Batch(self._acknowledge, most=500, lanes=1)
        self._waiting: dict[UUID, set[asyncio.Event]] = {}
        self._watching: dict[UUID, set[Callable[[Sequence[str]], None]]] = {}
        self._done: list[tuple[UUID, UUID]] = []
        self._telling = asyncio.Lock()

    async def claim(
        self,
        receiver: Receiver,
        limit: int,
        hold_s: float,
        wait_s: float,
        require: Callable[[int | None], int],
        gone: Callable[[], bool],
    ) -> tuple[int, list[Claimed]]:
        """Return the generation and up to `limit` claims, waiting for the first if there is none.

        What was claimed for a consumer that is gone by then is given back at once.

        Args:
            receiver: whose inbox.
            limit: how many at most.
            hold_s: for how long they are held.
            wait_s: for how long to wait.
            require: returns the generation that is served now, or raises; asked before every act, and with
                that generation before its effect is told.
            gone: whether nobody waits for them any more; `wake` has it asked.
        """
        until_s = time.monotonic() + wait_s
        with self._woken(receiver.agent) as woken:
            while True:
                woken.clear()
                generation = require(None)
                if gone():
                    return generation, []
                asked = _Claiming(receiver, generation, limit, hold_s)
                claims = await self._claims.ask(asked)
                if claims and gone():
                    await self._untake(asked, claims)
                    return generation, []
                require(generation)
                left_s = until_s - time.monotonic()
                if claims or left_s <= 0:
                    return generation, claims
                await self._wait(woken, min(left_s, await self._due_s(receiver)))

    async def acknowledge(self, receiver: Receiver, claims: Sequence[ClaimId]) -> list[str]:
        """Return what became of each: done, already, or lapsed."""
        outcomes = await asyncio.gather(*(self._acks.ask((receiver.agent, claim)) for claim in claims))
        self._settled(receiver.agent, claims)
        if "done" in outcomes:
            self.wake([receiver.agent])  # the next of their conversations
        return outcomes

    async def give_back(
        self, receiver: Receiver, claims: Sequence[ClaimId], generation: int, delay_s: float
    ) -> list[str]:
        """Return claims to the inbox; says of each: returned, or lapsed."""
        names = {
            "agent": receiver.agent,
            "messages": [c.message for c in claims],
            "claims": [c.nonce for c in claims],
            "generation": generation,
            "delay_s": delay_s,
        }
        rows = await self._rows("give_back", names)
        self._settled(receiver.agent, claims)
        self.wake([receiver.agent])
        return [outcome for _, outcome in rows]

    def wake(self, agents: Sequence[UUID] | None) -> None:
        """Let those who wait for agents look again; None: all."""
        for agent in list(self._waiting) if agents is None else agents:
            for event in self._waiting.get(agent, ()):
                event.set()

    @contextlib.contextmanager
    def watched(self, agent: UUID, told: Callable[[Sequence[str]], None]) -> Iterator[None]:
        """Have somebody told of an agent's claims that are not held any more."""
        self._watching.setdefault(agent, set()).add(told)
        try:
            yield
        finally:
            watching = self._watching[agent]
            watching.discard(told)
            if not watching:
                del self._watching[agent]

    def _settled(self, agent: UUID, claims: Sequence[ClaimId]) -> None:
        for told in self._watching.get(agent, ()):
            told([str(claim) for claim in claims])

    async def listen(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Wake who waits as the database says that something has come, until the connection breaks."""
        await conn.execute(f"LISTEN {CHANNEL}".encode())
        self.wake(None)  # what came while nobody listened
        async for told in conn.notifies():
            self.wake([UUID(each) for each in told.payload.split(",")] if told.payload else None)

    async def tell(self) -> None:
        """Take what is done out of the inboxes and tell the other regions, for as long as there is any.

        When it returns all of that is committed, what another call had begun to tell as well.
        """
        async with self._telling:
            while self._done:
                taken, self._done = self._done[:_TELL_MOST], self._done[_TELL_MOST:]
                names = {"agents": [agent for agent, _ in taken], "messages": [each for _, each in taken]}
                try:
                    await self._rows("settle_done", names)
                except psycopg.Error:
                    self._done = taken + self._done
                    raise

    async def run_tell(self) -> None:
        """Tell about every 0.2 s, until cancelled."""
        while True:
            await asyncio.sleep(_TELL_S)
            with contextlib.suppress(psycopg.Error):  # the database is away: later
                await self.tell()

    @contextlib.contextmanager
    def _woken(self, agent: UUID) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._waiting.setdefault(agent, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting[agent]
            waiting.discard(event)
            if not waiting:
                del self._waiting[agent]

    async def _wait(self, woken: asyncio.Event, for_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                await woken.wait()

    async def _due_s(self, receiver: Receiver) -> float:
        """Return after how long something may become claimable by itself."""
        ((due_s,),) = await self._rows("next_claimable", {"agent": receiver.agent})
        return _LOOK_S if due_s is None else min(max(due_s, 0.01), _LOOK_S)

    async def _claim(self, asked: Sequence[_Claiming]) -> list[list[Claimed]]:
        told = [
            {
                "agent": str(each.receiver.agent),
                "tenant": str(each.receiver.tenant),
                "zone": each.receiver.zone,
                "generation": each.generation,
                "limit": each.limit,
                "hold_s": each.hold_s,
            }
            for each in asked
        ]
        given: list[list[Claimed]] = [[] for _ in asked]
        names = {"asked": json.dumps(told), "max_attempts": MAX_ATTEMPTS}
        for n, nonce, attempt, deadline, message_id, message in await self._rows("claim", names):
            claim = ClaimId(asked[n].generation, message_id, nonce)
            given[n].append(Claimed(str(claim), msgspec.Raw(message.encode()), attempt, deadline))
            if attempt > 1:
                self._counted.redelivered(1)
        return given

    async def _untake(self, asked: _Claiming, claims: Sequence[Claimed]) -> None:
        """Give back what nobody was told of, if that can be done; else it comes again when its hold ends."""
        held = [ClaimId.parse(each.claim) for each in claims]
        if held:
            with contextlib.suppress(psycopg.Error):
                await self.give_back(asked.receiver, held, asked.generation, 0)

    async def _acknowledge(self, asked: Sequence[tuple[UUID, ClaimId]]) -> list[str]:
        names = {
            "agents": [agent for agent, _ in asked],
            "messages": [claim.message for _, claim in asked],
            "claims": [claim.nonce for _, claim in asked],
            "generations": [claim.generation for _, claim in asked],
        }
        outcomes: list[str] = []
        now_us = time.time_ns() // 1000
        for (agent, claim), (_, outcome, accepted_us) in zip(
            asked, await self._rows("acknowledge", names), strict=True
        ):
            outcomes.append(outcome)
            if outcome == "done":
                self._done.append((agent, claim.message))
                self._counted.acknowledged(max(now_us - accepted_us, 0) / 1e6)
        return outcomes

    async def _rows(self, query: str, names: dict[str, Any]) -> list[tuple[Any, ...]]:
        async with self._pool.connection(timeout=_POOL_S) as conn:
            return await (await conn.execute(_QUERIES[query].encode(), names)).fetchall()


async def tidied(conn: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """Look through all deliveries once for what nobody asks for, yielding after every part."""
    after: UUID | None = None
    while True:
        names = {"after": after, "max_attempts": MAX_ATTEMPTS}
        row = await (await conn.execute(_QUERIES["tidy"].encode(), names)).fetchone()
        after = row[0] if row else None
        if after is None:
            return
        yield
