"""Around every request: what it is counted, measured and traced by. Nothing of it is kept but that."""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Any, cast

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from acgs2.api.audited import Refusals
from acgs2.api.metrics import Metrics
from acgs2.api.tally import Tally
from acgs2.api.tracing import Tracing

__all__ = ["PROBLEM", "observed"]

#: Where, in a request's state, whoever makes a problem of it leaves its reference.
PROBLEM = "problem"
#: The status of a request whose caller went away before it was answered; nobody got it.
_GONE = 499
#: Where refusals are audited: what agents, approvers and operators do under governance.
_GOVERNED = tuple(
    f"/api/v1/{name}"
    for name in ("messages", "deliberations", "inboxes", "halts", "constitution", "policies", "audit")
)
_UNTRACED = ("/health", "/metrics")
_TYPE = re.compile(r":\w+\}")


@lru_cache(maxsize=512)
def _template(path: str) -> str:
    return _TYPE.sub("}", path) or "/"


def observed(
    handle: ASGIApp, metrics: Metrics, tracing: Tracing, refusals: Refusals, tally: Tally
) -> ASGIApp:
    """Return the handler of an application with every request measured, and what was refused noted."""

    async def measured(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await handle(scope, receive, send)
            return
        status = _GONE

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = str(scope["method"])
        began_s = time.perf_counter()
        metrics.in_flight.inc()
        try:
            if scope["path"].startswith(_UNTRACED):
                await handle(scope, receive, sent)
                return
            with tracing.request(method, _traceparent(scope)) as span:
                try:
                    await handle(scope, receive, sent)
                finally:
                    if span is not None:
                        state = scope["state"]
                        span.answered(_route(scope), status, state.get("zone"), state.get(PROBLEM))
        finally:
            metrics.in_flight.dec()
            duration_s = time.perf_counter() - began_s
            metrics.answered(_route(scope), method, status, duration_s)
            if (zone := scope["state"].get("zone")) is not None:
                tally.answered(zone, method, scope["path"], status, duration_s)
            if (reference := scope["state"].get(PROBLEM)) is not None:
                metrics.problem(reference)
                if scope["path"].startswith(_GOVERNED):
                    refusals.note(_route(scope), reference, scope["state"].get("principal"))

    return measured


def _route(scope: Scope) -> str:
    """Return the template of the route; empty where there is none, whatever the path was."""
    path = cast(dict[str, Any], scope).get("path_template")
    return _template(path) if path is not None else ""


def _traceparent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return value.decode("latin-1")
    return None
