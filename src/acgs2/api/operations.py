"""What operators look at: health, lag, conflicts, incidents, where data is."""

from __future__ import annotations

from typing import Annotated, Any, LiteralString, cast

import msgspec
import psycopg
from litestar import Request, Response, get
from litestar.params import QueryParameter
from psycopg import sql
from psycopg.rows import dict_row

import acgs2
from acgs2.api.door import authenticate, operators_only
from acgs2.api.region import RegionServer
from acgs2.model import entities
from acgs2.model.entity import Residency
from acgs2.store.templates import fragments

__all__ = ["HANDLERS"]

Http = Request[Any, Any, Any]
Limit = Annotated[int, QueryParameter(name="limit", ge=1, le=1000)]
Window = Annotated[int, QueryParameter(name="window_s", ge=1, le=300)]

_OPERATORS: list[Any] = [authenticate, operators_only]


async def _rows(request: Http, name: str, **parameters: Any) -> list[dict[str, Any]]:
    server: RegionServer = request.app.state.server
    async with server.pool.connection() as conn:
        cursor = conn.cursor(row_factory=dict_row)
        await cursor.execute(fragments("api.sql")[name].encode(), parameters)
        return await cursor.fetchall()


@get("/openapi.json", include_in_schema=False)
async def openapi(request: Http) -> Response[bytes]:
    """Answer with the OpenAPI 3.1 description of this API; anybody may ask, so it is written once."""
    state = request.app.state
    if "openapi" not in state:
        state.openapi = msgspec.json.encode(request.app.openapi_schema.to_schema())
    return Response(state.openapi, media_type="application/vnd.oai.openapi+json")


@get("/health/live", summary="The process runs", include_in_schema=False)
async def live() -> dict[str, str]:
    """Answer as soon as the process runs."""
    return {"status": "live"}


@get("/health/ready", summary="The region may serve", include_in_schema=False)
async def ready(request: Http) -> Response[dict[str, Any]]:
    """Answer 200 when the database takes writes and the rules are known."""
    health = await _health(request.app.state.server)
    return Response({"status": health["status"]}, status_code=200 if health["status"] == "ready" else 503)


@get("/health", summary="All there is to know", include_in_schema=False)
async def health(request: Http) -> Response[dict[str, Any]]:
    """Answer with everything, 503 when the region may not serve."""
    body = await _health(request.app.state.server)
    return Response(body, status_code=200 if body["status"] == "ready" else 503)


async def _health(server: RegionServer) -> dict[str, Any]:
    body = await _database_health(server)
    # Last: since it was looked at, nothing else has been waited for.
    region, term = server.leader.known()
    return body | {"leader": {"region": region, "term": term, "held_here": server.leader.held()}}


async def _database_health(server: RegionServer) -> dict[str, Any]:
    body: dict[str, Any] = {"status": "not-ready", "region": server.region, "version": acgs2.__version__}
    try:
        async with server.pool.connection(timeout=1.0) as conn:
            row = await (await conn.execute(fragments("api.sql")["health"].encode())).fetchone()
    except psycopg.Error as error:  # a pool that has none to give raises one as well
        return body | {"reason": f"database: {type(error).__name__}"}
    if row is None:
        return body
    incidents, quarantined, origin, read_only = row
    life = server.life
    zones = {zone: list(pair) for zone, pair in sorted(server.rules.pairs.items())}
    peers = {peer: server.watcher.connected(peer) for peer in sorted(server.config.peers)}
    body |= {
        "origin": origin,
        "incidents_open": incidents,
        "quarantined": quarantined,
        "zones": zones,
        "peers_connected": peers,
        "links_missing": list(server.links_missing),
        "seeded": life is not None and life.seeded,
        "replaced": server.replaced,
        "clock_apart": server.clock_apart,
        "clocks_ahead_ms": {p: round(o.ahead_us / 1000, 1) for p, (o, _) in sorted(server.offsets.items())},
        "alone": {zone: value["since"] for zone, value in server.alone.items()},
    }
    well = body["seeded"] and not server.replaced and not server.clock_apart
    if origin is not None and not read_only and zones and well:
        body["status"] = "ready"
    return body


@get(
    "/api/v1/lag",
    guards=_OPERATORS,
    tags=["operations"],
    summary="Lag of what arrives here, by source",
)
async def lag(request: Http, window_s: Window = 60) -> list[dict[str, Any]]:
    """Return count, p50 and p99 in milliseconds per source region."""
    rows = await _rows(request, "lag", window_s=window_s)
    return [{**row, "p50_ms": round(row["p50_ms"], 3), "p99_ms": round(row["p99_ms"], 3)} for row in rows]


@get(
    "/api/v1/conflicts",
    guards=_OPERATORS,
    tags=["operations"],
    summary="Losing sides of concurrent changes",
)
async def conflicts(request: Http, limit: Limit = 100) -> list[dict[str, Any]]:
    """Return the newest conflicts."""
    return await _rows(request, "conflicts", limit=limit)


@get("/api/v1/windows", guards=_OPERATORS, tags=["operations"], summary="When a pair's region went on alone")
async def windows(request: Http) -> list[dict[str, Any]]:
    """Return the windows in which this region acknowledged a pair's writes alone, newest first."""
    server: RegionServer = request.app.state.server
    async with server.pool.connection() as conn:
        cursor = conn.cursor(row_factory=dict_row)
        await cursor.execute(fragments("pairs.sql")["windows"].encode())
        return await cursor.fetchall()


@get("/api/v1/incidents", guards=_OPERATORS, tags=["operations"], summary="Open incidents")
async def incidents(request: Http, limit: Limit = 100) -> list[dict[str, Any]]:
    """Return the newest open incidents."""
    return await _rows(request, "incidents", limit=limit)


@get(
    "/api/v1/residency",
    guards=_OPERATORS,
    tags=["operations"],
    summary="Which regions may hold what, as this region knows it",
)
async def residency(request: Http) -> list[dict[str, Any]]:
    """Return a row per zone and entity; `by_consent` may hold only what is about people who consented."""
    return await _rows(request, "residency")


@get(
    "/api/v1/holdings",
    guards=_OPERATORS,
    tags=["operations"],
    summary="How much of which zone is held here",
)
async def holdings(request: Http) -> dict[str, dict[str, int]]:
    """Return the number of records per zone and entity."""
    server: RegionServer = request.app.state.server
    found: dict[str, dict[str, int]] = {}
    async with server.pool.connection() as conn:
        for entity in entities().values():
            if entity.residency is Residency.ZONE:
                text = cast(LiteralString, fragments("api.sql")["holdings"])
                query = sql.SQL(text).format(table=sql.Identifier("acgs", entity.name))
                for zone, count in await (await conn.execute(query)).fetchall():
                    found.setdefault(zone, {})[entity.name] = count
    return found


HANDLERS = [openapi, live, ready, health, lag, conflicts, windows, incidents, residency, holdings]
