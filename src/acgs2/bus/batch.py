"""Many small requests that share one statement: what comes while one is under way goes with the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar, cast

__all__ = ["Batch"]

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


class Batch(Generic[Ask, Answer]):
    """Carries requests out together, at most so many at once, in the order in which they came.

    Args:
        carry: takes requests, returns an answer for each.
        most: how many go together.
        lanes: how many batches are under way at once.
        unheard: told of an answer that who asked did not wait for; must not raise.
    """

    def __init__(
        self,
        carry: Callable[[Sequence[Ask]], Awaitable[Sequence[Answer]]],
        *,
        most: int = 64,
        lanes: int = 2,
        unheard: Callable[[Ask, Answer], Awaitable[None]] | None = None,
    ) -> None:
        self._carry = carry
        self._unheard = unheard
        self._most = most
        self._lanes = lanes
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, request: Ask) -> Answer:
        """Return the answer to one request, or raise what went wrong with its batch."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if len(self._running) < self._lanes:
            self._running.add(asyncio.create_task(self._run()))
        return await answer

    async def _run(self) -> None:
        try:
            await self._carry_all()
        finally:
            # At once: whoever asks from here on finds a lane free, and starts anew.
            self._running.discard(cast(asyncio.Task[None], asyncio.current_task()))

    async def _carry_all(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            taken = [(request, waiter) for request, waiter in taken if not waiter.done()]  # who went away
            if not taken:
                continue
            try:
                answers = await self._carry([request for request, _ in taken])
            except Exception as error:  # noqa: BLE001 - each of those who asked is told
                for _, waiter in taken:
                    if not waiter.done():
                        waiter.set_exception(error)
                continue
            unheard: list[tuple[Ask, Answer]] = []
            for (request, waiter), answer in zip(taken, answers, strict=True):
                if waiter.done():
                    unheard.append((request, answer))
                else:
                    waiter.set_result(answer)
            if self._unheard is not None:
                for request, answer in unheard:
                    await self._unheard(request, answer)
