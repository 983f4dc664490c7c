"""The audit log over HTTP: checkpoints, tiles, leaves and proofs."""

# Annotations are values here, so that OpenAPI is true.

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, get
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.params import PathParameter, QueryParameter

from acgs2.api.door import authenticate, principal_of
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES
from acgs2.audit.keys import read_trusted
from acgs2.audit.leaf import Leaf
from acgs2.audit.reader import LogReader, Place, Proven
from acgs2.audit.tiles import Tile, parse_number
from acgs2.errors import ForbiddenError, InputError, NotFoundError, UnavailableError

__all__ = ["HANDLERS"]

Http = Request[Any, Any, Any]
#: How long a proof waits for its leaf to be witnessed.
_PATIENCE_S = 3.0
_LOOK_S = 0.05
_LEVELS = 8

Subject = Annotated[UUID, QueryParameter(name="subject", description="What the leaves are about.")]
After = Annotated[int, QueryParameter(name="after", ge=0, le=2**53, description="Sizes above this one.")]
Limit = Annotated[int, QueryParameter(name="limit", ge=1, le=1000)]
Rest = Annotated[str, PathParameter(description="The rest of the tile's path.", max_length=100)]
Size = Annotated[int | None, QueryParameter(name="size", ge=1, le=2**53, description="At so many leaves.")]


