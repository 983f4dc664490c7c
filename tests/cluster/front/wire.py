"""What is said on a connection that is no TLS, or no HTTP/2; and how connections end."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

from tests.cluster.front.raw import CLOSED, Door, request

__all__ = ["HTTP2", "NO_TLS", "goes_on", "hello_of", "rest_of"]

RECORD = bytes.fromhex("160301020001fc0303")
NO_TLS = {
    "garbage": b"\x00\xff" * 300,
    "half a record": RECORD + b"\x00" * 40,
    "a record that is too long": b"\x16\x03\x01\xff\xff" + b"\x00" * 70_000,
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "data before the handshake": b"\x17\x03\x03\x00\x10" + b"a" * 16,
    "SSL 2": bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0") + b"a" * 16,
    "plain HTTP": request(b"/health"),
    "HTTP/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "nothing": b"",
}


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


#: GET https://localhost/health/live, by HPACK's static table.
GET = bytes((0x82, 0x87, 0x44, 12)) + b"/health/live" + bytes((0x41, 9)) + b"localhost"
HELLO = PREFACE + _frame(4)
HTTP2 = {
    "garbage after the preface": PREFACE + b"\xde\xad\xbe\xef" * 500,
    "half a preface and HTTP/1": PREFACE[:10] + request(b"/health"),
    "a frame of 16 MB": HELLO + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + b"a" * 1000,
    "headers on stream 0": HELLO + _frame(1, 5, 0, GET),
    "headers on an even stream": HELLO + _frame(1, 5, 2, GET),
    "bad HPACK": HELLO + _frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
    "data for no stream": HELLO + _frame(0, 1, 1, b"a" * 100),
    "a window that overflows": HELLO + _frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "odd settings": HELLO + _frame(4, 0, 0, b"\x00\x04\xff\xff\xff\xff"),
    "headers without end": HELLO
    + _frame(1, 1, 1, GET)
    + _frame(9, 0, 1, b"\x40\x01x\x7f\x81\x7f" + b"a" * 256) * 400,
    "rapid reset": HELLO
    + b"".join(_frame(1, 5, n, GET) + _frame(3, 0, n, b"\0\0\0\x08") for n in range(1, 12000, 2)),
    "settings without end": HELLO + _frame(4) * 20_000,
    "pings without end": HELLO + _frame(6, 0, 0, b"a" * 8) * 20_000,
    "empty data without end": HELLO + _frame(1, 4, 1, GET) + _frame(0, 0, 1) * 20_000,
}


def rest_of(sock: socket.socket) -> bytes:
    """Return everything until the other side closes."""
    said = b""
    with suppress(CLOSED):
        while data := sock.recv(65536):
            said += data
    return said


def hello_of(door: Door) -> bytes:
    """Return what a client begins its handshake with."""
    out = ssl.MemoryBIO()
    half = door.context("h2").wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        half.do_handshake()
    return out.read()


def goes_on(sock: ssl.SSLSocket, data: bytes) -> bool:
    """Send what can be sent; return whether the connection is still open."""
    try:
        sock.send(data)
    except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
        return True
    except CLOSED:
        return False
    return True
