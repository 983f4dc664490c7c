"""Halts: one may halt at once, in whichever region; it takes two to go on."""

# Annotations are values here, so that OpenAPI is true.

import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, get, post
from litestar.params import JSONBody, PathParameter
from msgspec import Meta

from acgs2.api.agreed import Binding, agree
from acgs2.api.door import authenticate, principal_of
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES, clean
from acgs2.api.tokens import Principal
from acgs2.consensus import Document
from acgs2.errors import ForbiddenError, NotFoundError, UnavailableError
from acgs2.model.clock import moment_of
from acgs2.model.ids import uuid7
from acgs2.policy import Constitution, Halt, Halts
from acgs2.store.templates import fragments

__all__ = ["HANDLERS"]

Http = Request[Any, Any, Any]
_QUERIES = fragments("governance.sql")
_COMMON: dict[str, Any] = {"guards": [authenticate], "tags": ["governance"], "responses": RESPONSES}
HaltId = Annotated[UUID, PathParameter(description="The id of a halt.")]


class NewHalt(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Who shall not act any more, and why; the reason is read in all regions and must name no person."""

    scope: Literal["agent", "tenant", "all"]
    reason: Annotated[str, Meta(min_length=1, max_length=2000)]
    target: UUID | None = None
    id: UUID | None = None
    wait: bool = False


class Wish(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """That a halt ends; whether to wait until all regions say that it has."""

    wait: bool = False


class Asked(msgspec.Struct, kw_only=True):
    """An operator who asked to end a halt, and when."""

    by: str
    at: datetime


class Shown(msgspec.Struct, kw_only=True):
    """A halt in force."""

    id: UUID
    scope: str
    target: UUID | None
    reason: str
    by: str
    since: datetime
    resumes: list[Asked]


class Halted(msgspec.Struct, kw_only=True):
    """A halt, whom it binds already, and whether this region knows its target at all."""

    halt: Shown
    known_here: bool
    binding: Binding


class Resumed(msgspec.Struct, kw_only=True):
    """What a wish to end a halt has come to: `requested` by the first operator, `resumed` by the second."""

    id: UUID
    outcome: Literal["requested", "resumed"]
    binding: Binding


@get("/api/v1/halts", summary="Who may not act now", **_COMMON)
async def listed(request: Http) -> list[Shown]:
    """Return the halts in force as far as this region knows; a tenant sees those that concern it."""
    server: RegionServer = request.app.state.server
    known = server.governance.known
    if known is None:
        raise UnavailableError(
            "constitution-unknown", "The region does not know yet what is in force.", hint="Try again."
        )
    entries = list(known.halts.entries)
    tenant = principal_of(request).tenant
    if tenant is not None:
        agents = [halt.target for halt in entries if halt.scope == "agent"]
        mine = {tenant, "", *await _agents_of(server, tenant, agents)}
        entries = [halt for halt in entries if halt.target in mine]
    return [_shown(halt) for halt in entries]


@post("/api/v1/halts", summary="Halt an agent, a tenant, or everything", **_COMMON)
async def halt(request: Http, data: JSONBody[NewHalt]) -> Halted:
    """Halt at once; answers when a majority has it, from when on it binds every region within a lease."""
    server: RegionServer = request.app.state.server
    clean(await request.body(), data)
    principal = principal_of(request)
    target = str(data.target) if data.target is not None else ""
    await _may_halt(server, await server.governance.authority(), principal, data.scope, target)
    at_us = time.time_ns() // 1000
    made = str(data.id or uuid7(at_us // 1000, os.urandom(10)))

    def decide(now: Document | None) -> Any:
        halts = _halts(now)
        again = _same(halts, data, target, principal)
        if again is not None and data.id is None:
            return halts.document()
        return halts.halt(made, data.scope, target, data.reason, principal.name, at_us).document()

    document, binding = await agree(server, "halts", decide, wait=data.wait)
    halts = Halts.parse(document.content)
    found = next((each for each in halts.entries if each.id == made), _same(halts, data, target, principal))
    if found is None:
        raise UnavailableError(
            "contended", "The halt was ended while it was made.", hint="See /api/v1/halts, and try again."
        )
    known = data.target is None or await _known(server, data.target)
    return Halted(halt=_shown(found), known_here=known, binding=binding)


@post("/api/v1/halts/{halt_id:uuid}/resume", status_code=200, summary="Ask that a halt ends", **_COMMON)
async def resume(request: Http, halt_id: HaltId, data: JSONBody[Wish]) -> Resumed:
    """Ask to end a halt; the first operator's wish is noted, a second one's ends it."""
    server: RegionServer = request.app.state.server
    principal = principal_of(request)
    _operator(await server.governance.authority(), principal, "resume")
    decide, ended = _resuming(str(halt_id), principal.name, time.time_ns() // 1000)
    _, binding = await agree(server, "halts", decide, wait=data.wait)
    return Resumed(id=halt_id, outcome="resumed" if ended() else "requested", binding=binding)


def _resuming(
    halt_id: str, by: str, at_us: int
) -> tuple[Callable[[Document | None], Any], Callable[[], bool]]:
    """Return the change of one wish, which knows its own effect, and whether that ends the halt."""
    ends = False

    def decide(now: Document | None) -> Any:
        nonlocal ends
        halts = _halts(now)
        entry = next((each for each in halts.entries if each.id == halt_id), None)
        if (entry is None and ends) or (
            entry is not None and any((each.by, each.at_us) == (by, at_us) for each in entry.resumes)
        ):
            return halts.document()
        after = halts.resume(halt_id, by, at_us)
        ends = all(each.id != halt_id for each in after.entries)
        return after.document()

    return decide, lambda: ends


async def _may_halt(
    server: RegionServer, constitution: Constitution, principal: Principal, scope: str, target: str
) -> None:
    """Let operators halt everything, and a tenant's services themselves and their agents; refuse the rest."""
    if principal.tenant is None or principal.role != "service":
        _operator(constitution, principal, "halt")
        return
    if not constitution.permits("service", "halt"):
        raise _not_allowed(principal, "halt")
    if scope == "tenant" and target == principal.tenant:
        return
    if scope == "agent" and target:
        if target in await _agents_of(server, principal.tenant, [target]):
            return
        raise NotFoundError(
            "agent-unknown",
            f"{server.region} knows no such agent of yours.",
            hint="Ask in a region that holds its zone.",
        )
    raise ForbiddenError(
        "halt-not-yours",
        "A tenant's service halts its own tenant or agents, and nobody else.",
        hint="Ask an operator.",
    )


def _operator(constitution: Constitution, principal: Principal, act: str) -> None:
    if (
        principal.tenant is not None
        or principal.role != "operator"
        or not constitution.permits("operator", act)
    ):
        raise _not_allowed(principal, act)


def _not_allowed(principal: Principal, act: str) -> ForbiddenError:
    return ForbiddenError(
        "role-not-allowed",
        f"Who acts as {principal.role}{' of a tenant' if principal.tenant else ''} may not {act} this.",
        hint="The constitution says which roles may; ask an operator.",
        act=act,
    )


def _same(halts: Halts, data: NewHalt, target: str, principal: Principal) -> Halt | None:
    """Return a halt that says the same already: a repeat of what may have been done is not done twice."""
    wanted = (data.scope, target, data.reason.strip(), principal.name)
    return next((h for h in halts.entries if (h.scope, h.target, h.reason, h.by) == wanted), None)


def _halts(now: Document | None) -> Halts:
    return Halts.parse(now.content) if now is not None else Halts()


async def _agents_of(server: RegionServer, tenant: str, keys: list[str]) -> set[str]:
    async with server.database("SELECT", "agent") as conn:
        cursor = await conn.execute(_QUERIES["agents_of"].encode(), {"tenant": tenant, "keys": keys})
        return {key for (key,) in await cursor.fetchall()}


async def _known(server: RegionServer, key: UUID) -> bool:
    async with server.database("SELECT", "agent") as conn:
        row = await (await conn.execute(_QUERIES["known_here"].encode(), {"key": key})).fetchone()
    return bool(row and row[0])


def _shown(halt: Halt) -> Shown:
    return Shown(
        id=UUID(halt.id),
        scope=halt.scope,
        target=UUID(halt.target) if halt.target else None,
        reason=halt.reason,
        by=halt.by,
        since=moment_of(halt.at_us),
        resumes=[Asked(by=each.by, at=moment_of(each.at_us)) for each in halt.resumes],
    )


HANDLERS: list[Any] = [listed, halt, resume]
