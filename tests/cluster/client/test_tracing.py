"""Traces lead from the application through every attempt to the server, and carry no personal data; and TLS."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.cluster.client.acts import ID, create, fails, read, run, shown
from tests.cluster.client.programs import RESET, answer, playing, problem
from tests.conformance.certificates import make_certificates

from acgs2 import Client, SyncClient
from acgs2.errors import NotFoundError

_EXPORTER = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def tracer() -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_EXPORTER))
    trace.set_tracer_provider(provider)


@pytest.fixture
def spans() -> InMemorySpanExporter:
    _EXPORTER.clear()
    return _EXPORTER


def told(span: ReadableSpan) -> dict[str, object]:
    return {key.rpartition(".")[2]: value for key, value in (span.attributes or {}).items()}


def test_every_attempt_is_a_span_under_the_call(spans: InMemorySpanExporter) -> None:
    with playing(RESET, shown({"x-acgs2-region": "eu-west-1"})) as server:
        run(server, create, timeout_s=5)
        heard = server.heard
    first, second, call = spans.get_finished_spans()
    common = {"method": "POST", "template": "/api/v1/users"}
    assert told(call) == {**common, "zone": "eu"}
    assert told(first) == {**common, "attempt": 1, "type": "answer-lost"}
    assert told(second) == {**common, "attempt": 2, "status_code": 200, "region": "eu-west-1"}
    for span, request in zip((first, second), heard, strict=True):
        assert span.parent is not None
        assert span.context is not None
        assert call.context is not None
        assert span.parent.span_id == call.context.span_id
        own = f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-"
        assert request.headers["traceparent"].startswith(own)
    assert not [e for span in (first, second, call) for e in span.events]


def test_a_trace_says_nothing_about_whom_it_is(spans: InMemorySpanExporter) -> None:
    with playing(problem(404, "record-unknown", detail=f"There is no Ann {ID}.")) as server:
        assert isinstance(fails(server, read), NotFoundError)
    for span in spans.get_finished_spans():
        assert ID not in span.to_json()
        assert "Ann" not in span.to_json()
        assert told(span)["template"] == "/api/v1/users/{id}"
        assert told(span)["type"] == "record-unknown"


def test_a_program_that_is_not_async_is_traced_too(spans: InMemorySpanExporter) -> None:
    outer_span = trace.get_tracer("program").start_as_current_span
    with playing(shown()) as server, SyncClient(server.url, token="t") as client, outer_span("outer"):
        client.users.get(ID)
    attempt, call, outer = spans.get_finished_spans()
    assert call.parent == outer.context
    assert attempt.parent == call.context


def test_a_certificate_is_checked_against_the_authority_that_was_given(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["ours", "other"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ours-peer.pem", tmp_path / "ours-peer.key")
    with playing(answer(200, {"items": []})) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        url = server.url.replace("http:", "https:")

        async def listed(client: Client) -> None:
            async for _ in client.users.list():
                raise AssertionError("there is none")

        run(url, listed, ca=tmp_path / "ours.pem", timeout_s=5)
        for ca in (None, tmp_path / "other.pem"):
            error = fails(url, create, ca=ca, timeout_s=5)
            # Another attempt would meet the same certificate.
            assert (error.reference, error.context["attempts"]) == ("certificate-untrusted", 1)
        assert len(server.heard) == 1
        # Somebody who speaks no TLS at all.
        assert fails(url.replace("https:", "http:"), read, timeout_s=0.3).context["attempts"] >= 1
    assert asyncio.run(_closed(url)) == "not-connected"


async def _closed(url: str) -> str:
    async with Client(url, token="t", timeout_s=0.2) as client:
        try:
            await client.users.get(ID)
        except Exception as error:  # noqa: BLE001 - which kind it is, is what is asked
            return getattr(error, "reference", repr(error))
    return ""
