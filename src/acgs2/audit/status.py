"""What is known of a region's own log while it runs: how far it is, and how far witnesses vouch for it."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ENOUGH", "LogStatus", "enough"]

#: By how many other regions a checkpoint is cosigned before it counts as witnessed.
ENOUGH = 2


def enough(others: int) -> int:
    """Return how many cosignatures count as witnessed: two, or as many as there are other regions."""
    return min(ENOUGH, others)


@dataclass(slots=True)
class LogStatus:
    """The newest checkpoint, the newest witnessed one, and who cosigned what last."""

    needed: int = 0
    log: int = 0
    origin: str = ""
    size: int = 0
    witnessed: int = 0
    #: Why nothing is signed any more, nor governed; empty while all is well.
    damage: str = ""
    #: How long the oldest leaf waits for its place, as far as it is more than a moment.
    lag_us: int = 0
    #: Of each witness the size that it cosigned last, and when (s since the epoch).
    cosigned: dict[str, tuple[int, int]] = field(default_factory=dict)
    _at: dict[int, set[str]] = field(default_factory=dict)

    def begin(self, log: int, origin: str) -> None:
        """Go by another log."""
        self.log, self.origin, self.size, self.witnessed, self.damage = log, origin, 0, 0, ""
        self.cosigned, self._at = {}, {}

    def count(self, size: int, witness: str, time_s: int) -> None:
        """Take a cosignature into account that has been checked."""
        self.cosigned[witness] = max((size, time_s), self.cosigned.get(witness, (0, 0)))
        if size > self.witnessed:
            self._at.setdefault(size, set()).add(witness)
            if len(self._at[size]) >= self.needed:
                self.witnessed = size
                self._at = {s: names for s, names in self._at.items() if s > size}

    def grew(self, size: int) -> None:
        """Note the newest checkpoint's size."""
        self.size = size
        if self.needed == 0:
            self.witnessed = size
