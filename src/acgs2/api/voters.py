"""Who votes: asked and changed in any region, one voter at a time."""

# Annotations are values here, so that OpenAPI is true.

from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.params import JSONBody
from msgspec import Meta

from acgs2.api.door import authenticate, operators_only
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES
from acgs2.consensus.members import change_voters, settle
from acgs2.consensus.votes import Members
from acgs2.errors import InputError

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


@get("/api/v1/voters", summary="Who votes in agreements", **_COMMON)
async def voters(request: Http) -> Voters:
    """Return who votes, as a majority has agreed; finishes a change that was broken off."""
    server: RegionServer = request.app.state.server
    await settle(server.register, server.voters)
    return _shown(server.register.members)


@post("/api/v1/voters", status_code=200, summary="Let a region vote, or take its vote", **_COMMON)
async def change(request: Http, data: JSONBody[VotersChange]) -> Voters:
    """Change who votes by one region; values are agreed on once more before it returns."""
    if bool(data.add) == bool(data.remove):
        raise InputError(
            "voters-unclear", "Name one region, to add or to remove.", hint='{"add": "eu-north-1"}'
        )
    server: RegionServer = request.app.state.server
    return _shown(await change_voters(server.register, server.voters, add=data.add, remove=data.remove))


HANDLERS: list[Any] = [voters, change]
