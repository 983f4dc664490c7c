"""Short-lived bearer tokens: JWTs signed with Ed25519 (RFC 8037), verified against a JWK set."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey
from msgspec import Meta

from acgs2.errors import AcgsError, InputError

__all__ = ["CONTROLLER", "ROLES", "Principal", "TokenError", "Verifier", "create_keys", "mint"]

#: The roles that somebody is given a token for.
ROLES = ("operator", "service", "agent", "approver", "auditor")
#: The role of the region that leads, while it verifies what a plan did; it has a key of its own.
CONTROLLER = "controller"
#: Private keys of a local cluster, and the roles that tokens made with them may have.
_KEYS = {"signing.json": ROLES, "controller.json": (CONTROLLER,)}
#: The member of a JWK that says so; a key that says nothing is good for no role.
_ROLES = "acgs2_roles"
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
    """Make signing.json and controller.json (mode 0600) where there are none, and jwks.json of both."""
    public = []
    for name, roles in _KEYS.items():
        private = folder / name
        if not private.exists():
            _write_key(private, OKPKey.generate_key("Ed25519", {"use": "sig"}, auto_kid=True))
        key = _read_key(private)
        public.append({**key.as_dict(private=False), _ROLES: list(roles)})
    making = folder / "jwks.new"
    making.write_text(json.dumps({"keys": public}), encoding="utf-8")
    making.replace(folder / "jwks.json")


def _write_key(path: Path, key: OKPKey) -> None:
    making = path.with_suffix(".new")
    making.unlink(missing_ok=True)
    handle = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(key.as_dict(private=True), file)
    making.replace(path)


def _read_key(path: Path) -> OKPKey:
    return OKPKey.import_key(json.loads(path.read_text(encoding="utf-8")))


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
        role: one that the key is good for.
        audience: the topology's name.
        now_s: seconds since the epoch.
        tenant: whose records the bearer may see; never for a controller, always for an agent.
        lifetime_s: for how long it is good.
    """
    key = _read_key(signing_key)
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
    role: Literal["operator", "service", "agent", "approver", "auditor", "controller"]
    exp: float
    tenant: UUID | None = None


class Verifier:
    """Checks tokens against one JWK set, in which each key says for which roles it is good.

    Raises:
        InputError: it does not say so clearly (`keys-unclear`).
    """

    def __init__(self, jwks: Path, audience: str) -> None:
        self._keys = KeySet.import_key_set(json.loads(jwks.read_text(encoding="utf-8")))
        self._roles = _roles_of(self._keys)
        self._seen: dict[str, tuple[Principal, float]] = {}
        self._rules = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": "acgs2"},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
            role={"essential": True, "values": [*ROLES, CONTROLLER]},
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
            decoded = jwt.decode(token, self._keys, algorithms=[_ALGORITHM])
            self._rules.validate(decoded.claims)
            found = msgspec.convert(decoded.claims, _Claims)
        except JoseError as error:
            raise _refused(f"The token is not accepted: {error.description or error.error}.") from error
        except (ValueError, TypeError, KeyError, RecursionError, msgspec.ValidationError) as error:
            raise _refused("The token is not well-formed.") from error
        if found.role not in self._roles.get(decoded.header.get("kid"), ()):
            raise _refused("The key that signed the token is not good for its role.")
        if found.role == CONTROLLER and not (found.tenant is None and found.sub.startswith("controller@")):
            raise _refused("A controller's token names a region, and no tenant.")
        if found.tenant is None and found.role == "agent":
            raise _refused("An agent's token names its tenant.")
        tenant = str(found.tenant) if found.tenant is not None else None
        return Principal(found.sub, found.role, tenant), found.exp + _LEEWAY_S


def _roles_of(keys: KeySet) -> Mapping[str | None, frozenset[str]]:
    """Return the roles that each key of a set is good for, by its name."""
    found: dict[str | None, frozenset[str]] = {}
    for key in keys:
        try:
            roles = msgspec.convert(key.get(_ROLES, []), frozenset[str])
        except msgspec.ValidationError as error:
            raise _unclear(f"{_ROLES} of {key.kid} is no list of roles") from error
        if key.kid in found:
            raise _unclear(f"two keys are called {key.kid}")
        found[key.kid] = roles
    return found


def _unclear(why: str) -> InputError:
    return InputError(
        "keys-unclear",
        f"The keys that tokens are verified with cannot be told apart: {why}.",
        hint=f"Give each a kid of its own, and name in {_ROLES} what it is good for.",
    )


def _refused(why: str) -> TokenError:
    return TokenError("token-invalid", why, hint="Get a new one, for example with `acgs2 token`.")
