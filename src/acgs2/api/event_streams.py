"""What streams without an end have in common: a word in time, an end all the same, and what went wrong."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from acgs2.api.problems import answer_to, from_database
from acgs2.errors import AcgsError, UnavailableError

__all__ = ["ALIVE_S", "FAULTS", "LASTS_S", "on_one_line", "problem_of"]

#: How often a word is said on a stream where nothing happens; well under what proxies take for silence.
ALIVE_S = 10.0
#: A stream lasts no longer than the token that it was opened with can have been good for, and begins anew.
LASTS_S = 900.0
#: What may go wrong while a stream is open; whoever reads it is told by a problem document.
FAULTS = (AcgsError, psycopg.Error, PoolTimeout)
#: JSON escapes line feeds and carriage returns. These end no line of an event, but some readers take them to.
_ENDS = {"\u0085": b"\\u0085", "\u2028": b"\\u2028", "\u2029": b"\\u2029"}
_ESCAPES = [(end.encode(), escape) for end, escape in _ENDS.items()]


def on_one_line(data: bytes) -> bytes:
    """Return the same JSON without anything that a reader may take for the end of a line."""
    for end, escape in _ESCAPES:
        data = data.replace(end, escape)
    return data


def problem_of(error: Exception) -> dict[str, Any]:
    """Return the problem document of what went wrong."""
    if isinstance(error, psycopg.Error):
        error = from_database(error)
    if not isinstance(error, AcgsError):
        error = UnavailableError("database-unavailable", "The database does not answer.", hint="Try again.")
    return answer_to(error).content
