"""AWS as moto has it, in a process of its own, and a proxy before it that counts and makes faults."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.cluster.conftest import await_that, free_port

__all__ = ["CHECKS", "RECORDS", "Proxy", "direct", "moto"]

#: What requests that change something look like.
RECORDS = r"POST .*/rrset"
CHECKS = r"POST .*/healthcheck$"
_WRITES = re.compile(r"(POST|DELETE|PUT) (?!.*/tags/healthcheck$)")
_ERROR = '<ErrorResponse xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><Error><Type>Sender</Type><Code>{}</Code><Message>by the test</Message></Error></ErrorResponse>'
_ANSWERS = {
    "503": (503, "<html>busy</html>"),
    "500": (500, _ERROR.format("InternalFailure")),
    "throttle": (400, _ERROR.format("Throttling")),
    "prior": (400, _ERROR.format("PriorRequestNotComplete")),
    "invalid": (400, _ERROR.format("InvalidChangeBatch")),
    "forbidden": (403, _ERROR.format("AccessDenied")),
    "garbage": (200, "<html><body>Welcome to the hotel<br></body></html>"),
    "portal": (200, "<html></html>"),
}

#: What the proxy says for itself.
_OF_CONNECTION = ("connection", "content-length", "date", "server", "transfer-encoding")
_ACTION = re.compile(rb"(?:^|&)Action=([A-Za-z]+)")
_SCOPE = re.compile(r"Credential=[^/]+/[0-9]+/([a-z0-9-]+)/([a-z0-9]+)/")

Fault = str | Callable[[], str]


@contextmanager
def moto(log: Path) -> Iterator[str]:
    """Run moto's server on a free port; yields its URL."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "tests.conformance.strict_moto", "-p", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parents[2], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:

        def answers() -> bool:
            assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                connection.request("GET", "/moto-api/")
                return connection.getresponse().status < 500
            except OSError:
                return False

        await_that(answers, "moto to answer", 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


class Proxy:
    """Passes requests on to a server; counts them, and fails those it is told to.

    Faults: an answer of `_ANSWERS`; `before` and `after` end the connection without an answer, before and
    after the request was passed on; `ok` passes it on. A function is called, and says which.
    """

    def __init__(self, server: str) -> None:
        self._server = server.removeprefix("http://")
        self._faults: list[tuple[re.Pattern[str], deque[Fault]]] = []
        self.seen: list[tuple[str, bytes]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Pass on until the block ends."""
        thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def reset(self) -> None:
        """Forget what was seen, and make no more faults."""
        self._faults, self.seen = [], []

    def fail(self, pattern: str, *faults: Fault) -> None:
        """Do something to the next requests that match `METHOD path`, one after the other."""
        self._faults.append((re.compile(pattern), deque(faults)))

    def writes(self, pattern: str = "") -> list[tuple[str, bytes]]:
        """Return the requests so far that change something."""
        return [one for one in self.seen if _WRITES.match(one[0]) and re.search(pattern, one[0])]

    def _fault(self, request: str) -> str:
        for pattern, faults in self._faults:
            if pattern.search(request) and faults:
                fault = faults.popleft()
                return fault if isinstance(fault, str) else fault()
        return "ok"

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805  # `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                request = f"{self.command} {self.path.partition('?')[0].rstrip('/')}"
                request += _called(body, self.headers.get("authorization", ""))
                proxy.seen.append((request, body))
                fault = proxy._fault(request)
                self.close_connection = True
                if fault in _ANSWERS:
                    status, text = _ANSWERS[fault]
                    self.answer(status, text.encode(), {"content-type": "text/xml"})
                    return
                if fault == "before":
                    return
                connection = http.client.HTTPConnection(proxy._server, timeout=30)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                if fault != "after":
                    self.answer(answer.status, content, dict(answer.getheaders()))

            def answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in _OF_CONNECTION:
                        self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = do_PUT = handle_any  # noqa: N815  # the library's names

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


def _called(body: bytes, authorization: str) -> str:
    """Return ` SERVICE REGION OPERATION` of a call that its path says nothing of, as of the query protocol."""
    action, scope = _ACTION.search(body), _SCOPE.search(authorization)
    return f" {scope[2]} {scope[1]} {action[1].decode()}" if action and scope else ""


def direct(url: str, service: str = "route53", region: str = "us-east-1") -> Any:
    """Return a client that is not the driver's."""
    import boto3

    return boto3.client(
        service,
        region_name=region,
        endpoint_url=url,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
