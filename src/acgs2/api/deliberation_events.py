"""Held messages as a stream: as they come, as somebody says something, and as they end."""

# Annotations are values here, so that OpenAPI is true.

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, get
from litestar.response import ServerSentEvent, ServerSentEventMessage

from acgs2.api.deliberations import COMMON, groups_now, may_see, rows_of, shown, waiting
from acgs2.api.door import principal_of
from acgs2.api.event_streams import ALIVE_S, FAULTS, LASTS_S, on_one_line, problem_of
from acgs2.api.region import RegionServer
from acgs2.api.tokens import Principal

__all__ = ["HANDLERS"]

_POLL_S = 0.25
_MOST = 200


@get(
    "/api/v1/deliberations/events",
    media_type="text/event-stream",
    summary="Messages that wait, as they come and end",
    **COMMON,
)
async def events(request: Request[Any, Any, Any]) -> ServerSentEvent:
    """Send an event `deliberation` for every held message when it comes, changes, and ends.

    A stream lasts 15 minutes, and says a word every 10 s. An event `problem` is the last: it says why.
    """
    server: RegionServer = request.app.state.server
    return ServerSentEvent(_events(server, principal_of(request)))


async def _events(server: RegionServer, principal: Principal) -> AsyncIterator[ServerSentEventMessage]:
    seen: dict[UUID, bytes] = {}
    said_s = time.monotonic()
    ends_s = said_s + LASTS_S
    yield ServerSentEventMessage(data=None, retry=1000)
    try:
        while time.monotonic() < ends_s:
            async for key, told in _changed(server, principal, seen):
                said_s = time.monotonic()
                yield ServerSentEventMessage(data=told, event="deliberation", id=str(key))
            if time.monotonic() - said_s >= ALIVE_S:
                said_s = time.monotonic()
                yield ServerSentEventMessage(data=None, comment="alive")
            await asyncio.sleep(_POLL_S)
    except FAULTS as error:
        yield ServerSentEventMessage(data=msgspec.json.encode(problem_of(error)), event="problem")


async def _changed(
    server: RegionServer, principal: Principal, seen: dict[UUID, bytes]
) -> AsyncIterator[tuple[UUID, bytes]]:
    """Yield what is not as it was seen last, and note it; what has ended is forgotten."""
    tenant = UUID(principal.tenant) if principal.tenant is not None else None
    rows = await waiting(server, list(server.rules.pairs), tenant, _MOST)
    here = {row["key"] for row in rows}
    gone = [key for key in seen if key not in here]
    if gone:
        async with server.database("SELECT", "message") as conn:
            rows += await rows_of(conn, gone)
    groups = groups_now(server)
    for row in rows:
        if not may_see(principal, row, groups):
            continue
        told = on_one_line(msgspec.json.encode(shown(row, groups)))
        if seen.get(row["key"]) != told:
            seen[row["key"]] = told
            yield row["key"], told
    for key in gone:
        seen.pop(key, None)


HANDLERS: list[Any] = [events]
