"""What a sender says: one message, checked for everything that can be known without asking anybody."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from acgs2.errors import InputError

__all__ = ["SendRequest", "decode", "digest_of", "has_nul"]

#: How far the time in a message's id may be from ours: behind for who repeats it, ahead for wrong clocks.
_OLDEST_S = 24 * 3600
_NEWEST_S = 300
_UUID_VERSION = 7
_Name = Annotated[str, Meta(min_length=1, max_length=100)]
_Value = Annotated[str, Meta(max_length=1000)]


class SendRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /api/v1/messages`. `priority` 3 is the most urgent."""

    message_id: Annotated[UUID, Meta(description="A UUIDv7 of now; the same one repeats the message.")]
    conversation_id: UUID
    tenant_id: UUID
    from_agent: UUID
    message_type: Annotated[str, Meta(min_length=1, max_length=100)]
    constitutional_hash: Annotated[str, Meta(min_length=1, max_length=16)]
    to_agent: Annotated[UUID | None, Meta(description="That, or a topic.")] = None
    topic: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    to_tenant_id: Annotated[UUID | None, Meta(description="The receiver's, if it is another.")] = None
    priority: Literal[0, 1, 2, 3] = 1
    content: Annotated[str, Meta(max_length=200_000)] = ""
    payload: dict[str, Any] = {}
    metadata: Annotated[dict[_Name, _Value], Meta(max_length=50)] = {}
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


_DECODER = msgspec.json.Decoder(SendRequest)
_ENCODER = msgspec.json.Encoder(order="sorted")


def decode(body: bytes, now: datetime) -> SendRequest:
    """Return the request that a body is.

    Raises:
        InputError: it is none, or contradicts itself; says what is wrong with which field.
    """
    try:
        request = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise InputError(
            "invalid-value", f"{error}.", hint="See /api/schema for what is accepted."
        ) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InputError("bad-request", f"The body is not JSON: {error}.", hint="Send one object.") from error
    except RecursionError as error:
        raise InputError("bad-request", "The body is nested too deeply.", hint="Nest less.") from error
    if b"\\u0000" in body and has_nul(msgspec.to_builtins(request)):
        raise InputError("nul-character", "Text may not contain the character NUL.", hint="Take it out.")
    _consistent(request, now)
    return request


def _consistent(request: SendRequest, now: datetime) -> None:
    if (request.to_agent is None) == (request.topic is None):
        raise InputError(
            "receiver-unclear", "A message has one receiver.", hint="Name either to_agent or topic."
        )
    if request.topic is not None and request.to_tenant_id not in (None, request.tenant_id):
        raise InputError(
            "receiver-unclear", "A topic is of the sender's tenant.", hint="Leave to_tenant_id out."
        )
    if request.message_id.version != _UUID_VERSION:
        raise InputError("message-id-version", "message_id is not a UUIDv7.", hint="See RFC 9562.")
    age_s = now.timestamp() - (request.message_id.int >> 80) / 1000
    if not -_NEWEST_S <= age_s <= _OLDEST_S:
        raise InputError(
            "message-id-time",
            "The time in message_id is not that of now.",
            hint="Set the sender's clock; a message may be repeated for 24 hours.",
            ahead_s=round(-age_s, 1),
        )
    if request.expires_at is not None and request.expires_at <= now:
        raise InputError("already-expired", "expires_at has passed.", hint="Give it time to be delivered.")


def digest_of(request: SendRequest, zone: str) -> str:
    """Return the SHA-256 (hex) of everything that the sender said: the same for every repeat."""
    return hashlib.sha256(zone.encode() + b"\n" + _ENCODER.encode(request)).hexdigest()


def has_nul(value: Any) -> bool:
    """Return whether a text anywhere in a document has the character NUL, which PostgreSQL cannot hold."""
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, Mapping):
        return any(has_nul(k) or has_nul(v) for k, v in value.items())
    return isinstance(value, list | tuple) and any(map(has_nul, value))
