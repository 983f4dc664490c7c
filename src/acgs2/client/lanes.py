"""Which messages are worked on at once: one of each conversation, in the order in which they came. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Lanes"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Lanes(Generic[K, T]):
    """What waits behind what; a lane exists while something of it is being worked on."""

    def __init__(self) -> None:
        self._waiting: dict[K, deque[T]] = {}
        self._size = 0

    def __len__(self) -> int:
        """Return how many are worked on or wait."""
        return self._size

    def put(self, lane: K, item: T) -> bool:
        """Add an item; returns whether it is to be begun now."""
        self._size += 1
        waiting = self._waiting.get(lane)
        if waiting is None:
            self._waiting[lane] = deque()
            return True
        waiting.append(item)
        return False

    def next(self, lane: K) -> T | None:
        """Note that the item in work is done; return the one to be begun after it, None if there is none."""
        self._size -= 1
        waiting = self._waiting[lane]
        if waiting:
            return waiting.popleft()
        del self._waiting[lane]
        return None
