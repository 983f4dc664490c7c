"""Changing what is in force: agreed by a majority, told to all, and known by whom it binds already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import psycopg

from acgs2.api.region import RegionServer
from acgs2.consensus import Document, boottime_s
from acgs2.consensus.lease import MARGIN
from acgs2.store.templates import fragments

__all__ = ["Binding", "agree", "governed_by"]

_QUERIES = fragments("governance.sql")
_ASK_S = 2.0
_POLL_S = 0.03
#: Regions are told beside the answer; somebody has to hold on to that.
_TELLING: set[asyncio.Task[bool]] = set()


class Binding(msgspec.Struct, kw_only=True):
    """Whom a change binds: regions that said so, those that did not yet, and after how long it binds all."""

    version: int
    digest: str
    confirmed: list[str]
    unconfirmed: list[str]
    binds_all_within_ms: int


async def agree(
    server: RegionServer, kind: str, decide: Callable[[Document | None], Any], *, wait: bool
) -> tuple[Document, Binding]:
    """Change an agreed document; return it once it is in force, with the regions that it is known to bind.

    From then on a region that has not heard of it goes by an older version for a lease at most, and does not
    govern after that.

    Args:
        server: of the region that was asked.
        kind: the document's.
        decide: see `Documents.change`.
        wait: whether to wait until every region has said that it goes by it, for as long as that can matter.

    Raises:
        UnavailableError: no majority answers; the change may yet come about.
    """
    document = await server.governance.documents.change(kind, decide)
    until_s = boottime_s() + MARGIN * server.governance.lease_s
    regions = [server.region, *server.config.peer_databases]
    asks = {
        region: asyncio.create_task(_binds(server, region, document, until_s if wait else 0.0))
        for region in regions
    }
    if not wait:
        _TELLING.update(asks.values())
        for task in asks.values():
            task.add_done_callback(_TELLING.discard)
        confirmed: list[str] = []
    else:
        bound = dict(zip(asks, await asyncio.gather(*asks.values()), strict=True))
        confirmed = [region for region in regions if bound[region]]
    left_s = max(0.0, until_s - boottime_s())
    everywhere = len(confirmed) == len(server.topology.regions)
    return document, Binding(
        version=document.version,
        digest=document.digest,
        confirmed=sorted(confirmed),
        unconfirmed=sorted(set(server.topology.regions) - set(confirmed)),
        binds_all_within_ms=0 if everywhere else round(left_s * 1000),
    )


async def governed_by(server: RegionServer, region: str, *, look: bool = False) -> Mapping[str, Any] | None:
    """Return version and digest of each document that a region says it goes by; None if it does not answer.

    Args:
        server: of the region that asks.
        region: which is asked, this one or a peer.
        look: whether to have it look at once what is in force.
    """
    try:
        async with asyncio.timeout(_ASK_S):
            if region == server.region:
                async with server.pool.connection() as conn:
                    return await _ask(conn, look)
            async with server.peers.using(region) as there:
                return await _ask(there, look)
    except (psycopg.Error, TimeoutError):
        if region != server.region:
            await server.peers.drop(region)
        return None


async def _ask(conn: psycopg.AsyncConnection[Any], look: bool) -> Mapping[str, Any]:
    if look:
        await conn.execute(_QUERIES["look"].encode())
    row = await (await conn.execute(_QUERIES["governed_by"].encode())).fetchone()
    return row[0] if row else {}


async def _binds(server: RegionServer, region: str, document: Document, until_s: float) -> bool:
    """Have a region look, and ask it until a moment whether it goes by a document; return whether it does."""
    look = True
    while True:
        told = await governed_by(server, region, look=look)
        if told is None:
            return False
        if told.get(document.kind, {}).get("version", 0) >= document.version:
            return True
        if boottime_s() > until_s:
            return False
        look = False
        await asyncio.sleep(_POLL_S)
