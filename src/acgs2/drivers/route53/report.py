"""What was done, what was tried in vain, and how long somebody waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from acgs2.drivers.dns import Gap

__all__ = ["Call", "Patience", "Report", "Try"]


@dataclass(frozen=True, slots=True)
class Call:
    """A call that changes something: its operation, what it does in words and line by line, what is sent."""

    operation: str
    does: str
    sent: Mapping[str, Any]
    lines: tuple[str, ...] = ()


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
        settle_s: for Route 53 to have a change on all its servers.
        poll_s: between two looks at that.
    """

    deadline_s: float = 120.0
    base_s: float = 0.5
    cap_s: float = 20.0
    settle_s: float = 300.0
    poll_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Report:
    """What an apply did.

    `settled` is false where the answer to a change was lost, so that its way to all servers was not watched.
    """

    calls: tuple[Call, ...]
    tries: tuple[Try, ...]
    gaps: tuple[Gap, ...]
    settled: bool
    dry_run: bool

    @property
    def changed(self) -> bool:
        """Return whether anything was changed, or would be."""
        return bool(self.calls)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "changed": self.changed,
            "dry_run": self.dry_run,
            "settled": self.settled,
            "calls": [asdict(call) for call in self.calls],
            "tries": [asdict(one) for one in self.tries],
            "gaps": [asdict(gap) for gap in self.gaps],
        }
