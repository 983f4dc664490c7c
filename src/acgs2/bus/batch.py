"""Many small requests that share one statement: what comes while one is under way goes with the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Batch"]

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


class Batch(Generic[Ask, Answer]):
    """Carries requests out together, at most so many at once, in the order in which they came.

    Args:
        carry: takes requests, returns an answer for each.
        most: how many go together.
        lanes: how many batches are under way at once.
    """

    def __init__(
        self, carry: Callable[[Sequence[Ask]], Awaitable[Sequence[Answer]]], *, most: int = 64, lanes: int = 2
    ) -> None:
        self._carry = carry
        self._most = most
        self._lanes = lanes
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, request: Ask) -> Answer:
        """Return the answer to one request, or raise what went wrong with its batch."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if len(self._running) < self._lanes:
            task = asyncio.create_task(self._run())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await answer

    async def _run(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                answers = await self._carry([request for request, _ in taken])
            except Exception as error:  # noqa: BLE001 - each of those who asked is told
                for _, waiter in taken:
                    if not waiter.done():
                        waiter.set_exception(error)
                continue
            for (_, waiter), answer in zip(taken, answers, strict=True):
                if not waiter.done():
                    waiter.set_result(answer)
