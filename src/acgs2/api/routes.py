"""Routes of an entity, made from its declaration; annotations are values here, so that OpenAPI is true."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request as HttpRequest
from litestar import Response, Router, delete, get, patch, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, JSONBody, PathParameter, QueryParameter

from acgs2.api.door import ZONE_HEADER, authenticate, guard_read, guard_write, principal_of, what_is_said
from acgs2.api.records import Records, Request
from acgs2.api.schemas import create_of, page_of, patch_of, record_of
from acgs2.errors import InputError
from acgs2.model.entity import Entity, Strategy

__all__ = ["RESPONSES", "Problem", "RecordId", "Zone", "clean", "router_of"]


class Problem(msgspec.Struct, kw_only=True):
    """A problem document (RFC 9457); further members depend on its type."""

    type: str
    title: str
    status: int
    detail: str


_TITLES = {
    400: "wrong input",
    401: "no valid token",
    403: "not allowed",
    404: "not here",
    405: "never changed",
    409: "in conflict",
    410: "erased",
    412: "another version",
    413: "too large",
    415: "not JSON",
    421: "not lawful here",
    428: "If-Match missing",
    503: "cannot be done now, or outcome unknown",
}
#: What any route may answer instead.
RESPONSES = {
    code: ResponseSpec(
        Problem, description=title, generate_examples=False, media_type="application/problem+json"
    )  # type: ignore[arg-type]
    for code, title in _TITLES.items()
}

Key = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="A repeat with the same key is not carried out twice.",
    ),
]
Zone = Annotated[
    str | None,
    HeaderParameter(name=ZONE_HEADER, max_length=63, description="The zone of the data; required to write."),
]
Match = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match", max_length=200, description="The ETag of the version that is to be changed."
    ),
]
RecordId = Annotated[UUID, PathParameter(description="The id of a record.")]
Limit = Annotated[int, QueryParameter(name="limit", ge=1, le=200)]
After = Annotated[UUID | None, QueryParameter(name="next", description="As an earlier page gave it.")]
Tenant = Annotated[UUID | None, QueryParameter(name="tenant")]


#: Found by whose they are: they have routes of their own for that.
_BY_OWNER = ("policy",)


def router_of(entity: Entity, acts: list[Any]) -> Router:
    """Return the routes of one entity, with the acts that are its own."""
    handlers = [*acts, _list(entity)]
    guards: list[Any] = [authenticate]
    if entity.name not in _BY_OWNER:
        handlers.append(_get(entity))
    if not entity.managed:
        handlers += [_create(entity), _erase(entity)]
        if entity.strategy is not Strategy.APPEND_ONLY:
            handlers.append(_patch(entity))
    return Router(f"/{entity.path}", route_handlers=handlers, guards=guards, tags=[entity.name])


def _answer(shown: dict[str, Any], status: int, path: str = "") -> Response[Any]:
    etag = shown.pop("_etag")
    headers = {"ETag": etag}
    if status == 201:
        headers["Location"] = f"{path}/{shown['id']}"
    return Response(shown, status_code=status, headers=headers)


async def _request(http: HttpRequest[Any, Any, Any], key: str | None, match: str | None) -> Request:
    return Request(principal_of(http), http.scope["state"]["zone"], await http.body(), key, match)


def clean(raw: bytes, value: Any) -> None:
    """Refuse NUL characters, which no text in PostgreSQL can hold; raises InputError."""
    if b"\\u0000" in raw and _has_nul(msgspec.to_builtins(value)):
        raise InputError("nul-character", "Text may not contain the character NUL.", hint="Take it out.")


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_nul(k) or _has_nul(v) for k, v in value.items())
    return isinstance(value, list) and any(_has_nul(v) for v in value)


def _create(entity: Entity) -> Any:
    body_type, shown_type = create_of(entity), record_of(entity)

    @post(
        "/",
        guards=[guard_write(entity)],
        operation_id=f"create_{entity.name}",
        summary=f"Create a {entity.name}",
        responses={
            **RESPONSES,
            200: ResponseSpec(
                shown_type, description="a repeat; the record as it is now", generate_examples=False
            ),
        },
    )
    async def create(
        request: HttpRequest[Any, Any, Any],
        data: JSONBody[body_type],  # pyright: ignore[reportInvalidTypeForm]
        idempotency_key: Key = None,
        zone: Zone = None,
    ) -> Response[shown_type]:  # type: ignore[valid-type]
        asked = await _request(request, idempotency_key, None)
        clean(asked.body, data)
        shown, status = await Records(request.app.state.server, entity).create(asked, data)
        return _answer(shown, status, f"/api/v1/{entity.path}")

    return create


def _patch(entity: Entity) -> Any:
    body_type, shown_type = patch_of(entity), record_of(entity)

    @patch(
        "/{record_id:uuid}",
        guards=[guard_write(entity)],
        operation_id=f"change_{entity.name}",
        summary=f"Change a {entity.name}",
        responses=RESPONSES,
    )
    async def change(
        request: HttpRequest[Any, Any, Any],
        record_id: RecordId,
        data: JSONBody[body_type],  # pyright: ignore[reportInvalidTypeForm]
        idempotency_key: Key = None,
        if_match: Match = None,
        zone: Zone = None,
    ) -> Response[shown_type]:  # type: ignore[valid-type]
        asked = await _request(request, idempotency_key, if_match)
        clean(asked.body, data)
        shown, status = await Records(request.app.state.server, entity).patch(asked, record_id, data)
        return _answer(shown, status)

    return change


def _erase(entity: Entity) -> Any:
    @delete(
        "/{record_id:uuid}",
        guards=[guard_write(entity)],
        operation_id=f"erase_{entity.name}",
        status_code=204,
        summary=f"Erase a {entity.name} everywhere",
        responses=RESPONSES,
    )
    async def erase(
        request: HttpRequest[Any, Any, Any], record_id: RecordId, if_match: Match = None, zone: Zone = None
    ) -> None:
        asked = await _request(request, None, if_match)
        await Records(request.app.state.server, entity).erase(asked, record_id)

    return erase


def _reading(entity: Entity) -> list[Any]:
    return [guard_read(entity), what_is_said] if entity.name == "message" else [guard_read(entity)]


def _get(entity: Entity) -> Any:
    shown_type = record_of(entity)

    @get(
        "/{record_id:uuid}",
        guards=_reading(entity),
        operation_id=f"get_{entity.name}",
        summary=f"Show a {entity.name}",
        responses=RESPONSES,
    )
    async def show(
        request: HttpRequest[Any, Any, Any], record_id: RecordId, zone: Zone = None
    ) -> Response[shown_type]:  # type: ignore[valid-type]
        records = Records(request.app.state.server, entity)
        return _answer(await records.get(principal_of(request), record_id), 200)

    return show


def _list(entity: Entity) -> Any:
    page_type = page_of(entity)

    @get(
        "/",
        guards=_reading(entity),
        operation_id=f"list_{entity.name}",
        summary=f"List {entity.name} records",
        responses=RESPONSES,
    )
    async def index(
        request: HttpRequest[Any, Any, Any],
        limit: Limit = 50,
        after: After = None,
        tenant: Tenant = None,
        zone: Zone = None,
    ) -> Response[page_type]:  # type: ignore[valid-type]
        records = Records(request.app.state.server, entity)
        rows, more = await records.list(principal_of(request), limit, after, tenant)
        for row in rows:
            row.pop("_etag")
        return Response({"items": rows, "next": more})

    return index
