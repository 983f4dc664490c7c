"""The message door in the OpenAPI document: the framework does not answer it, and cannot describe it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin

from acgs2.api.door import PREFERENCE_HEADER, ZONE_HEADER
from acgs2.api.messages import PATH, Receipt
from acgs2.bus.request import SendRequest

__all__ = ["Rendered", "with_door"]

_ACCEPTED = {
    "200": "a repeat; the receipt of the first time",
    "201": "accepted, and durable in `durable_in`",
    "202": "accepted, durable, and held until people have approved it: `deliberation` says who, until when",
}
#: Said in the words that other routes have for them.
_PROBLEMS = ("400", "401", "403", "404", "409", "410", "413", "415", "421", "503")
_DESCRIPTION = """Judge a message, keep it with its verdict, and answer when it is durable.

Agents speak for themselves, services for the agents of their tenant. A message has one receiver: `to_agent`
or `topic`. What policies refuse is 403 `denied-by-policy`, a problem with the members of a receipt; it is
stored and audited, and not delivered. The same message may be sent again anywhere for 24 hours: it is
accepted once."""


def with_door(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with the message door, described by the structs that the door reads and writes.

    Raises:
        ValueError: the document has another schema of such a name.
    """
    (body, receipt), schemas = msgspec.json.schema_components(
        [SendRequest, Receipt], ref_template="#/components/schemas/{name}"
    )
    components = document["components"]
    if clash := components["schemas"].keys() & schemas.keys():
        raise ValueError(f"two schemas are called {', '.join(sorted(clash))}")
    others = document["paths"][PATH]
    problems = others["get"]["responses"]
    accepted = {
        status: {"description": text, "content": {"application/json": {"schema": receipt}}}
        for status, text in _ACCEPTED.items()
    }
    door = {
        "tags": ["message"],
        "summary": "Send a message",
        "description": _DESCRIPTION,
        "operationId": "send_message",
        "parameters": [
            _header(ZONE_HEADER, "The zone that the sender's tenant belongs to.", required=True),
            _header(PREFERENCE_HEADER, "`auto`, or the one region that shall take it.", required=False),
        ],
        "requestBody": {"content": {"application/json": {"schema": body}}, "required": True},
        "responses": {
            **accepted,
            **{status: problems[status] for status in _PROBLEMS},
            "429": {**problems["503"], "description": "too much at once; nothing was stored"},
        },
    }
    return {
        **document,
        "components": {**components, "schemas": {**components["schemas"], **schemas}},
        "paths": {**document["paths"], PATH: {**others, "post": door}},
    }


class Rendered(JsonRenderPlugin):
    """The document as the framework's own route shows it."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the document as JSON."""
        return super().render(request, with_door(openapi_schema))


def _header(name: str, description: str, *, required: bool) -> dict[str, Any]:
    schema = {"type": "string", "maxLength": 63}
    return {"name": name, "in": "header", "schema": schema, "description": description, "required": required}
