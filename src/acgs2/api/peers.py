"""Connections to peers' databases over the links, kept open: making one costs several round trips."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import psycopg

__all__ = ["Peers"]


class Peers:
    """One connection per peer, as a role that may only ask; used by one call at a time."""

    def __init__(self, databases: Mapping[str, str]) -> None:
        self._databases = databases
        self._open: dict[str, psycopg.AsyncConnection] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, peer: str) -> psycopg.AsyncConnection:
        """Return the connection to a peer.

        Raises:
            psycopg.OperationalError: it is not reached, or there is no link to it.
        """
        if peer not in self._databases:
            raise psycopg.OperationalError(f"there is no link to {peer}")
        async with self._locks.setdefault(peer, asyncio.Lock()):
            conn = self._open.get(peer)
            if conn is None or conn.closed:
                conn = await psycopg.AsyncConnection.connect(
                    self._databases[peer], autocommit=True, connect_timeout=3
                )
                self._open[peer] = conn
            return conn

    async def drop(self, peer: str) -> None:
        """Close the connection to a peer after it failed; the next call makes a new one."""
        conn = self._open.pop(peer, None)
        if conn is not None:
            with contextlib.suppress(psycopg.Error):
                await conn.close()

    async def close(self) -> None:
        """Close all connections."""
        for peer in list(self._open):
            await self.drop(peer)
