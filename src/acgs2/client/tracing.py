"""Spans of calls and attempts, where the application has configured a tracer; never with personal data.

A span says method, route template, zone, region, attempt and status. Messages of errors stay out, for they
may repeat what was sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

import acgs2
from acgs2.errors import AcgsError

__all__ = ["attempt_span", "call_span", "ended", "trace_headers"]


@contextmanager
def call_span(method: str, template: str, zone: str | None) -> Iterator[Span]:
    """Trace a call with all its attempts."""
    attributes = {"http.request.method": method, "url.template": template}
    if zone:
        attributes["acgs2.zone"] = zone
    with _tracer().start_as_current_span(
        f"acgs2 {method} {template}",
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except AcgsError as error:
            ended(span, error)
            raise


@contextmanager
def attempt_span(method: str, template: str, attempt: int) -> Iterator[Span]:
    """Trace one attempt; attempts count from 1."""
    with _tracer().start_as_current_span(
        f"{method} {template}",
        kind=SpanKind.CLIENT,
        attributes={"http.request.method": method, "url.template": template, "acgs2.attempt": attempt},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield span


def ended(
    span: Span, error: AcgsError | None, *, status: int | None = None, region: str | None = None
) -> None:
    """Note on a span how it ended."""
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if region is not None:
        span.set_attribute("acgs2.region", region)
    if error is not None:
        span.set_attribute("error.type", error.reference)
        span.set_status(Status(StatusCode.ERROR, error.reference))


def trace_headers() -> dict[str, str]:
    """Return the headers that carry the current span to the server (W3C Trace Context)."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def _tracer() -> trace.Tracer:
    return trace.get_tracer("acgs2.client", acgs2.__version__)
