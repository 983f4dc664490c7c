"""One direction of a link: when bytes handed in now come out at the other end. Pure; time is a parameter."""

from __future__ import annotations

from random import Random

__all__ = ["Line"]


class Line:
    """Delay, jitter, bandwidth and loss of one direction; never reorders a connection's bytes.

    TCP loses no bytes, so a lost segment is what its sender sees: the bytes come a retransmission
    timeout later (RFC 6298: at least 200 ms as common stacks have it, here max(200 ms, 2 round trips)).
    """

    def __init__(
        self,
        rtt_ms: float,
        jitter_ms: float = 0.0,
        bandwidth_mbps: float | None = None,
        loss: float = 0.0,
        *,
        rng: Random,
    ) -> None:
        self.rtt_ms = rtt_ms
        self.jitter_ms = jitter_ms
        self.bandwidth_mbps = bandwidth_mbps
        self.loss = loss
        self.factor = 1.0
        self.cut = False
        self.bytes_carried = 0
        self._rng = rng
        self._free_at_s = 0.0

    @property
    def delay_s(self) -> float:
        """Return the one-way delay without jitter."""
        return self.rtt_ms / 2000 * self.factor

    def due_s(self, now_s: float, size: int) -> float:
        """Return when bytes handed in now are at the other end; `size` in bytes."""
        self.bytes_carried += size
        leaves_s = now_s
        if self.bandwidth_mbps is not None:
            leaves_s = max(now_s, self._free_at_s) + size * 8 / (self.bandwidth_mbps * 1e6)
            self._free_at_s = leaves_s
        due_s = leaves_s + self.delay_s
        if self.jitter_ms:
            due_s += self._rng.random() * self.jitter_ms / 2000 * self.factor
        if self.loss and self._rng.random() < self.loss:
            due_s += max(0.2, 4 * self.delay_s)
        return due_s
