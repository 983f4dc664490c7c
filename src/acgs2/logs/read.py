"""Log lines for people: what a process said last, and lines as they are shown."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Line", "last_words", "parse", "whole_lines"]

_SURROUNDING = ("timestamp", "level", "event", "logger", "process", "trace_id", "span_id")
_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log: when, how bad, what, and its fields as `name=value`."""

    time: str
    level: str
    event: str
    fields: str


def parse(text: str) -> Line | None:
    """Return a line that one of our processes wrote, None if it is somebody else's."""
    body = _body(text)
    if body is None:
        return None
    time = str(body.get("timestamp", ""))[:23].replace("T", " ")
    return Line(time, str(body.get("level", "info")), _plain(body["event"]), _fields(body))


def whole_lines(log: Path, begin: int) -> tuple[list[str], int]:
    """Return the lines of a log from a position on, and where the one begins that is not complete yet."""
    with log.open("rb") as file:
        file.seek(begin)
        whole, newline, _ = file.read().rpartition(b"\n")
    return whole.decode(errors="replace").split("\n") if newline else [], begin + len(whole) + len(newline)


def last_words(log: Path) -> str:
    """Return the last that a process said, as `event name=value`, without where in the code that was."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return "it left no log."
    if not lines:
        return "it said nothing."
    body = _body(lines[-1])
    if body is None:
        return lines[-1]
    body.pop("exception", None)
    return f"{_plain(body['event'])} {_fields(body)}".rstrip()


def _body(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        body = json.loads(text)
    except ValueError:
        return None
    return body if isinstance(body, dict) and "event" in body else None


def _fields(body: dict[str, Any]) -> str:
    hidden = _SURROUNDING if body.get("process") == "supervisor" else (*_SURROUNDING, "region")
    return " ".join(f"{name}={_plain(value)}" for name, value in body.items() if name not in hidden)


def _plain(value: Any) -> str:
    """Return a value as it reads best, and so that it cannot be taken for anything else."""
    if isinstance(value, str) and value and value.isprintable() and not set(value) & set(' "='):
        return value
    return json.dumps(value, ensure_ascii=not (isinstance(value, str) and value.isprintable()))
