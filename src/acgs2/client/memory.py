"""What a consumer remembers of the messages that it was given, so that each is worked on once: pure."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from uuid import UUID

__all__ = ["Before", "Memory"]


class Before(Enum):
    """What is remembered of a message."""

    NEW = "new"
    OPEN = "open"
    DONE = "done"


class Memory:
    """Which messages are being worked on, and which of the last ones are done with.

    Args:
        most: how many that are done with are remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[UUID] = set()
        self._done: OrderedDict[UUID, None] = OrderedDict()

    def take(self, message: UUID) -> Before:
        """Return what is remembered of a message that was given; a new one is being worked on from now."""
        if message in self._done:
            self._done.move_to_end(message)
            return Before.DONE
        if message in self._open:
            return Before.OPEN
        self._open.add(message)
        return Before.NEW

    def done(self, message: UUID) -> None:
        """Note that a message is done with; the one that was met the longest ago may be forgotten for it."""
        self._open.discard(message)
        self._done[message] = None
        self._done.move_to_end(message)
        while len(self._done) > self._most:
            self._done.popitem(last=False)

    def forget(self, message: UUID) -> None:
        """Note that a message was not worked on, and is to be when it comes again."""
        self._open.discard(message)
