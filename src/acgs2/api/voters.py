"""Who votes: asked and changed in any region, one voter at a time."""

# Annotations are values here, so that OpenAPI is true.

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import JSONBody
from msgspec import Meta

from acgs2.api.audited import audit
from acgs2.api.door import authenticate, operators_only, principal_of
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES
from acgs2.consensus import PaxosRegister
from acgs2.consensus.members import change_voters, settle
from acgs2.consensus.voters import DatabaseVoter
from acgs2.consensus.votes import Members
from acgs2.errors import InputError, RefusedError

__all__ = ["HANDLERS"]

Http = Request[Any, Any, Any]
Name = Annotated[str, Meta(max_length=63)]
_COMMON: dict[str, Any] = {
    "guards": [authenticate, operators_only],
    "tags": ["operations"],
    "responses": RESPONSES,
}


class VotersChange(msgspec.Struct, forbid_unknown_fields=True):
    """A region that shall vote, or one that shall not; one of the two."""

    add: Name = ""
    remove: Name = ""


class Voters(msgspec.Struct):
    """Who votes, and how often that has changed."""

    epoch: int
    voters: list[str]


def _shown(members: Members) -> Voters:
    return Voters(members.epoch, list(members.names))


def _register(request: Http) -> tuple[PaxosRegister, Mapping[str, DatabaseVoter]]:
    server: RegionServer = request.app.state.server
    if not isinstance(server.register, PaxosRegister):
        raise RefusedError(
            "voters-elsewhere",
            "What is agreed on is in etcd, and its members vote.",
            hint="Change them there: `etcdctl member`.",
        )
    return server.register, server.voters


@get("/api/v1/voters", summary="Who votes in agreements", **_COMMON)
async def voters(request: Http) -> Voters:
    """Return who votes, as a majority has agreed; finishes a change that was broken off."""
    register, voters = _register(request)
    await settle(register, voters)
    return _shown(register.members)


@post("/api/v1/voters", status_code=200, summary="Let a region vote, or take its vote", **_COMMON)
async def change(request: Http, data: JSONBody[VotersChange]) -> Voters:
    """Change who votes by one region; values are agreed on once more before it returns."""
    if bool(data.add) == bool(data.remove):
        raise InputError(
            "voters-unclear", "Name one region, to add or to remove.", hint='{"add": "eu-north-1"}'
        )
    register, voters = _register(request)
    members = await change_voters(register, voters, add=data.add, remove=data.remove)
    server: RegionServer = request.app.state.server
    body = {"epoch": members.epoch, "names": list(members.names), "by": principal_of(request).name}
    async with server.pool.connection() as conn:
        await audit(conn, "voters", None, body | {"added": data.add, "removed": data.remove})
    return _shown(members)


HANDLERS: list[Any] = [voters, change]
