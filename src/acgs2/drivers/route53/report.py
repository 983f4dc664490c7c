"""What was done, and what was tried in vain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from acgs2.drivers.aws import Try
from acgs2.drivers.dns import Gap

__all__ = ["Call", "Report"]


@dataclass(frozen=True, slots=True)
class Call:
    """A call that changes something: its operation, what it does in words and line by line, what is sent."""

    operation: str
    does: str
    sent: Mapping[str, Any]
    lines: tuple[str, ...] = ()


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
