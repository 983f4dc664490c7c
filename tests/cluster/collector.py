"""A real receiver of OTLP over HTTP, as a collector has."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass
class Collector:
    """What was sent to it."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)

    def all_spans(self, trace_id: str) -> list[tuple[dict[str, Any], Any]]:
        """Return the spans of a trace, each with the attributes of whom it is of."""
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                of = {a.key: a.value.string_value for a in resource.resource.attributes}
                spans = (s for scope in resource.scope_spans for s in scope.spans)
                found += [(of, span) for span in spans if span.trace_id.hex() == trace_id]
        return found

    def spans(self, trace_id: str) -> dict[str, Any]:
        """Return the spans of a trace by name."""
        return {span.name: (of, span) for of, span in self.all_spans(trace_id)}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Receive traces at a free port until the end of the block."""
    made = Collector()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self._body()
            taken = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
            if taken:
                made.bodies.append(body)
            self.send_response(200 if taken else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def _body(self) -> bytes:
            if self.headers["transfer-encoding"] != "chunked":
                return self.rfile.read(int(self.headers["content-length"]))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def log_message(self, *_: Any) -> None:
            pass

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=receiver.serve_forever, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{receiver.server_port}"
    try:
        yield made
    finally:
        receiver.shutdown()
        receiver.server_close()
