"""Other regions' gateways, asked over the links: whether they serve, and what they see of others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import httpx

__all__ = ["Neighbours"]

#: When a request is given up that nobody waits for any more.
_GIVE_UP_S = 6.0


class Neighbours:
    """Gateways of other regions; connections are kept, for making one costs a far region several round trips.

    Args:
        urls: region to where this one reaches its gateway.
    """

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = dict(urls)
        self._http: httpx.AsyncClient | None = None
        self._running: set[asyncio.Task[httpx.Response]] = set()

    @property
    def regions(self) -> tuple[str, ...]:
        """Return the regions that can be asked."""
        return tuple(sorted(self._urls))

    async def get(self, region: str, path: str, patience_s: float) -> httpx.Response:
        """Return what a region's gateway answers.

        What is not answered in time goes on for a while: over a slow link, the connection that it makes is
        there for the next request.

        Raises:
            TimeoutError: it does not answer in time.
            httpx.HTTPError: it cannot be reached.
        """
        asked = asyncio.create_task(self._get(self._urls[region] + path))
        self._running.add(asked)
        asked.add_done_callback(self._ended)
        done, _ = await asyncio.wait({asked}, timeout=patience_s)
        if not done:
            raise TimeoutError
        return asked.result()

    async def close(self) -> None:
        """Give up what is under way, and close all connections."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()

    async def _get(self, url: str) -> httpx.Response:
        if self._http is None:  # made where it is used: it belongs to a loop
            self._http = httpx.AsyncClient(verify=False, trust_env=False, timeout=_GIVE_UP_S)
        with contextlib.suppress(httpx.ReadError, httpx.RemoteProtocolError):
            return await self._http.get(url)
        # A connection that was kept may just have been closed.
        return await self._http.get(url)

    def _ended(self, task: asyncio.Task[httpx.Response]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: whoever asked may be gone
