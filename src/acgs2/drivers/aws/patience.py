"""How long somebody waits, and what was tried in vain meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Patience", "Try"]


@dataclass(frozen=True, slots=True)
class Try:
    """A call without a good answer, and how long was waited before the next one."""

    operation: str
    number: int
    reason: str
    pause_s: float


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for what.

    Args:
        deadline_s: for everything up to the last change, and once more for what comes after.
        base_s: the longest pause after the first failure; it doubles with every further one.
        cap_s: the longest pause at all.
        settle_s: for what was changed to be so everywhere.
        poll_s: between two looks at that.
    """

    deadline_s: float = 120.0
    base_s: float = 0.5
    cap_s: float = 20.0
    settle_s: float = 300.0
    poll_s: float = 2.0
