"""Spans of what a request does, or nothing at all: who does not name a collector pays nothing for one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

__all__ = ["Request", "Tracing", "tracing_for"]

#: What the edge of the server has to say of a request once it is answered: route, status, zone, problem.
Attributes = Mapping[str, Any]


class Request(Protocol):
    """The span of one request."""

    def answered(self, route: str, status: int, zone: str | None, problem: str | None) -> None:
        """Say how it went."""
        ...


class Tracing(Protocol):
    """Makes spans. None ever holds what a caller sent but the zone, once it is known to be one."""

    def request(self, method: str, traceparent: str | None) -> AbstractContextManager[Request | None]:
        """Return the span of a request, in the caller's trace if it has one."""
        ...

    def database(self, operation: str, entity: str) -> AbstractContextManager[None]:
        """Return the span of a transaction."""
        ...

    def pair(self, zone: str, peers: list[str]) -> AbstractContextManager[None]:
        """Return the span of a wait for the other region of a pair."""
        ...

    def close(self) -> None:
        """Send what is left, if that is quickly done."""
        ...


class _Off:
    """No traces."""

    _nothing: AbstractContextManager[None] = contextlib.nullcontext()

    def request(self, method: str, traceparent: str | None) -> AbstractContextManager[None]:
        """Return nothing."""
        return self._nothing

    def database(self, operation: str, entity: str) -> AbstractContextManager[None]:
        """Return nothing."""
        return self._nothing

    def pair(self, zone: str, peers: list[str]) -> AbstractContextManager[None]:
        """Return nothing."""
        return self._nothing

    def close(self) -> None:
        """Do nothing."""


def tracing_for(otlp: str | None, region: str) -> Tracing:
    """Return what sends spans to a collector, or what makes none where none is named.

    Args:
        otlp: the collector's base URL.
        region: whose spans they are.
    """
    if otlp is None:
        return _Off()
    from acgs2.api.otlp import Otlp  # the SDK takes 100 ms to load

    return Otlp(otlp, region)