def auditors_only(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Let operators and auditors in who belong to no tenant: a log has the acts of all of them."""
    principal = principal_of(connection)
    if principal.role not in ("operator", "auditor") or principal.tenant is not None:
        raise ForbiddenError(
            "role-forbidden",
            "Only operators and auditors read the whole log.",
            hint="Ask for /api/v1/audit/proofs of what is your own.",
        )


_WHOLE: dict[str, Any] = {
    "guards": [authenticate, auditors_only],
    "tags": ["audit"],
    "responses": RESPONSES,
}
_OWN: dict[str, Any] = {"guards": [authenticate], "tags": ["audit"], "responses": RESPONSES}


@asynccontextmanager
async def _reader(request: Http) -> AsyncIterator[LogReader]:
    server: RegionServer = request.app.state.server
    trusted = await asyncio.to_thread(_trusted, server)
    async with server.pool.connection() as conn:
        yield LogReader(conn, trusted, server.audit.needed)


def _trusted(server: RegionServer) -> Any:
    path = server.config.audit_keys_path
    if path is None or not server.audit.log:
        raise UnavailableError(
            "audit-unknown", "The audit log of this region has not begun.", hint="Try again in a moment."
        )
    return read_trusted(Path(path))


@get("/api/v1/audit", summary="How far the log is, and who vouches for it", **_WHOLE)
async def status(request: Http) -> dict[str, Any]:
    """Return the size of the log, up to where it is witnessed and by whom, and what is wrong."""
    server: RegionServer = request.app.state.server
    known = server.audit
    return {
        "region": server.region,
        "origin": known.origin,
        "size": known.size,
        "witnessed": known.witnessed,
        "needed": known.needed,
        "witnesses": [
            {"name": name, "size": size, "time_s": time_s}
            for name, (size, time_s) in sorted(known.cosigned.items())
        ],
        "lag_ms": known.lag_us // 1000,
        "damage": known.damage,
    }


@get("/api/v1/audit/checkpoint", media_type="text/plain", summary="The newest witnessed checkpoint", **_WHOLE)
async def checkpoint(request: Http, size: Size = None) -> str:
    """Return a checkpoint as a signed note with its cosignatures (C2SP tlog-checkpoint)."""
    server: RegionServer = request.app.state.server
    async with _reader(request) as reader:
        note = await reader.checkpoint(server.audit.log, size)
    if note is None:
        raise NotFoundError("checkpoint-unknown", "There is no such checkpoint.", hint="See /api/v1/audit.")
    return str(note)


@get("/api/v1/audit/keys", media_type="text/plain", summary="Whose signatures count", **_WHOLE)
async def keys(request: Http) -> str:
    """Return the public keys that this region goes by; a reader trusts them only from elsewhere."""
    return "".join(f"{key}\n" for key in (await asyncio.to_thread(_trusted, request.app.state.server)).keys)


@get("/api/v1/audit/history", summary="Earlier witnessed checkpoints", **_WHOLE)
async def history(request: Http, after: After = 0, limit: Limit = 200) -> list[str]:
    """Return witnessed checkpoints as notes, in order."""
    server: RegionServer = request.app.state.server
    async with _reader(request) as reader:
        return [str(note) for note in await reader.history(server.audit.log, after, limit)]


@get("/api/v1/audit/witnessed", summary="What this region cosigned of others' logs", **_WHOLE)
async def witnessed(request: Http) -> list[dict[str, Any]]:
    """Return the last checkpoint that this region cosigned of every other log, as the log signed it."""
    async with _reader(request) as reader:
        return await reader.cosigned_here()


@get("/api/v1/audit/tile/{rest:path}", media_type="application/octet-stream", summary="A tile", **_WHOLE)
async def tile(request: Http, rest: Rest) -> Response[bytes]:
    """Return a tile of hashes, `LEVEL/NUMBER`, or of leaves, `entries/NUMBER` (C2SP tlog-tiles)."""
    server: RegionServer = request.app.state.server
    level, _, path = rest.removeprefix("/").partition("/")
    try:
        number, width = parse_number(path)
        if level != "entries" and not (level.isascii() and level.isdigit() and int(level) < _LEVELS):
            raise ValueError(f"there is no level {level!r}")
    except ValueError as error:
        raise InputError("tile-unknown", f"{error}.", hint="See https://c2sp.org/tlog-tiles.") from error
    found: bytes | None = None
    if number < 2**40:
        async with _reader(request) as reader:
            if level == "entries":
                found = await reader.entries(server.audit.log, number, width)
            else:
                found = await reader.tile(server.audit.log, Tile(int(level), number, width))
    if found is None:
        raise NotFoundError("tile-unknown", "The log has not come so far.", hint="See /api/v1/audit.")
    return Response(found, headers={"cache-control": "private, max-age=31536000, immutable"})


@get("/api/v1/audit/leaves", summary="Leaves about a subject", **_OWN)
async def leaves(request: Http, subject: Subject) -> list[dict[str, Any]]:
    """Return what was logged about a subject; index is null until the sequencer has come to it."""
    async with _reader(request) as reader:
        return [_shown(place) for place in await reader.places(subject, _tenant(request))]


@get("/api/v1/audit/proofs", summary="Leaves about a subject, with proofs", **_OWN)
async def proofs(request: Http, subject: Subject) -> list[dict[str, Any]]:
    """Return leaves with the proof that they are in a checkpoint; waits a moment until that is witnessed."""
    server: RegionServer = request.app.state.server
    tenant = _tenant(request)
    deadline_s = time.monotonic() + _PATIENCE_S
    async with _reader(request) as reader:
        while True:
            places = await reader.places(subject, tenant)
            late = [p for p in places if not _is_witnessed(server, p)]
            if not late or time.monotonic() > deadline_s:
                break
            await asyncio.sleep(_LOOK_S)
        found = [(place, await reader.prove(place)) for place in places]
    return [_proven(place, proven) for place, proven in found]


def _is_witnessed(server: RegionServer, place: Place) -> bool:
    if place.index is None:
        return False
    return place.log != server.audit.log or server.audit.witnessed > place.index


def _tenant(request: Http) -> UUID | None:
    """Return the tenant whose leaves the principal sees; None for all."""
    principal = principal_of(request)
    if principal.tenant is not None:
        return UUID(principal.tenant)
    if principal.role not in ("operator", "auditor"):
        raise ForbiddenError(
            "role-forbidden", "Only operators and auditors see all leaves.", hint="Use a tenant's token."
        )
    return None


def _shown(place: Place) -> dict[str, Any]:
    leaf = Leaf.parse(place.entry)
    return {
        "log": place.log,
        "index": place.index,
        "at_us": leaf.at_us,
        "kind": leaf.kind,
        "subject": leaf.subject,
        "tenant": leaf.tenant,
        "body": leaf.body,
        "entry": place.entry.decode(),
    }


def _proven(place: Place, proven: Proven | None) -> dict[str, Any]:
    shown = _shown(place)
    if proven is None:
        return {**shown, "checkpoint": None, "proof": None, "witnesses": []}
    return {
        **shown,
        "checkpoint": proven.checkpoint,
        "proof": [base64.b64encode(each).decode() for each in proven.proof],
        "witnesses": list(proven.witnesses),
    }


HANDLERS: list[Any] = [status, checkpoint, keys, history, witnessed, tile, leaves, proofs]
