"""What is counted of a request, whatever a caller sends, and that a collector that is away holds nobody up."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from prometheus_client import generate_latest

from acgs2.api.audited import Refusals
from acgs2.api.metrics import Metrics
from acgs2.api.observe import PROBLEM, observed
from acgs2.api.tally import Tally
from acgs2.api.tracing import Tracing, tracing_for
from acgs2.errors import OutcomeUnknown

TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def ask(metrics: Metrics, tracing: Tracing, method: str = "GET", path: str = "/a", **outcome: Any) -> None:
    """Send one request through what observes it; `outcome` says what the application does."""

    async def application(scope: Any, _: Any, send: Any) -> None:
        if "template" in outcome:
            scope["path_template"] = outcome["template"]
        if "problem" in outcome:
            scope["state"][PROBLEM] = outcome["problem"]
        if "raises" in outcome:
            raise outcome["raises"]
        await send({"type": "http.response.start", "status": outcome["status"]})

    async def send(_: Any) -> None:
        pass

    scope: Any = {"type": "http", "method": method, "path": path, "state": {}}
    scope["headers"] = [(b"traceparent", outcome.get("traceparent", TRACEPARENT))]
    asyncio.run(observed(application, metrics, tracing, Refusals(), Tally())(scope, None, send))  # type: ignore[arg-type]


def test_labels_are_never_what_a_caller_made_up() -> None:
    metrics, off = Metrics("eu-west-1"), tracing_for(None, "eu-west-1")
    ask(metrics, off, path="/api/v1/users/7", template="/api/v1/users/{record_id:uuid}", status=200)
    ask(metrics, off, path="/canary", status=404, problem="not-found")
    ask(metrics, off, "CANARY", template="/", status=405)
    with pytest.raises(asyncio.CancelledError):
        ask(metrics, off, template="/", raises=asyncio.CancelledError())
    text = generate_latest(metrics.registry).decode()
    for line in (
        'acgs2_http_requests_total{method="GET",route="/api/v1/users/{record_id}",status="200"} 1.0',
        'acgs2_http_requests_total{method="GET",route="",status="404"} 1.0',
        'acgs2_http_requests_total{method="other",route="/",status="405"} 1.0',
        'acgs2_http_requests_total{method="GET",route="/",status="499"} 1.0',
        'acgs2_problems_total{reference="not-found"} 1.0',
        "acgs2_http_requests_in_flight 0.0",
    ):
        assert line in text
    assert "canary" not in text.lower()


def test_a_wait_for_the_pair_is_measured_and_its_timeouts_are_counted() -> None:
    metrics = Metrics("eu-west-1")
    with metrics.pair_wait("eu"):
        pass
    with pytest.raises(OutcomeUnknown), metrics.pair_wait("eu"):
        raise OutcomeUnknown("outcome-unknown", "It is not known.")
    text = generate_latest(metrics.registry).decode()
    assert 'acgs2_pair_wait_seconds_count{zone="eu"} 2.0' in text
    assert 'acgs2_pair_timeouts_total{zone="eu"} 1.0' in text


def test_a_collector_that_is_away_or_silent_holds_nobody_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with socket.socket() as away:
            away.bind(("127.0.0.1", 0))
            for one in (silent, away):
                tracing = tracing_for(f"http://127.0.0.1:{one.getsockname()[1]}", "eu-west-1")
                metrics = Metrics("eu-west-1")
                began_s = time.monotonic()
                for traceparent in (
                    TRACEPARENT,
                    b"",
                    b"canary",
                    b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
                    b"\xff",
                ):
                    for _ in range(150):  # more than fits in a batch
                        ask(metrics, tracing, template="/", status=200, traceparent=traceparent)
                assert time.monotonic() - began_s < 5
                began_s = time.monotonic()
                tracing.close()
                assert time.monotonic() - began_s < 5
