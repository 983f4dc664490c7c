"""Leaves: what is hashed of an act, and commitments to what must not be in a log that is never erased."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import rfc8785

from acgs2.errors import InputError

__all__ = ["LEAF_BYTES", "Leaf", "canonical", "commitment"]

#: tlog-tiles gives a leaf's length two bytes.
LEAF_BYTES = 65535
_BODY_BYTES = 60000


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf as it is in the log."""

    at_us: int
    kind: str
    subject: UUID | None
    tenant: UUID | None
    body: Mapping[str, Any]

    @property
    def entry(self) -> bytes:
        """Return what is hashed: RFC 8785 JSON; the twin of acgs.audit_entry."""
        return rfc8785.dumps(
            {
                "at_us": self.at_us,
                "body": dict(self.body),
                "kind": self.kind,
                "subject": str(self.subject) if self.subject else None,
                "tenant": str(self.tenant) if self.tenant else None,
            }
        )

    @classmethod
    def parse(cls, entry: bytes) -> Leaf:
        """Read a leaf.

        Raises:
            InputError: it is none, or not canonical (`audit-malformed`).
        """
        try:
            found = msgspec.convert(msgspec.json.decode(entry), _Entry)
            leaf = cls(found.at_us, found.kind, found.subject, found.tenant, found.body)
            if leaf.entry == entry:
                return leaf
        except (msgspec.MsgspecError, rfc8785.CanonicalizationError, ValueError, RecursionError) as error:
            raise _malformed() from error
        raise _malformed()


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    at_us: int
    body: dict[str, Any]
    kind: str
    subject: UUID | None
    tenant: UUID | None


def canonical(body: Mapping[str, Any]) -> str:
    """Return a leaf's body as RFC 8785 JSON.

    Raises:
        InputError: it has a fraction, or is too long for a leaf (`audit-body-invalid`).
    """
    if _has_float(body):
        raise InputError("audit-body-invalid", "A leaf's body has a fraction.", hint="Use integers.")
    try:
        found = rfc8785.dumps(dict(body)).decode()
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise InputError("audit-body-invalid", f"A leaf's body is not JSON: {error}.") from error
    if len(found.encode()) > _BODY_BYTES:
        raise InputError(
            "audit-body-invalid",
            f"A leaf's body has more than {_BODY_BYTES} bytes.",
            hint="Log a digest of what is large.",
        )
    return found


def commitment(salt: bytes, value: str) -> str:
    """Return a commitment to personal data: nobody can tell what it was once the salt is erased.

    Args:
        salt: 16 random bytes or more, kept with the data and erased with it.
        value: what is committed to.

    Raises:
        InputError: the salt is shorter (`audit-salt-short`).
    """
    if len(salt) < 16:
        raise InputError("audit-salt-short", "A salt has at least 16 bytes.", hint="Use secrets.token_bytes.")
    return hmac.new(salt, value.encode(), hashlib.sha256).hexdigest()


def _has_float(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_float(v) for v in value.values())
    if isinstance(value, list | tuple):
        return any(_has_float(v) for v in value)
    return isinstance(value, float)


def _malformed() -> InputError:
    return InputError(
        "audit-malformed",
        "This is no leaf.",
        hint="A leaf is canonical JSON with the members of docs/audit.md.",
    )
