"""Short-lived bearer tokens: JWTs signed with Ed25519 (RFC 8037), verified against a JWK set."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from acgs2.errors import AcgsError

__all__ = ["Principal", "TokenError", "Verifier", "create_keys", "mint"]

ROLES = ("operator", "service", "agent")
_ALGORITHM = "Ed25519"


class TokenError(AcgsError):
    """The token does not say who is asking."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking; a principal with a tenant sees only that tenant's records."""

    subject: str
    role: str
    tenant: str | None = None


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
        role: operator, service or agent.
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


class Verifier:
    """Checks tokens against one JWK set."""

    def __init__(self, jwks: Path, audience: str) -> None:
        self._keys = KeySet.import_key_set(json.loads(jwks.read_text(encoding="utf-8")))
        self._rules = jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": "acgs2"},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
            role={"essential": True, "values": list(ROLES)},
        )

    def verify(self, token: str) -> Principal:
        """Return the principal of a token.

        Raises:
            TokenError: it is malformed, forged, expired, or for somebody else.
        """
        try:
            claims = jwt.decode(token, self._keys, algorithms=[_ALGORITHM]).claims
            self._rules.validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise TokenError(
                "token-invalid",
                f"The token is not accepted: {error or type(error).__name__}.",
                hint="Get a new one, for example with `acgs2 token`.",
            ) from error
        tenant = claims.get("tenant")
        if tenant is None and claims["role"] == "agent":
            raise TokenError(
                "token-invalid", "An agent's token names its tenant.", hint="Get one with a tenant."
            )
        return Principal(str(claims["sub"]), claims["role"], str(tenant) if tenant is not None else None)
