"""What operators look at: lag, conflicts, incidents, where data is."""

from __future__ import annotations

from typing import Annotated, Any, LiteralString, cast

import msgspec
from litestar import Request, Response, get
from litestar.params import QueryParameter
from psycopg import sql
from psycopg.rows import dict_row

from acgs2.api.door import authenticate, operators_only
from acgs2.api.message_door import with_door
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
        state.openapi = msgspec.json.encode(with_door(request.app.openapi_schema.to_schema()))
    return Response(state.openapi, media_type="application/vnd.oai.openapi+json")


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


HANDLERS = [openapi, lag, conflicts, windows, incidents, residency, holdings]
