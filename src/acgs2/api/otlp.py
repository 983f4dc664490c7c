"""Spans by the OpenTelemetry SDK, sent to a collector as OTLP over HTTP; no request waits for that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import acgs2
from acgs2.errors import AcgsError

__all__ = ["Otlp"]

_TIMEOUT_S = 3.0
_GOODBYE_S = 1.0
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Request:
    """The span of one request."""

    def __init__(self, span: Span, method: str, region: str) -> None:
        self._span = span
        self._method = method
        self._region = region

    def answered(self, route: str, status: int, zone: str | None, problem: str | None) -> None:
        """Say how it went, in the words of OpenTelemetry's conventions and ours."""
        span = self._span
        span.update_name(f"{self._method} {route}".rstrip())
        if route:
            span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        if zone is not None:
            span.set_attribute("acgs2.zone", zone)
        if problem is not None:
            span.set_attribute("acgs2.problem", problem)
        if status >= 500:
            span.set_attribute("error.type", problem or str(status))
            span.set_status(Status(StatusCode.ERROR))


class Otlp:
    """Makes spans and sends them.

    What instrumentation libraries would add is personal data here: URLs, addresses, user agents, statements.
    So spans are made by hand, exceptions are never recorded in them, and of the caller's headers only
    `traceparent` is read: `tracestate` and `baggage` are whatever somebody put there.

    Args:
        otlp: the collector's base URL; nothing goes anywhere else, whatever proxies the environment names.
        region: whose spans they are.
    """

    def __init__(self, otlp: str, region: str) -> None:
        session = requests.Session()
        session.trust_env = False
        self._exporter = OTLPSpanExporter(
            endpoint=f"{otlp.rstrip('/')}/v1/traces", timeout=_TIMEOUT_S, session=session
        )
        self._processor = BatchSpanProcessor(self._exporter, schedule_delay_millis=1000)
        resource = {
            "service.name": "acgs2-region",
            "service.version": acgs2.__version__,
            "cloud.region": region,
        }
        self._provider = TracerProvider(resource=Resource.create(resource), shutdown_on_exit=False)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("acgs2", acgs2.__version__)
        self._propagator = TraceContextTextMapPropagator()
        self._region = region

    @contextmanager
    def request(self, method: str, traceparent: str | None) -> Iterator[_Request]:
        """Make the span of a request, in the caller's trace if it has one."""
        known = method if method in _METHODS else "_OTHER"
        context = self._propagator.extract({"traceparent": traceparent}) if traceparent else None
        with self._tracer.start_as_current_span(
            known,
            context,
            SpanKind.SERVER,
            {"http.request.method": known, "acgs2.region": self._region},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield _Request(span, known if known != "_OTHER" else "HTTP", self._region)

    @contextmanager
    def database(self, operation: str, entity: str) -> Iterator[None]:
        """Make the span of a transaction."""
        with self._tracer.start_as_current_span(
            f"{operation} {entity}",
            None,
            SpanKind.CLIENT,
            {"db.system.name": "postgresql", "db.operation.name": operation, "acgs2.entity": entity},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except psycopg.Error as error:
                _failed(span, error.sqlstate or type(error).__name__)
                raise

    @contextmanager
    def pair(self, zone: str, peers: list[str]) -> Iterator[None]:
        """Make the span of a wait for the other region of a pair."""
        with self._tracer.start_as_current_span(
            "wait for pair",
            None,
            SpanKind.INTERNAL,
            {"acgs2.zone": zone, "acgs2.peers": peers},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except AcgsError as error:
                _failed(span, error.reference)
                raise

    def close(self) -> None:
        """Send what is left within a second; what a collector does not take by then is given up."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_GOODBYE_S)
        if sending.is_alive():
            self._exporter.shutdown()  # it tries no more; what it is about ends with the process


def _failed(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
