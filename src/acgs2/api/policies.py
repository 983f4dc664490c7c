"""Policies: the platform's, agreed by a majority, and each tenant's own, a record of its zone."""

# Annotations are values here, so that OpenAPI is true.

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request as Http
from litestar import Response, get, put
from litestar.params import JSONBody, PathParameter
from msgspec import UNSET, Meta, UnsetType

from acgs2.api.agreed import Binding, agree
from acgs2.api.door import guard_read, guard_write, principal_of
from acgs2.api.records import Records, Request
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES, Match, Zone, clean
from acgs2.api.schemas import create_of, patch_of, record_of
from acgs2.api.tokens import Principal
from acgs2.consensus import Document
from acgs2.errors import ConflictError, ForbiddenError, InputError, NotFoundError, UnavailableError
from acgs2.model import entities
from acgs2.policy import PLATFORM, Bundle, Constitution, groups_of
from acgs2.store.region import register_key

__all__ = ["ACTS", "policy_key"]

_POLICY = entities()["policy"]
_SHOWN = record_of(_POLICY)
_COMMON: dict[str, Any] = {"tags": ["governance"], "responses": RESPONSES}
TenantId = Annotated[UUID, PathParameter(description="The tenant's id.")]


class PlatformPolicies(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The policies that hold for everybody, in Cedar, as a whole."""

    policies: Annotated[str, Meta(max_length=200_000)]
    wait: bool = False


class TenantPolicies(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A tenant's own policies in Cedar, and its groups of approvers, as a whole."""

    policies: Annotated[str, Meta(max_length=100_000)]
    groups: dict[str, Any] | UnsetType = UNSET


class Platform(msgspec.Struct, kw_only=True):
    """The platform's policies in force, and who is bound by a change already, if it was one."""

    version: int
    digest: str
    policies: str
    binding: Binding | None = None


def policy_key(tenant: UUID) -> UUID:
    """Return the key of a tenant's policies: the same in every region."""
    return register_key("policy", str(tenant))


@get("/platform", summary="The platform's policies in force", **_COMMON)
async def platform(request: Http[Any, Any, Any]) -> Response[Platform]:
    """Return the policies that this region judges everybody by."""
    server: RegionServer = request.app.state.server
    known = server.governance.known
    if known is None:
        raise UnavailableError(
            "constitution-unknown", "The region does not know yet what is in force.", hint="Try again."
        )
    return _platform(known.documents["policies"])


@put("/platform", summary="Put other platform policies in force", **_COMMON)
async def put_platform(
    request: Http[Any, Any, Any], data: JSONBody[PlatformPolicies], if_match: Match = None
) -> Response[Platform]:
    """Replace the platform's policies, everywhere from one version on; refused if one is wrong."""
    server: RegionServer = request.app.state.server
    clean(await request.body(), data)
    constitution = await server.governance.authority()
    _may_set(constitution, principal_of(request), None)
    if if_match is None:
        raise InputError(
            "if-match-missing",
            "The platform's policies are changed only with If-Match.",
            hint="Send the ETag of the version that you saw.",
        )
    Bundle.load(data.policies, owner=PLATFORM, shared=constitution.groups, source="policies")
    content = {"text": data.policies}

    def decide(now: Document | None) -> Any:
        if now is not None and now.content == content:
            return content
        if if_match != "*" and (now is None or if_match != _etag(now)):
            raise ConflictError(
                "version-mismatch",
                "The platform's policies have changed since you saw them.",
                hint="Read them again and decide anew.",
                etag=_etag(now) if now is not None else None,
            )
        return content

    document, binding = await agree(server, "policies", decide, wait=data.wait)
    return _platform(document, binding)


@get("/{tenant_id:uuid}", guards=[guard_read(_POLICY)], summary="A tenant's policies", **_COMMON)
async def show(request: Http[Any, Any, Any], tenant_id: TenantId, zone: Zone = None) -> Response[_SHOWN]:  # type: ignore[valid-type]
    """Return a tenant's own policies."""
    server: RegionServer = request.app.state.server
    principal = principal_of(request)
    _own(principal, tenant_id)
    return _answer(await Records(server, _POLICY).get(principal, policy_key(tenant_id)), 200)


@put(
    "/{tenant_id:uuid}", guards=[guard_write(_POLICY)], summary="Put a tenant's policies in force", **_COMMON
)
async def put_tenant(
    request: Http[Any, Any, Any],
    tenant_id: TenantId,
    data: JSONBody[TenantPolicies],
    if_match: Match = None,
    zone: Zone = None,
) -> Response[_SHOWN]:  # type: ignore[valid-type]
    """Make or replace a tenant's policies; they can only narrow what the platform permits."""
    server: RegionServer = request.app.state.server
    body = await request.body()
    clean(body, data)
    constitution = server.governance.require().constitution
    principal = principal_of(request)
    _own(principal, tenant_id)
    _may_set(constitution, principal, str(tenant_id))
    groups = {} if data.groups is UNSET else data.groups
    Bundle.load(
        data.policies,
        owner=str(tenant_id),
        groups=groups_of(groups),
        shared=constitution.groups,
        source="policies",
    )
    records, key = Records(server, _POLICY), policy_key(tenant_id)
    asked = Request(principal, request.scope["state"]["zone"], body, None, if_match)
    if if_match is not None:
        shown, status = await records.patch(
            asked, key, patch_of(_POLICY)(policies=data.policies, groups=groups)
        )
        return _answer(shown, status)
    made = create_of(_POLICY)(tenant_id=tenant_id, policies=data.policies, groups=groups)
    shown, status = await records.create(asked, made, key)
    if status != 201 and (shown["policies"], shown["groups"]) != (data.policies, groups):
        raise InputError(
            "if-match-missing",
            "This tenant has policies, and they are changed only with If-Match.",
            hint="Send the ETag of the version that you saw.",
        )
    return _answer(shown, status)


def _own(principal: Principal, tenant: UUID) -> None:
    if principal.tenant not in (None, str(tenant)):
        raise NotFoundError("tenant-unknown", "There is no such tenant.", hint="Use your own tenant's id.")


def _may_set(constitution: Constitution, principal: Principal, tenant: str | None) -> None:
    """Let operators set all policies, and a tenant's services the tenant's; refuse the rest."""
    lawful = principal.role == "operator" if principal.tenant is None else principal.role == "service"
    if (
        not lawful
        or principal.tenant not in (None, tenant)
        or not constitution.permits(principal.role, "set_policies")
    ):
        raise ForbiddenError(
            "role-not-allowed",
            f"Who acts as {principal.role} may not set these policies.",
            hint="The constitution says which roles may: operators, and a tenant's services its own.",
        )


def _platform(document: Document, binding: Binding | None = None) -> Response[Platform]:
    shown = Platform(
        version=document.version,
        digest=document.digest,
        policies=document.content["text"],
        binding=binding,
    )
    return Response(shown, headers={"ETag": _etag(document)})


def _etag(document: Document) -> str:
    return f'"{document.version}-{document.digest[:16]}"'


def _answer(shown: dict[str, Any], status: int) -> Response[Any]:
    etag = shown.pop("_etag")
    return Response(shown, status_code=status, headers={"ETag": etag})


#: Beside the list of an entity's records.
ACTS: dict[str, list[Any]] = {"policy": [platform, put_platform, show, put_tenant]}
