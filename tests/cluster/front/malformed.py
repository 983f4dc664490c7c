"""What is no request, or one that two readers could understand differently; each would store a tenant."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from tests.cluster.front.raw import CRLF, post, request

__all__ = ["BODIES", "CHUNKS", "HARMLESS", "HEADS", "NAMES", "PATHS"]

Case = Callable[[str], bytes]
_CHUNKED = (b"Transfer-Encoding", b"chunked")


def _chunked(body: bytes, *headers: tuple[bytes, bytes]) -> Case:
    return lambda t: post(t, [_CHUNKED, *headers], body, length=None)


def _with(*headers: tuple[bytes, bytes]) -> Case:
    return lambda t: post(t, headers)


def _replaced(old: bytes, new: bytes) -> Case:
    def made(token: str) -> bytes:
        whole = post(token)
        assert old in whole
        return whole.replace(old, new, 1)

    return made


#: Heads that are refused with words.
HEADS: dict[str, Case] = {
    "33 KiB in one header": _with((b"x-much", b"a" * 33 * 1024)),
    "33 KiB in two headers": _with((b"x-much", b"a" * 17 * 1024), (b"x-more", b"a" * 17 * 1024)),
    "101 headers": _with(*((b"x-%d" % n, b"v") for n in range(101))),
    "NUL in a header": _with((b"x-nul", b"a\x00b")),
    "bell in a header": _with((b"x-bell", b"a\x07b")),
    "underscore in a name": _with((b"x_data_sovereignty", b"eu")),
    "space in a name": _with((b"x bad", b"eu")),
    "space before the colon": _replaced(b"x-data-sovereignty: eu", b"x-data-sovereignty : eu"),
    "no colon": _replaced(b"x-data-sovereignty: eu", b"x-data-sovereignty eu"),
    "empty name": _replaced(b"x-data-sovereignty: eu", b": eu"),
    "two zones": _with((b"x-data-sovereignty", b"us")),
    "the zone twice": _with((b"x-data-sovereignty", b"eu")),
    "two regions": _with((b"x-region-preference", b"eu-west-1"), (b"x-region-preference", b"us-east-1")),
    "two keys": _with((b"idempotency-key", b"a"), (b"idempotency-key", b"b")),
    "two hosts": _with((b"Host", b"elsewhere.example")),
    "no host": lambda t: post(t, host=None),
    "empty host": lambda t: post(t, host=b""),
    "host with a path": lambda t: post(t, host=b"localhost/a b"),
    "length and chunks": lambda t: post(t, [_CHUNKED], b'10\r\n{"name": "evil"}\r\n0\r\n\r\n'),
    "two lengths": _with((b"Content-Length", b"1")),
    "a list of lengths": _replaced(b"Content-Length: 16", b"Content-Length: 16, 16"),
    "negative length": _replaced(b"Content-Length: 16", b"Content-Length: -1"),
    "length with a sign": _replaced(b"Content-Length: 16", b"Content-Length: +16"),
    "length in hex": _replaced(b"Content-Length: 16", b"Content-Length: 0x10"),
    "huge length": _replaced(b"Content-Length: 16", b"Content-Length: 99999999999999999999999"),
    "length of 2^63": _replaced(b"Content-Length: 16", b"Content-Length: 9223372036854775808"),
    "unknown coding": lambda t: post(t, [(b"Transfer-Encoding", b"gzip")], length=None),
    "chunked is not last": lambda t: post(t, [(b"Transfer-Encoding", b"chunked, gzip")], length=None),
    "coding twice": lambda t: post(
        t, [_CHUNKED, _CHUNKED], b'10\r\n{"name": "evil"}\r\n0\r\n\r\n', length=None
    ),
    "disguised chunked": lambda t: post(t, [(b"Transfer-Encoding", b"\x0bchunked")], length=None),
    "HTTP/1.0": lambda t: post(t, version=b"HTTP/1.0"),
    "HTTP/3.0": lambda t: post(t, version=b"HTTP/3.0"),
    "HTTP/0.9": lambda _: b"GET /api/v1/tenants\r\n\r\n",
    "unknown method": lambda t: post(t, method=b"BREW"),
    "no such method here": lambda t: post(t, method=b"PUT"),
    "TRACE": lambda t: post(t, method=b"TRACE"),
    "CONNECT": lambda t: request(b"localhost:443", method=b"CONNECT"),
    "method in small letters": lambda t: post(t, method=b"post"),
    "garbage": lambda _: b"\x16\x03\x01\x02\x00\x01\x00" + b"garbage" * 40 + CRLF * 2,
    "an upgrade": _with((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")),
}
#: Chunks that are none.
CHUNKS: dict[str, Case] = {
    "chunk size is no number": _chunked(b"zz\r\n{}\r\n0\r\n\r\n"),
    "chunk size is negative": _chunked(b"-1\r\n{}\r\n0\r\n\r\n"),
    "chunk size overflows": _chunked(b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
    "chunk is longer than said": _chunked(b'2\r\n{"name": "evil"}\r\n0\r\n\r\n'),
    "trailers without end": _chunked(b'10\r\n{"name": "evil"}\r\n0\r\nx: ' + b"a" * 40_000),
}
PATHS: dict[str, bytes] = {
    "escaped slash": b"/api%2fv1%2ftenants",
    "escaped backslash": b"/api%5cv1%5ctenants",
    "escaped NUL": b"/api/v1/tenants%00",
    "up and out": b"/api/v1/../../../metrics",
    "escaped up": b"/api/v1/%2e%2e/%2e%2e/metrics",
    "metrics": b"/metrics",
    "metrics behind slashes": b"//metrics",
    "metrics with a slash": b"/metrics/",
    "10 KB": b"/api/v1/" + b"a" * 10_000,
    "not ASCII": "/api/v1/mieter/ä".encode(),
    "escaped beyond ASCII": b"/api/v1/%ff%fe",
    "half an escape": b"/api/v1/tenants/%4",
    "fragment": b"/api/v1/nowhere#x",
    "space": b"/api/v1/ten ants",
    "tab": b"/api/v1/ten\tants",
    "an address": b"http://elsewhere.example/api/v1/nowhere",
    "a star": b"*",
    "no slash": b"api/v1/tenants",
    "bad id": b"/api/v1/tenants/not-an-id",
    "bad page": b"/api/v1/tenants?limit=-1",
    "huge page": b"/api/v1/tenants?limit=99999999999999999999",
    "bad next": b"/api/v1/tenants?next=%00",
    "bad tenant": b"/api/v1/tenants?tenant=%27%20OR%201%3D1",
}
BODIES: dict[str, Case] = {
    "over 300 KiB": lambda t: post(t, body=b'{"name": "' + b"a" * 310 * 1024 + b'"}'),
    "over 300 KiB in chunks": _chunked(b"50000\r\n" + b" " * 0x50000 + b"\r\n0\r\n\r\n"),
    "without end": _chunked((b"10000\r\n" + b" " * 0x10000 + b"\r\n") * 16),
    "zip bomb": lambda t: post(t, [(b"Content-Encoding", b"gzip")], gzip.compress(b" " * 10_000_000)),
    "unknown compression": lambda t: post(t, [(b"Content-Encoding", b"br, x-own")]),
    "10 MB": lambda t: post(t, body=b" " * 10_000_000),
    "10 MB in chunks": _chunked(
        b"10000\r\n" + b"\r\n10000\r\n".join([b" " * 0x10000] * 160) + b"\r\n0\r\n\r\n"
    ),
    "deep": lambda t: post(t, body=b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "NULs": lambda t: post(t, body=b"\x00" * 100),
    "NUL in a name": lambda t: post(t, body=b'{"name": "e\\u0000"}'),
    "nothing": lambda t: post(t, body=b"", length=b"0"),
    "not UTF-8": lambda t: post(t, body=b'{"name": "\xff\xfe"}'),
    "UTF-16": lambda t: post(t, body='{"name": "evil"}'.encode("utf-16")),
    "a form": lambda t: post(t, body=b"name=evil", kind=b"application/x-www-form-urlencoded"),
    "a form called JSON": lambda t: post(t, body=b"name=evil"),
    "parts": lambda t: post(t, body=b"--b\r\n\r\nevil\r\n--b--", kind=b"multipart/form-data; boundary=b"),
    "XML": lambda t: post(t, body=b"<name>evil</name>", kind=b"application/xml"),
    "msgpack": lambda t: post(t, body=b"\x81\xa4name\xa4evil", kind=b"application/x-msgpack"),
    "text": lambda t: post(t, kind=b"text/plain"),
    "number that overflows": lambda t: post(t, body=b'{"name": 1e999999}'),
    "long number": lambda t: post(t, body=b'{"name": ' + b"9" * 100_000 + b"}"),
}
#: What HTTP lets a server overlook, as long as there is one way to read it.
HARMLESS: dict[str, Case] = {
    "bare CR in a header": _with((b"x-cr", b"a\rb")),
    "folded header": _replaced(b"x-data-sovereignty: eu", b"x-data-sovereignty:\r\n eu"),
    "an upgrade to HTTP/2": _with(
        (b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAMAAABkAAQ")
    ),
    "unknown expectation": _with((b"Expect", b"miracles")),
    "no type": lambda t: post(t, kind=None),
}
_ZONES = (
    *(
        b"",
        b"EU",
        b"Eu",
        b"eu,us",
        b"eu, us",
        b"eu;us",
        b"eu us",
        b"*",
        b"..",
        b"null",
        b"eu%00",
        b"atlantis",
    ),
    *(b"\xc3\xa9u", b"\xff", b"e" * 10_000, b"eu-west-1", b"' OR 1=1", b"${jndi:x}", b"{{7*7}}"),
)
_REGIONS = (
    *(b"EU-WEST-1", b"Auto", b"eu-west-1,us-east-1", b"auto, us-east-1", b"eu west 1", b"*", b"eu-west-1%00"),
    *(b"\xc3\xa9", b"r" * 10_000, b"mars-west-1", b"ca-central-1", b"us-east-1", b"eu"),
)


def _zone(name: bytes) -> Case:
    return lambda t: post(t, zone=name)


#: Zones and regions that are none, or not for this.
NAMES: dict[str, Case] = {
    "no zone": lambda t: post(t, zone=None),
    **{f"zone {name[:20]!r}": _zone(name) for name in _ZONES},
    **{f"region {name[:20]!r}": _with((b"x-region-preference", name)) for name in _REGIONS},
}
