"""Rows that could not be merged: list, look at, try again, give up."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, delete, get, post
from litestar.params import PathParameter
from psycopg.rows import dict_row

from acgs2.api.door import authenticate, operators_only, principal_of
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES
from acgs2.errors import ConflictError, NotFoundError
from acgs2.store.templates import fragments

__all__ = ["HANDLERS"]

Http = Request[Any, Any, Any]
Number = Annotated[int, PathParameter(description="The number of the row.", ge=1, le=2**63 - 1)]
_QUERIES = fragments("quarantine.sql")
_OPERATORS: list[Any] = [authenticate, operators_only]
_COMMON: dict[str, Any] = {"guards": _OPERATORS, "tags": ["operations"], "responses": RESPONSES}


async def _rows(request: Http, query: str, **names: Any) -> list[dict[str, Any]]:
    server: RegionServer = request.app.state.server
    async with server.pool.connection() as conn:
        cursor = conn.cursor(row_factory=dict_row)
        await cursor.execute(_QUERIES[query].encode(), names)
        return await cursor.fetchall()


def _none(number: int) -> NotFoundError:
    return NotFoundError("quarantine-unknown", f"There is no row {number}.", hint="See /api/v1/quarantine.")


@get("/api/v1/quarantine", summary="Rows that could not be merged", **_COMMON)
async def held(request: Http) -> list[dict[str, Any]]:
    """Return the rows, oldest first, without their content."""
    return await _rows(request, "list")


@get("/api/v1/quarantine/{number:int}", summary="One row, with its content", **_COMMON)
async def show(request: Http, number: Number) -> dict[str, Any]:
    """Return one row with the records that it holds."""
    found = await _rows(request, "show", number=number)
    if not found:
        raise _none(number)
    return found[0]


@post("/api/v1/quarantine/{number:int}/retry", status_code=200, summary="Take a row in again", **_COMMON)
async def retry(request: Http, number: Number) -> dict[str, Any]:
    """Try to merge a row again; it stays where it is if that fails."""
    if not await _rows(request, "show", number=number):
        raise _none(number)
    why = (await _rows(request, "retry", number=number))[0]["why"]
    if why is not None:
        raise ConflictError(
            "quarantine-stays",
            f"Row {number} still cannot be merged: {why}.",
            hint="Install the release that knows it, or drop it.",
            sqlstate=why,
        )
    return {"id": number, "left": True}


@delete("/api/v1/quarantine/{number:int}", summary="Give a row up for good", **_COMMON)
async def drop(request: Http, number: Number) -> None:
    """Drop a row; what it held is lost in this region, and an incident keeps who did it."""
    names = {"number": number, "principal": principal_of(request).subject}
    if not (await _rows(request, "drop", **names))[0]["gone"]:
        raise _none(number)


HANDLERS: list[Any] = [held, show, retry, drop]
