"""Whether a call may still be made: whoever does not lead any more changes nothing outside."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["May", "anybody"]

#: Asked before every call; raises where it is not to be made.
May = Callable[[], None]


def anybody() -> None:
    """Let every call be made: somebody at a terminal asks for it."""
