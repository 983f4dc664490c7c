"""The constitution in force: shown to all, amended by its amenders' signatures, the same in every region."""

# Annotations are values here, so that OpenAPI is true.

import asyncio
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta
from psycopg.rows import dict_row

from acgs2 import policy
from acgs2.api.agreed import Binding, agree, governed_by
from acgs2.api.door import authenticate, operators_only, principal_of
from acgs2.api.in_force import constitution_of, platform_of
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES, clean
from acgs2.consensus import Document
from acgs2.errors import ForbiddenError, NotFoundError, UnavailableError
from acgs2.policy import Signature
from acgs2.store.templates import fragments

__all__ = ["HANDLERS"]

Http = Request[Any, Any, Any]
_QUERIES = fragments("governance.sql")
_COMMON: dict[str, Any] = {"guards": [authenticate], "tags": ["governance"], "responses": RESPONSES}
_LIMIT = 200
Digest = Annotated[
    str | None,
    QueryParameter(
        name="digest", pattern="^[0-9a-f]{64}$", description="Of an earlier version, to see that."
    ),
]


class GivenSignature(msgspec.Struct, forbid_unknown_fields=True):
    """An amender's signature of the amendment."""

    amender: Annotated[str, Meta(min_length=1, max_length=200)]
    signature: Annotated[str, Meta(min_length=1, max_length=200)]


class NewAmendment(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The whole constitution as it shall be, and who signs that it follows the one in force."""

    document: dict[str, Any]
    signatures: Annotated[list[GivenSignature], Meta(max_length=100)]
    wait: bool = False


class Shown(msgspec.Struct, kw_only=True):
    """One version of the constitution, and since when this region went by it."""

    id: str
    version: int
    digest: str
    governing: bool
    learned_at: datetime
    document: dict[str, Any]
    signatures: list[Signature]


class Version(msgspec.Struct, kw_only=True):
    """That a version was in force here, and from when on."""

    version: int
    digest: str
    learned_at: datetime
    bound_at: datetime | None


class Amended(msgspec.Struct, kw_only=True):
    """The version in force after an amendment; not `amended` if it was in force before."""

    version: int
    digest: str
    amended: bool
    binding: Binding


class Regions(msgspec.Struct, kw_only=True):
    """What each region says that it goes by, null for one that is silent; `agreed` if all say the same."""

    agreed: bool
    regions: dict[str, dict[str, Any] | None]


@get("/api/v1/constitution", summary="The constitution in force", **_COMMON)
async def shown(request: Http, digest: Digest = None) -> Shown:
    """Return the constitution that this region goes by, or an earlier one that it went by."""
    server: RegionServer = request.app.state.server
    for row in await _history(server):
        made = policy.of(row["document"]["document"])
        if digest in (None, made.digest):
            return Shown(
                id=made.id,
                version=made.version,
                digest=made.digest,
                governing=digest is None and server.governance.lease_left_s() > 0,
                learned_at=row["learned_at"],
                document=row["document"]["document"],
                signatures=msgspec.convert(row["document"]["signatures"], list[Signature]),
            )
    if digest is None:
        raise UnavailableError(
            "constitution-unknown", "The region does not know yet what is in force.", hint="Try again."
        )
    raise NotFoundError(
        "constitution-unknown-version",
        "This region never went by such a version.",
        hint="See /api/v1/constitution/versions.",
    )


@get("/api/v1/constitution/versions", summary="Which versions were in force, from when on", **_COMMON)
async def versions(request: Http) -> list[Version]:
    """Return the versions that this region went by, newest first."""
    server: RegionServer = request.app.state.server
    found = []
    for row in await _history(server):
        made = policy.of(row["document"]["document"])
        found.append(
            Version(
                version=made.version,
                digest=made.digest,
                learned_at=row["learned_at"],
                bound_at=row["bound_at"],
            )
        )
    return found


@get(
    "/api/v1/governance",
    summary="By what every region goes",
    **{**_COMMON, "guards": [authenticate, operators_only]},
)
async def regions(request: Http) -> Regions:
    """Ask every region that is linked with this one by which documents it goes."""
    server: RegionServer = request.app.state.server
    names = sorted([server.region, *server.config.peer_databases])
    told = await asyncio.gather(*(governed_by(server, name) for name in names))
    heard = [dict(each) for each in told if each]
    return Regions(
        agreed=len(heard) == len(names) and all(each == heard[0] for each in heard),
        regions={
            name: dict(each) if each is not None else None for name, each in zip(names, told, strict=True)
        },
    )


@post("/api/v1/constitution/amendments", status_code=200, summary="Amend the constitution", **_COMMON)
async def amend(request: Http, data: JSONBody[NewAmendment]) -> Amended:
    """Put a signed amendment in force, everywhere from one version on.

    Amenders sign with their own keys, beforehand; who submits it needs to be an operator and signs nothing.
    """
    server: RegionServer = request.app.state.server
    clean(await request.body(), data)
    principal = principal_of(request)
    if principal.tenant is not None or principal.role != "operator":
        raise ForbiddenError(
            "role-not-allowed", "Operators submit amendments.", hint="Give the signed file to an operator."
        )
    await server.governance.authority()
    proposed = policy.of(data.document, "the amendment")
    signatures = [Signature(each.amender, each.signature) for each in data.signatures]
    content = {"document": data.document, "signatures": msgspec.to_builtins(signatures)}
    await _fits(server, proposed)
    amended = False

    def decide(now: Document | None) -> Any:
        nonlocal amended
        if now is None:
            raise UnavailableError("constitution-unknown", "Nothing was founded yet.", hint="Try again.")
        current = constitution_of(now, server.topology.constitution.id)
        if current.digest == proposed.digest:  # before, or by this very change, which is asked for again
            return now.content
        policy.amendment.check(current, proposed, signatures)
        amended = True
        return content

    _, binding = await agree(server, "constitution", decide, wait=data.wait)
    return Amended(version=proposed.version, digest=proposed.digest, amended=amended, binding=binding)


async def _fits(server: RegionServer, proposed: policy.Constitution) -> None:
    """Refuse a constitution under which the platform's policies in force could not be used."""
    found = await server.governance.documents.fetch("policies")
    if found is not None:
        platform_of(found, proposed)


async def _history(server: RegionServer) -> list[dict[str, Any]]:
    async with server.database("SELECT", "in_force") as conn:
        cursor = conn.cursor(row_factory=dict_row)
        await cursor.execute(_QUERIES["history"].encode(), {"kind": "constitution", "limit": _LIMIT})
        return await cursor.fetchall()


HANDLERS: list[Any] = [shown, versions, regions, amend]
