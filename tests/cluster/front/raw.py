"""Requests as bytes over TLS: what no client library would send."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

__all__ = ["CLOSED", "CRLF", "Answer", "Caller", "Door", "answer_on", "bearer", "post", "request"]

CRLF = b"\r\n"
Headers = Iterable[tuple[bytes, bytes]]
#: How a connection that the other side ended shows itself.
CLOSED = (ConnectionError, ssl.SSLError, EOFError)


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 where the connection was closed without a word."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """Return the problem document that it must be."""
        assert self.headers.get("content-type") == "application/problem+json", (
            self.status,
            self.headers,
            self.body,
        )
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status, found
        assert {"type", "title", "detail"} <= found.keys(), found
        assert found["detail"], found
        return found

    @property
    def json(self) -> dict[str, Any]:
        """Return the document of an answer that is none of a refusal."""
        assert self.status < 300, self
        found: dict[str, Any] = json.loads(self.body)
        return found

    def refused(self, *, closed: bool = False) -> str:
        """Assert that it is a refusal, and return its reference; with `closed`, none at all is one too."""
        if closed and self.status == 0:
            return "closed"
        assert 400 <= self.status < 500, (self.status, self.headers, self.body)
        return str(self.problem["type"]).rpartition("/")[2]


@dataclass(frozen=True)
class Door:
    """A way in: the edge or a gateway."""

    name: str
    port: int
    trust: Path

    def tcp(self, timeout_s: float = 10) -> socket.socket:
        """Return a connection without TLS."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def context(self, *protocols: str) -> ssl.SSLContext:
        """Return what is trusted, and what is offered by ALPN."""
        found = ssl.create_default_context(cafile=str(self.trust))
        if protocols:
            found.set_alpn_protocols(list(protocols))
        return found

    def tls(
        self,
        *protocols: str,
        name: str = "localhost",
        timeout_s: float = 10,
        context: ssl.SSLContext | None = None,
    ) -> ssl.SSLSocket:
        """Return a connection with TLS."""
        return (context or self.context(*protocols)).wrap_socket(self.tcp(timeout_s), server_hostname=name)

    def say(self, data: bytes, method: str = "POST", *, timeout_s: float = 10) -> Answer:
        """Send bytes over a new connection and return the answer to them."""
        with self.tls("http/1.1", timeout_s=timeout_s) as sock:
            with suppress(CLOSED):  # before all was sent: the answer may be there all the same
                sock.sendall(data)
            return answer_on(sock, method)


def answer_on(sock: socket.socket, method: str = "POST") -> Answer:
    """Return the next answer on a connection."""
    response = HTTPResponse(sock, method=method)
    try:
        response.begin()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    except (HTTPException, *CLOSED) as error:
        if isinstance(error, HTTPException) and "closed connection" not in str(error) and str(error):
            raise
        return Answer(0, {}, b"")
    finally:
        response.close()


def request(
    target: bytes,
    headers: Headers = (),
    *,
    method: bytes = b"GET",
    version: bytes = b"HTTP/1.1",
    host: bytes | None = b"localhost",
) -> bytes:
    """Return the head of a request."""
    lines = [method + b" " + target + b" " + version]
    if host is not None:
        lines.append(b"Host: " + host)
    lines += [name + b": " + value for name, value in headers]
    return CRLF.join(lines) + CRLF + CRLF


def post(
    token: str,
    headers: Headers = (),
    body: bytes = b'{"name": "evil"}',
    *,
    zone: bytes | None = b"eu",
    kind: bytes | None = b"application/json",
    length: bytes | None = b"",
    **rest: Any,
) -> bytes:
    """Return a request that would store a tenant, if it were not for what is wrong with it."""
    found = [(b"Authorization", b"Bearer " + token.encode())]
    found += [(b"x-data-sovereignty", zone)] if zone is not None else []
    found += [(b"Content-Type", kind)] if kind is not None else []
    found += [(b"Content-Length", length or str(len(body)).encode())] if length is not None else []
    target = rest.pop("target", b"/api/v1/tenants")
    return request(target, [*found, *headers], method=rest.pop("method", b"POST"), **rest) + body


def bearer(token: str) -> tuple[bytes, bytes]:
    """Return the header that a token is sent in."""
    return (b"Authorization", b"Bearer " + token.encode())


@dataclass
class Caller:
    """Somebody with a token, at one way in."""

    door: Door
    token: str

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> Answer:
        """Send a request about records and return its answer."""
        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        length = None if not body else b""
        data = post(
            self.token,
            given,
            body.encode(),
            method=method.encode(),
            target=f"/api/v1/{path}".encode(),
            length=length,
        )
        return self.door.say(data, method)
