"""A stream of claims to one consumer: as many at once as it has said that it takes, and no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

import anyio
import psycopg

from acgs2.bus.claims import ClaimId
from acgs2.bus.desk import Claimed, Desk, Receiver

__all__ = ["Flow", "Streams"]

#: How many are claimed for a stream at once.
_PART = 20
_FULL_S = 1.0
#: How long it is tried to give back what a stream held; else it comes again when its hold ends.
_GOODBYE_S = 3.0


class Flow:
    """One consumer's stream.

    Args:
        desk: where claims are made.
        receiver: whose inbox.
        require: see `Desk.claim`.
        credit: how many claims it holds at once at most; may be changed.
        hold_s: for how long each is held.
        idle_s: after how long without a claim that is said.
    """

    def __init__(
        self,
        desk: Desk,
        receiver: Receiver,
        require: Callable[[int | None], int],
        *,
        credit: int,
        hold_s: float,
        idle_s: float,
    ) -> None:
        self._desk = desk
        self.receiver = receiver
        self._require = require
        self._credit = credit
        self._hold_s = hold_s
        self._idle_s = idle_s
        self._held: dict[str, datetime] = {}
        self._room = asyncio.Event()
        self._ended = False
        #: The claim that was given last, by which a consumer that comes back names the stream that broke.
        self.last: str | None = None
        self.generation = 0

    @property
    def held(self) -> list[ClaimId]:
        """Return the claims that this consumer has not done with, the oldest first."""
        return [ClaimId.parse(claim) for claim in self._held]

    def credit(self, credit: int) -> None:
        """Change how many claims the consumer holds at once at most."""
        self._credit = credit
        self._room.set()

    def settled(self, claims: Sequence[str]) -> None:
        """Make room: the consumer does not hold these any more."""
        for claim in claims:
            self._held.pop(claim, None)
        self._room.set()

    async def end(self) -> None:
        """Give nothing more, and give back what the consumer holds; safe to repeat."""
        self._ended = True
        self._room.set()
        self._desk.wake([self.receiver.agent])
        if self._held:
            await self._desk.give_back(self.receiver, self.held, self.generation, 0)

    async def claims(self) -> AsyncGenerator[Claimed | None, None]:
        """Yield claims as they are made, or None after a while without any, until it is ended.

        Raises:
            AcgsError: this region does not serve the inbox any more, or does not govern.
        """
        with self._desk.watched(self.receiver.agent, self.settled):
            quiet_s = 0.0
            while not self._ended:
                room = self._free(datetime.now(UTC))
                if room <= 0:
                    self._require(self.generation or None)
                    quiet_s += await self._full(_FULL_S)
                    if quiet_s >= self._idle_s:
                        quiet_s = 0.0
                        yield None
                    continue
                quiet_s = 0.0
                generation, claims = await self._desk.claim(
                    self.receiver,
                    min(room, _PART),
                    self._hold_s,
                    self._idle_s,
                    self._require,
                    lambda: self._ended,
                )
                if generation != self.generation:
                    self.generation = generation
                    self._held.clear()  # what an older one gave out is given out anew
                for claim in claims:
                    self._held[claim.claim] = claim.deadline
                for claim in claims:
                    self.last = claim.claim
                    yield claim
                if not claims:
                    yield None

    def _free(self, now: datetime) -> int:
        for claim in [c for c, deadline in self._held.items() if deadline <= now]:
            del self._held[claim]
        return self._credit - len(self._held)

    async def _full(self, for_s: float) -> float:
        self._room.clear()
        began_s = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                await self._room.wait()
        return asyncio.get_running_loop().time() - began_s


class Streams:
    """The streams that are open here, so that one that its consumer has left is ended when it comes back."""

    def __init__(self) -> None:
        self._open: set[Flow] = set()

    @contextlib.asynccontextmanager
    async def opened(self, flow: Flow, after: str | None) -> AsyncIterator[None]:
        """Have a stream open, and end it then.

        Args:
            flow: the stream.
            after: the last claim that the consumer got from a stream that broke, if it says so. Where that
                one is open still, because a connection can be gone unnoticed, it is ended first.
        """
        if after is not None:
            for left in [each for each in self._open if (each.receiver, each.last) == (flow.receiver, after)]:
                await left.end()
        self._open.add(flow)
        try:
            yield
        finally:
            self._open.discard(flow)
            # Who is gone is known by a cancellation, which would end this too.
            with anyio.move_on_after(_GOODBYE_S, shield=True), contextlib.suppress(psycopg.Error):
                await flow.end()
