"""Other programs at the far end of a connection: one that answers what it is told, one that loses answers."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

#: Instead of an answer: reset the connection, or say nothing until the other side gives up.
RESET, SILENCE = b"reset", b"silence"


@dataclass
class Heard:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def region(self) -> str:
        return self.headers["x-region-preference"]


def read_message(stream: Any) -> tuple[bytes, bytes] | None:
    """Return head and body of an HTTP/1.1 message as they came; None at the end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        head += line
    fields = headers_of(head)
    if fields.get("transfer-encoding") == "chunked":
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += stream.readline()
        return head, body
    return head, stream.read(int(fields.get("content-length", 0)))


def headers_of(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}


def answer(
    status: int, body: Any = None, headers: dict[str, str] | None = None, *, kind: str = "application/json"
) -> bytes:
    """Return an answer as it goes over the wire."""
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"content-length": str(len(raw)), "content-type": kind, **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + raw


def problem(status: int, reference: str, headers: dict[str, str] | None = None, **members: Any) -> bytes:
    body = {"type": f"https://acgs2.example/problems/{reference}", "detail": "It went wrong.", **members}
    return answer(status, body, headers, kind="application/problem+json")


def reset(connection: socket.socket) -> None:
    """Close so that the other side is told of an error, not of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def _running(server: _Server) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


class Scripted(_Server):
    """Plays raw answers in the order in which they stand, and the last one again and again."""

    def __init__(self, *script: bytes) -> None:
        self.script = list(script)
        self.heard: list[Heard] = []
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), _Play)


class _Play(socketserver.StreamRequestHandler):
    server: Scripted

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while (message := read_message(self.rfile)) is not None:
                head, body = message
                method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                self.server.heard.append(Heard(method, path, headers_of(head), body))
                script = self.server.script
                line = script.pop(0) if len(script) > 1 else script[0]
                if line == RESET:
                    return reset(self.connection)
                if line == SILENCE:
                    self.server.over.wait(10)
                    return None
                self.wfile.write(line)
                if b"content-length" not in line:
                    return None
        return None


@contextmanager
def playing(*script: bytes) -> Iterator[Scripted]:
    server = Scripted(*script)
    with _running(server):
        yield server
        server.over.set()


class Lossy(_Server):
    """Stands before servers; of requests that it is told to lose, it has the answer made and throws it away.

    Before several regions it is an edge of the worst kind: who names no region is sent to another each time.
    """

    def __init__(self, regions: Mapping[str, str]) -> None:
        self.regions = dict(regions)
        self.lose: Callable[[Heard], bool] = lambda _: False
        self.lost: list[Heard] = []
        self.passed: list[Heard] = []
        self._turns = itertools.cycle(regions)
        super().__init__(("127.0.0.1", 0), _Pass)

    def answer(self, heard: Heard, message: bytes) -> bytes | None:
        """Have an answer made; behind an edge it says by whom."""
        one = len(self.regions) == 1
        region = next(self._turns) if one or heard.region == "auto" else heard.region
        host, _, port = self.regions[region].removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port))) as there, there.makefile("rb") as stream:
            there.sendall(message)
            made = read_message(stream)
        if made is None:
            return None
        name = b"" if one else f"x-acgs2-region: {region}\r\n\r\n".encode()
        return made[0].removesuffix(b"\r\n") + name + made[1] if name else made[0] + made[1]


class _Pass(socketserver.StreamRequestHandler):
    server: Lossy

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while (message := read_message(self.rfile)) is not None:
                head, body = message
                method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                heard = Heard(method, path, headers_of(head), body)
                made = self.server.answer(heard, head + body)
                if made is None:
                    return
                if self.server.lose(heard):
                    self.server.lost.append(heard)
                    reset(self.connection)
                    return
                self.server.passed.append(heard)
                self.wfile.write(made)


@contextmanager
def losing(upstream: str | Mapping[str, str]) -> Iterator[Lossy]:
    server = Lossy({"one": upstream} if isinstance(upstream, str) else upstream)
    with _running(server):
        yield server
