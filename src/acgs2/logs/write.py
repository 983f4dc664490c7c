"""How our processes write logs: structlog's events and the records of libraries, by one formatter."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import PurePath
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.typing import EventDict

from acgs2.errors import AcgsError

__all__ = ["configure", "get_logger"]

#: The event of a line that a library wrote; what it says is in `message`.
_OF_A_LIBRARY = "library-message"
#: Libraries that log whatever is sent through them, or that they work.
_QUIET = {"httpx": logging.WARNING, "httpcore": logging.WARNING}
#: Libraries that say the same for as long as something is away, and how often we let them.
_SELDOM_S = {"opentelemetry": 60.0}
_FIRST = ("timestamp", "level", "event", "logger")
_FRAMES = 20


def get_logger(name: str) -> BoundLogger:
    """Return a logger whose events, with their fields, go to the standard library's logger of that name."""
    return structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=True,
    )


def configure(
    process: str, *, region: str | None = None, wordless: bool = False, stream: TextIO | None = None
) -> None:
    """Write every log line of this process as JSON; called once, where a process begins.

    Args:
        process: what it is: server, links or supervisor.
        region: whose process it is, if it is one region's.
        wordless: keep of exceptions only their types and places, and of libraries' messages what is the
            same every time: in a process that handles personal data the rest may be what a caller sent.
        stream: where to; standard error if none is given.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        ProcessorFormatter(
            processors=[
                _name_foreign,
                structlog.stdlib.add_logger_name,
                ProcessorFormatter.remove_processors_meta,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _Ours(process, region),
                _add_trace,
                _Exceptions(wordless),
                _render,
            ],
            use_get_message=not wordless,
        )
    )
    for prefix, every_s in _SELDOM_S.items():
        handler.addFilter(_Seldom(prefix, every_s))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _crashed


def _name_foreign(_: Any, __: str, event: EventDict) -> EventDict:
    if not event["_from_structlog"]:
        event["message"], event["event"] = event["event"], _OF_A_LIBRARY
    return event


class _Ours:
    """Says of every line whose it is."""

    def __init__(self, process: str, region: str | None) -> None:
        self._fields = {"process": process} | ({"region": region} if region else {})

    def __call__(self, _: Any, __: str, event: EventDict) -> EventDict:
        return {**self._fields, **event}


def _add_trace(_: Any, __: str, event: EventDict) -> EventDict:
    tracing = sys.modules.get("opentelemetry.trace")  # whoever makes spans has it loaded
    if tracing is not None:
        context = tracing.get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"] = f"{context.trace_id:032x}"
            event["span_id"] = f"{context.span_id:016x}"
    return event


class _Exceptions:
    """Puts an exception into one line."""

    def __init__(self, wordless: bool) -> None:
        self._wordless = wordless

    def __call__(self, _: Any, __: str, event: EventDict) -> EventDict:
        found = event.pop("exc_info", None)
        event.pop("stack_info", None)
        if found is True:
            found = sys.exc_info()
        error = found[1] if isinstance(found, tuple) else found
        if isinstance(error, BaseException):
            event["exception"] = " caused by ".join(self._told(each) for each in _chain(error))
        return event

    def _told(self, error: BaseException) -> str:
        frames = list(traceback.walk_tb(error.__traceback__))[-_FRAMES:]
        places = " > ".join(
            f"{'/'.join(PurePath(f.f_code.co_filename).parts[-3:])}:{line} in {f.f_code.co_name}"
            for f, line in frames
        )
        known = error.reference if isinstance(error, AcgsError) else getattr(error, "sqlstate", None)
        words = "" if self._wordless else " ".join(str(error).split())
        return (
            type(error).__qualname__
            + (f" {known}" if known else "")
            + (f": {words}" if words else "")
            + (f" at {places}" if places else "")
        )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _render(_: Any, __: str, event: EventDict) -> str:
    ordered = {name: event[name] for name in _FIRST if name in event} | dict(event)
    return json.dumps(ordered, default=str)


class _Seldom(logging.Filter):
    """Lets one record of some loggers through from time to time."""

    def __init__(self, prefix: str, every_s: float) -> None:
        super().__init__()
        self._prefix = prefix
        self._every_s = every_s
        self._last_s = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written."""
        if not record.name.startswith(self._prefix):
            return True
        now_s = time.monotonic()
        if now_s - self._last_s < self._every_s:
            return False
        self._last_s = now_s
        return True


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log what ends the process; it says why in words, for no request has ever come so far up."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    plain = {"error": kind.__qualname__, "message": str(error)}
    told = error.as_dict() if isinstance(error, AcgsError) else plain
    get_logger("acgs2.process").critical("crashed", **told, exc_info=error)
