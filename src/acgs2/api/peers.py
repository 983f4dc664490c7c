"""Connections to peers' databases over the links, kept open: making one costs several round trips."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import psycopg

__all__ = ["Peers"]


@dataclass(eq=False)
class _Lent:
    """A connection, how many use it, and whether it is to be closed when the last of them is done."""

    conn: psycopg.AsyncConnection
    users: int = 0
    dropped: bool = False


class Peers:
    """One connection per peer, as a role that may only ask; calls that share it take turns.

    It is never closed under a call: the C code of psycopg goes on with the memory that was freed, and that
    ended a server's process (measured: once in 137 drills, with a peer that was frozen).
    """

    def __init__(self, databases: Mapping[str, str]) -> None:
        self._databases = databases
        self._open: dict[str, _Lent] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def using(self, peer: str) -> AsyncIterator[psycopg.AsyncConnection]:
        """Lend the connection to a peer.

        Raises:
            psycopg.OperationalError: it is not reached, or there is no link to it.
        """
        lent = await self._lent(peer)
        lent.users += 1
        try:
            yield lent.conn
        finally:
            lent.users -= 1
            await self._close(lent)

    async def drop(self, peer: str) -> None:
        """Have the next call make a new connection to a peer, after this one failed.

        Calls that wait for it end with an error at once.
        """
        lent = self._open.pop(peer, None)
        if lent is None:
            return
        lent.dropped = True
        if lent.users and not lent.conn.closed:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(lent.conn.fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)
        await self._close(lent)

    async def close(self) -> None:
        """Close all connections."""
        for peer in list(self._open):
            await self.drop(peer)

    async def _lent(self, peer: str) -> _Lent:
        if peer not in self._databases:
            raise psycopg.OperationalError(f"there is no link to {peer}")
        async with self._locks.setdefault(peer, asyncio.Lock()):
            lent = self._open.get(peer)
            if lent is None or lent.conn.closed:
                conn = await psycopg.AsyncConnection.connect(
                    self._databases[peer], autocommit=True, connect_timeout=3
                )
                lent = self._open[peer] = _Lent(conn)
            return lent

    async def _close(self, lent: _Lent) -> None:
        if lent.dropped and not lent.users:
            with contextlib.suppress(psycopg.Error):
                await lent.conn.close()
