"""A bounded queue that takes turns between tenants, and within a tenant begins with the most urgent."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from acgs2.errors import OverloadedError

__all__ = ["PRIORITIES", "FairQueue"]

T = TypeVar("T")
#: 0 to 3; 3 is the most urgent.
PRIORITIES = 4


class FairQueue(Generic[T]):
    """What waits, by tenant and priority.

    One tenant's burst delays another's message by one turn at most, whatever priority it claims: urgency
    orders what one tenant sends, never tenants among each other.

    Args:
        limit: how many items wait at most.
        tenant_limit: how many of them one tenant may have.
    """

    def __init__(self, limit: int, tenant_limit: int) -> None:
        self._limit = limit
        self._tenant_limit = tenant_limit
        self._size = 0
        self._waiting: OrderedDict[str, tuple[deque[T], ...]] = OrderedDict()

    def __len__(self) -> int:
        return self._size

    def put(self, tenant: str, priority: int, item: T) -> None:
        """Add an item.

        Raises:
            OverloadedError: the queue is full (`overloaded`), or the tenant has its part of it
                (`tenant-overloaded`).
        """
        if self._size >= self._limit:
            raise OverloadedError(
                "overloaded", "The region takes in no more now.", hint="Send it again after Retry-After."
            )
        lanes = self._waiting.get(tenant)
        if lanes is None:
            lanes = self._waiting[tenant] = tuple(deque() for _ in range(PRIORITIES))
        elif sum(map(len, lanes)) >= self._tenant_limit:
            raise OverloadedError(
                "tenant-overloaded",
                "The tenant has as much under way as one tenant may have.",
                hint="Send it again after Retry-After, or fewer at once.",
            )
        lanes[priority].append(item)
        self._size += 1

    def take(self, count: int) -> list[T]:
        """Take out up to so many items, one of each tenant in turn."""
        taken: list[T] = []
        while self._size and len(taken) < count:
            tenant, lanes = next(iter(self._waiting.items()))
            lane = next(lane for lane in reversed(lanes) if lane)
            taken.append(lane.popleft())
            self._size -= 1
            if any(lanes):
                self._waiting.move_to_end(tenant)
            else:
                del self._waiting[tenant]
        return taken
