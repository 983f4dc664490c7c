"""The relay: TCP connections whose bytes wait in a queue for as long as the distance asks."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from acgs2.local.links.config import RouteSpec
from acgs2.local.links.line import Line

__all__ = ["Route"]

#: Bytes on their way in one direction of a connection before its sender has to wait.
WINDOW_BYTES = 16 * 1024 * 1024
#: Connections that come at once and wait to be taken; the kernel has its own limit as well.
_BACKLOG = 4096
#: The event loop's clock and timers count milliseconds: what is due within half of one is due.
_TICK_S = 0.0005


class _Flow:
    """The bytes of one connection in one direction."""

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        self._line = line
        self._loop = loop
        self._queue: deque[tuple[float, bytes | None]] = deque()
        self._held = 0
        self._last_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._blocked = False
        self._paused = False
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None

    def feed(self, data: bytes | None) -> None:
        """Take bytes in, or None for the end of them."""
        now_s = self._loop.time()
        # Bytes may not overtake each other, whatever jitter says.
        self._last_s = max(self._last_s, self._line.due_s(now_s, len(data) if data else 0))
        self._queue.append((self._last_s, data))
        self._held += len(data) if data else 0
        if self._held > WINDOW_BYTES and not self._paused and self.source is not None:
            self._paused = True
            self.source.pause_reading()
        self.pump()

    def block(self, blocked: bool) -> None:
        """Stop or go on writing; the sink's buffer is full or free again."""
        self._blocked = blocked
        if not blocked:
            self.pump()

    def pump(self) -> None:
        """Deliver what is due; arm a timer for the rest. A cut line delivers nothing."""
        if self.sink is None or self._blocked or self._line.cut:
            return
        due_s = self._loop.time() + _TICK_S
        while self._queue and self._queue[0][0] <= due_s and not self._blocked:
            _, data = self._queue.popleft()
            if self.sink.is_closing():
                continue
            if data is None:
                if self.sink.can_write_eof():
                    self.sink.write_eof()
                continue
            self._held -= len(data)
            self.sink.write(data)
        if self._paused and self._held <= WINDOW_BYTES // 2 and self.source is not None:
            self._paused = False
            if not self.source.is_closing():
                self.source.resume_reading()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue and not self._blocked:
            self._timer = self._loop.call_at(self._queue[0][0], self.pump)

    def stop(self) -> None:
        """Forget everything."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()


class _End(asyncio.Protocol):
    """One end of a relayed connection."""

    def __init__(self, out: _Flow, back: _Flow, lost: Callable[[], None]) -> None:
        self._out = out
        self._back = back
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's own class, of the same shape
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._out.source = transport
        self._back.sink = transport
        self._back.pump()

    def data_received(self, data: bytes) -> None:
        self._out.feed(data)

    def eof_received(self) -> bool:
        self._out.feed(None)
        return True

    def pause_writing(self) -> None:
        self._back.block(True)

    def resume_writing(self) -> None:
        self._back.block(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


@dataclass(eq=False)
class _Connection:
    there: _Flow
    back: _Flow
    ends: list[asyncio.Transport] = field(default_factory=list)
    lines: tuple[Line, Line] | None = None
    closing: bool = False


class Route:
    """A listening port of the links process."""

    def __init__(self, spec: RouteSpec, there: Line, back: Line) -> None:
        self.spec = spec
        self._there = there
        self._back = back
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.accepted = 0

    @property
    def connections(self) -> int:
        """Return how many connections are open."""
        return len(self._open)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._accept, "127.0.0.1", self.spec.listen_port, backlog=_BACKLOG
        )

    def _accept(self) -> _End:
        loop = asyncio.get_running_loop()
        connection = _Connection(_Flow(self._there, loop), _Flow(self._back, loop))
        connection.lines = (self._there, self._back)
        self._open.add(connection)
        self.accepted += 1
        task = loop.create_task(self._reach(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return _End(connection.there, connection.back, lambda: self._lost(connection))

    async def _reach(self, connection: _Connection) -> None:
        """Connect to the target after the way there; a refusal is known after the way back."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._there.delay_s)
        while self._there.cut or self._back.cut:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # a cut has no end that could be waited for
        try:
            await loop.create_connection(
                lambda: _End(connection.back, connection.there, lambda: self._lost(connection)),
                "127.0.0.1",
                self.spec.target_port,
            )
        except OSError:
            await asyncio.sleep(self._back.delay_s)
            self._lost(connection)

    def _lost(self, connection: _Connection) -> None:
        """Close the other end as well, after what is under way has had time to arrive."""
        if connection.closing:
            return
        connection.closing = True
        asyncio.get_running_loop().call_later(
            max(self._there.delay_s, self._back.delay_s), self._close, connection
        )

    def _close(self, connection: _Connection) -> None:
        if self._there.cut or self._back.cut:
            # A partition tells nobody: the end that is still open stays so until the link is restored.
            asyncio.get_running_loop().call_later(0.05, self._close, connection)
            return
        for flow in (connection.there, connection.back):
            flow.pump()
            for end in (flow.source, flow.sink):
                if end is not None:
                    end.close()
            flow.stop()
        self._open.discard(connection)

    def kick(self) -> None:
        """Go on delivering after a line was restored."""
        for connection in list(self._open):
            connection.there.pump()
            connection.back.pump()

    def close(self) -> None:
        """Listen no more, and end every connection."""
        if self._server is not None:
            self._server.close()
        self.reset()

    def reset(self) -> None:
        """Kill every connection with a reset, as a middlebox does that forgot them."""
        linger = struct.pack("ii", 1, 0)
        for connection in list(self._open):
            for flow in (connection.there, connection.back):
                if flow.source is not None and not flow.source.is_closing():
                    sock: socket.socket = flow.source.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    flow.source.abort()
                flow.stop()
            self._open.discard(connection)
