"""How a drill that is told to end ends: it undoes its fault, and removes what it made."""

from __future__ import annotations

import signal

__all__ = ["end_on_sigterm"]


def end_on_sigterm() -> None:
    """Have SIGTERM end this program as Ctrl-C does, which asyncio waits for.

    Raised anywhere in a loop of asyncio it came out as some other error, and a suite went on. A shell has
    what it runs in the background ignore SIGINT; then neither did anything.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
