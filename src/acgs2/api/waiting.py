"""Whether whoever asked still waits for the answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from litestar import Request

__all__ = ["waited_for"]


@contextlib.asynccontextmanager
async def waited_for(
    request: Request[Any, Any, Any], hung_up: Callable[[], None]
) -> AsyncIterator[Callable[[], bool]]:
    """Yield what says whether the client is gone, while its request, whose body was read, is worked on.

    Args:
        request: of the client.
        hung_up: called when it goes.
    """
    gone = False

    async def listen() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        hung_up()

    listening = asyncio.create_task(listen())
    try:
        yield lambda: gone
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
