"""Anti-entropy from time to time, and when an operator asks for it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Annotated, Any

import psycopg
from litestar import Request, post
from litestar.params import QueryParameter

from acgs2.api.door import authenticate, operators_only
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES
from acgs2.errors import InputError, UnavailableError
from acgs2.logs.write import get_logger
from acgs2.store.repair import Found, reconcile, shared
from acgs2.store.templates import fragments

__all__ = ["HANDLERS", "run_repair"]

_LOG = get_logger("acgs2.repair")
_QUERIES = fragments("repair.sql")
#: How long a region rests between comparing with one peer and the next.
_REST_S = 60.0
#: Between two batches of ranges, so that comparing takes no more than a part of a processor.
_PAUSE_S = 0.05
#: How often a region that was left compares with those whom it is not known to equal.
_LEFT_S = 1.0


async def run_repair(server: RegionServer) -> None:
    """Compare with one peer after the other until cancelled."""
    while True:
        if not server.config.peer_databases:
            await asyncio.sleep(_REST_S)  # of one region alone: a loop over nobody would let nobody else run
        for peer in server.config.peer_databases:
            await _rest(server)
            await _compared(server, peer, _PAUSE_S)


async def _rest(server: RegionServer) -> None:
    """Rest; but a region that was left compares with all meanwhile: it must be known to equal them."""
    until_s = time.monotonic() + _REST_S
    while time.monotonic() < until_s:
        if (since_s := server.participation.fenced_s) is not None:
            wanted = [p for p in server.config.peer_databases if not _equal(server, p, since_s)]
            await asyncio.gather(*(_compared(server, p, 0.0) for p in wanted))
        await asyncio.sleep(_LEFT_S)


def _equal(server: RegionServer, peer: str, since_s: float) -> bool:
    """Return whether nothing differed when this region was compared with a peer after a moment."""
    at_s, differing = server.compared.get(peer, (float("-inf"), ()))
    return at_s >= since_s and not differing


async def _compared(server: RegionServer, peer: str, pause_s: float) -> None:
    if server.life is None or not server.life.seeded or peer in server.links_missing:
        return
    try:
        await compare(server, peer, pause_s=pause_s)
    except (psycopg.Error, UnavailableError) as error:
        _LOG.info("not-compared", peer=peer, error=type(error).__name__)


async def compare(server: RegionServer, peer: str, *, pause_s: float = 0.0) -> list[Found]:
    """Compare everything that this region and a peer may both hold, and have the differences repaired."""
    done: list[Found] = []
    began_s = time.monotonic()
    async with AsyncExitStack() as stack:
        here = await _connect(stack, server.config.owner_database)
        there = await _connect(stack, server.config.peer_databases[peer])
        for entity, zone in await shared(here, peer):
            found = Found(entity, zone, peer)
            others = await _others(server, stack, here, found)
            async for _ in reconcile(here, there, server.region, found, others):
                await asyncio.sleep(pause_s)
            if found.differing:
                _LOG.warning(
                    "repaired",
                    peer=peer,
                    entity=entity,
                    zone=zone,
                    records=len(found.keys),
                    doubted=found.doubted,
                )
            done.append(found)
    # Ranges that differ without a record that does were on their way: looked at closely, they had arrived.
    differing = tuple(f"{f.entity} of {f.zone}" for f in done if f.keys)
    server.compared[peer] = (began_s, differing)
    return done


async def _others(
    server: RegionServer, stack: AsyncExitStack, here: psycopg.AsyncConnection, found: Found
) -> dict[str, psycopg.AsyncConnection]:
    """Return a third holder, to decide between two copies; none if there is none or it is away."""
    names = {"entity": found.entity, "zone": found.zone}
    row = await (await here.execute(_QUERIES["holders"].encode(), names)).fetchone()
    for name in row[0] if row else ():
        if name != found.peer and name in server.config.peer_databases and name not in server.links_missing:
            return {name: await _connect(stack, server.config.peer_databases[name])}
    return {}


async def _connect(stack: AsyncExitStack, dsn: str) -> psycopg.AsyncConnection:
    connecting = psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=3)
    return await stack.enter_async_context(await connecting)


@post(
    "/api/v1/repair",
    guards=[authenticate, operators_only],
    tags=["operations"],
    status_code=200,
    summary="Compare with peers now, and repair",
    responses=RESPONSES,
)
async def repair(
    request: Request[Any, Any, Any], peer: Annotated[str | None, QueryParameter(name="peer")] = None
) -> dict[str, Any]:
    """Compare with one peer or all; returns what was compared, what differed, what was given up."""
    server: RegionServer = request.app.state.server
    if peer is not None and peer not in server.config.peer_databases:
        raise InputError(
            "region-unknown",
            f"{peer!r} is no peer of {server.region}.",
            hint=f"Peers: {', '.join(server.config.peer_databases)}.",
        )
    began_s = time.monotonic()
    found: list[Found] = []
    away: list[str] = []
    for name in [peer] if peer else list(server.config.peer_databases):
        try:
            found += await compare(server, name)
        except psycopg.OperationalError:
            away.append(name)
    return {
        "seconds": round(time.monotonic() - began_s, 3),
        "away": away,
        "compared": [asdict(f) | {"keys": f.keys[:100]} for f in found],
    }


HANDLERS: list[Any] = [repair]
