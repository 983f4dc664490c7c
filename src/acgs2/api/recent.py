"""Questions that many ask and that are answered once: probes and scrapes must not become the load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

__all__ = ["Recent"]

_GOODBYE_S = 1.0
Answer = TypeVar("Answer")


class Recent(Generic[Answer]):
    """An answer that is at most so old, worked out once for all who ask meanwhile.

    Args:
        ask: works it out; what it raises, everybody gets who waits for it.
        max_age_s: how old an answer may be, counted from when it was asked for.
    """

    def __init__(self, ask: Callable[[], Awaitable[Answer]], max_age_s: float) -> None:
        self._ask = ask
        self._max_age_s = max_age_s
        self._asked_s = float("-inf")
        self._task: asyncio.Task[Answer] | None = None

    async def get(self, patience_s: float) -> Answer:
        """Return the answer.

        Raises:
            TimeoutError: there is none yet; whoever asks later may get it.
        """
        task = self._task
        if task is None or (task.done() and time.monotonic() - self._asked_s >= self._max_age_s):
            self._asked_s = time.monotonic()
            task = self._task = asyncio.ensure_future(self._ask())
        if not task.done():
            # Not cancelled with its caller: others may wait for it, and a later one can use it.
            await asyncio.wait({task}, timeout=patience_s)
        if not task.done():
            raise TimeoutError
        return task.result()

    async def close(self) -> None:
        """Give up what is asked now; one who does not even hear that is not waited for."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_GOODBYE_S)
