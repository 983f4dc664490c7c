"""Connections to peers that several tasks share: one that is dropped is never freed under a call."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
import uvloop
from tests.cluster.conftest import Server

from acgs2.api.peers import Peers


def test_a_connection_that_is_dropped_ends_calls_at_once_and_is_not_freed_under_them(server: Server) -> None:
    """Measured: a region's server was ended by glibc when a link gave a peer up while another task asked it."""

    async def run() -> None:
        peers = Peers({"b": server.dsn("postgres")})
        used: list[psycopg.AsyncConnection] = []

        async def ask() -> None:
            async with peers.using("b") as there:
                used.append(there)
                await there.execute("SELECT pg_sleep(60)")

        asking = asyncio.create_task(ask())
        waiting = asyncio.create_task(ask())
        for _ in range(500):
            if len(used) == 2 and used[0].pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                break
            await asyncio.sleep(0.01)
        await peers.drop("b")
        assert used[0].pgconn.pgconn_ptr is not None, "it is not freed under a call"
        async with asyncio.timeout(5):
            for task in (asking, waiting):
                with pytest.raises(psycopg.OperationalError):
                    await task
        assert used[0] is used[1]
        assert used[0].closed
        async with peers.using("b") as there:
            assert there is not used[0]
            assert await (await there.execute("SELECT 1")).fetchone() == (1,)
        await peers.close()
        assert there.closed

    uvloop.run(run())


def test_who_is_no_peer_is_not_reached() -> None:
    async def run() -> None:
        with pytest.raises(psycopg.OperationalError, match="no link to c"):
            async with Peers({}).using("c"):
                pass

    asyncio.run(run())
