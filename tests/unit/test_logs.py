"""Log lines: one JSON object each, with nothing in them that a caller sent, and readable for people."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from opentelemetry.sdk.trace import TracerProvider

from acgs2.errors import RuntimeFault
from acgs2.logs.read import last_words, parse, whole_lines
from acgs2.logs.write import configure, get_logger

LOG = get_logger("acgs2.test")


class Written(io.StringIO):
    """A stream of log lines."""

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def out() -> Iterator[Written]:
    """What is logged in a test, by configurations that end with it."""
    root = logging.getLogger()
    handlers, level, hook = root.handlers[:], root.level, sys.excepthook
    yield Written()
    root.handlers[:], sys.excepthook = handlers, hook
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_line_is_one_object_with_the_events_fields(out: Written) -> None:
    configure("server", region="eu-west-1", stream=out)
    LOG.info("peer-away", peer="us-east-1", tries=3, text='a "b"\nc\ud800', at=Path("/x"))
    LOG.debug("not-written")
    (line,) = out.lines()
    assert list(line)[:4] == ["timestamp", "level", "event", "logger"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "peer-away",
        "logger": "acgs2.test",
        "process": "server",
        "region": "eu-west-1",
        "peer": "us-east-1",
        "tries": 3,
        "text": 'a "b"\nc\ud800',
        "at": "/x",
    }


def _fail() -> None:
    try:
        psycopg.connect("host=127.0.0.1 port=1 dbname=canary-inner connect_timeout=1")
    except psycopg.Error as error:
        raise ValueError("canary-outer") from error


def test_exceptions_have_types_and_places_and_where_it_matters_no_words(out: Written) -> None:
    configure("server", stream=out, wordless=True)
    try:
        _fail()
    except ValueError:
        LOG.exception("duty-failed", duty="x")
        logging.getLogger("library").warning("failed for %s", "canary-argument", exc_info=True)
    ours, library = out.lines()
    assert "ValueError at " in ours["exception"]
    assert " in _fail caused by OperationalError" in ours["exception"]
    assert (library["event"], library["message"]) == ("library-message", "failed for %s")
    assert "canary" not in out.getvalue()
    configure("supervisor", stream=out)
    try:
        _fail()
    except ValueError:
        LOG.exception("duty-failed")
    assert "ValueError: canary-outer at " in out.lines()[-1]["exception"]


def test_libraries_that_repeat_themselves_or_log_requests_are_kept_quiet(out: Written) -> None:
    configure("server", stream=out)
    logging.getLogger("httpx").info("HTTP Request: GET http://x/?name=canary")
    for _ in range(3):
        logging.getLogger("opentelemetry.exporter").error("cannot export")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)  # pytest has its own way for warnings
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert [line["logger"] for line in out.lines()] == ["opentelemetry.exporter", "py.warnings"]


def test_a_line_says_in_which_trace_it_was_written(out: Written) -> None:
    configure("server", stream=out)
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("x") as span:
        LOG.info("inside")
    LOG.info("outside")
    inside, outside = out.lines()
    assert inside["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert inside["span_id"] == f"{span.get_span_context().span_id:016x}"
    assert "trace_id" not in outside


def test_the_last_words_of_a_process_are_readable(out: Written, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    assert last_words(log) == "it left no log."
    log.touch()
    assert last_words(log) == "it said nothing."
    log.write_text("2026-11-25 00:39 LOG:  database system is ready\n", encoding="utf-8")
    assert last_words(log) == "2026-11-25 00:39 LOG:  database system is ready"
    configure("server", region="eu-west-1", stream=out)
    sys.excepthook(RuntimeFault, RuntimeFault("port-in-use", "Port 1 is taken.", hint="Take 2."), None)
    log.write_text("x" * 100_000 + "\n" + out.getvalue(), encoding="utf-8")
    assert last_words(log) == 'crashed error=port-in-use message="Port 1 is taken." hint="Take 2."'


def test_a_line_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(b"one\ntwo\nthr")
    lines, end = whole_lines(log, 0)
    assert lines == ["one", "two"]
    assert whole_lines(log, end) == ([], end)
    with log.open("ab") as file:
        file.write(b"ee\n\xff\n")
    assert whole_lines(log, end)[0] == ["three", "\ufffd"]


def test_what_is_no_line_of_ours_is_shown_as_it_is() -> None:
    for other in ("", "LOG:  ready", "{", "[]", '{"a": 1}', '"event"'):
        assert parse(other) is None
    line = parse(
        '{"timestamp": "2026-11-25T00:57:31.150128Z", "level": "error", "event": "e\\u001b[2J", "n": "a b"}'
    )
    assert line is not None
    assert (line.time, line.level) == ("2026-11-25 00:57:31.150", "error")
    assert (line.event, line.fields) == ('"e\\u001b[2J"', 'n="a b"')
