"""Short-lived bearer tokens: JWTs signed with Ed25519 (RFC 8037), verified against a JWK set."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey
from msgspec import Meta

from acgs2.errors import AcgsError

__all__ = ["Principal", "TokenError", "Verifier", "create_keys", "mint"]

ROLES = ("operator", "service", "agent", "approver", "auditor")
_ALGORITHM = "Ed25519"
#: Regions write with clocks up to 500 ms apart, and tokens know whole seconds.
_LEEWAY_S = 1
#: How many good tokens are remembered; checking a signature costs more than all else that a request asks for.
_REMEMBERED = 10_000


class TokenError(AcgsError):
    """The token does not say who is asking."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking; a principal with a tenant sees only that tenant's records."""

    subject: str
    role: str
    tenant: str | None = None

    @property
    def name(self) -> str:
        """Return what no other principal is called: tenants name their agents as they like."""
        return self.subject if self.tenant is None else f"{self.tenant}\n{self.subject}"


def create_keys(folder: Path) -> None:
    """Make signing.json (private, mode 0600) and jwks.json in a folder, unless they are there."""
    private, public = folder / "signing.json", folder / "jwks.json"
    if private.exists() and public.exists():
        return
    key = OKPKey.generate_key("Ed25519", {"use": "sig"}, auto_kid=True)
    handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(key.as_dict(private=True), file)
    public.write_text(json.dumps({"keys": [key.as_dict(private=False)]}), encoding="utf-8")


def mint(
    signing_key: Path,
    subject: str,
    role: str,
    audience: str,
    now_s: int,
    *,
    tenant: str | None = None,
    lifetime_s: int = 900,
) -> str:
    """Return a signed token.

    Args:
        signing_key: the private JWK.
        subject: who it is for.
        role: operator, service, agent, approver or auditor.
        audience: the topology's name.
        now_s: seconds since the epoch.
        tenant: whose records the bearer may see; None only for operators and services.
        lifetime_s: for how long it is good.
    """
    key = OKPKey.import_key(json.loads(signing_key.read_text(encoding="utf-8")))
    claims = {
        "iss": "acgs2",
        "sub": subject,
        "role": role,
        "aud": audience,
        "iat": now_s,
        "exp": now_s + lifetime_s,
    } | ({"tenant": tenant} if tenant else {})
    return jwt.encode({"alg": _ALGORITHM, "kid": key.kid}, claims, key, algorithms=[_ALGORITHM])


class _Claims(msgspec.Struct):
    """What is read of a token whose signature and times are right."""

    sub: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
    role: Literal["operator", "service", "agent", "approver", "auditor"]
    exp: float
    tenant: UUID | None = None


class Verifier:
    """Checks tokens against one JWK set."""

    def __init__(self, jwks: Path, audience: str) -> None:
        self._keys = KeySet.import_key_set(json.loads(jwks.read_text(encoding="utf-8")))
        self._seen: dict[str, tuple[Principal, float]] = {}
        self._rules = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": "acgs2"},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
            role={"essential": True, "values": list(ROLES)},
        )

    def verify(self, token: str) -> Principal:
        """Return the principal of a token; one that was good is not checked anew before it expires.

        Raises:
            TokenError: it is malformed, forged, expired, or for somebody else.
        """
        seen = self._seen.get(token)
        if seen is not None and time.time() <= seen[1]:
            return seen[0]
        principal, expires_s = self._check(token)
        if len(self._seen) >= _REMEMBERED:
            self._seen.pop(next(iter(self._seen)), None)
        self._seen[token] = (principal, expires_s)
        return principal

    def _check(self, token: str) -> tuple[Principal, float]:
        try:
            claims = jwt.decode(token, self._keys, algorithms=[_ALGORITHM]).claims
            self._rules.validate(claims)
            found = msgspec.convert(claims, _Claims)
        except JoseError as error:
            raise _refused(f"The token is not accepted: {error.description or error.error}.") from error
        except (ValueError, TypeError, KeyError, RecursionError, msgspec.ValidationError) as error:
            raise _refused("The token is not well-formed.") from error
        if found.tenant is None and found.role == "agent":
            raise _refused("An agent's token names its tenant.")
        tenant = str(found.tenant) if found.tenant is not None else None
        return Principal(found.sub, found.role, tenant), found.exp + _LEEWAY_S


def _refused(why: str) -> TokenError:
    return TokenError("token-invalid", why, hint="Get a new one, for example with `acgs2 token`.")
