"""Tokens that nobody should accept, made without the code that mints and checks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = ["tokens"]

Claims = Mapping[str, Any]


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _un64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _signed(key: Ed25519PrivateKey, header: Claims, claims: Claims | bytes) -> str:
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    text = f"{_b64(json.dumps(header).encode())}.{_b64(payload)}"
    return f"{text}.{_b64(key.sign(text.encode()))}"


def _keyed(secret: bytes, header: Claims, claims: Claims) -> str:
    text = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
    return f"{text}.{_b64(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def tokens(signing_key: Path, audience: str, tenant: str) -> dict[str, str]:
    """Return tokens by what is wrong with each; those signed with the true key have a wrong content."""
    jwk = json.loads(signing_key.read_text(encoding="utf-8"))
    true = Ed25519PrivateKey.from_private_bytes(_un64(jwk["d"]))
    other = Ed25519PrivateKey.generate()
    now_s = int(time.time())
    good = {
        "iss": "acgs2",
        "sub": "mallory",
        "role": "operator",
        "aud": audience,
        "iat": now_s,
        "exp": now_s + 600,
    }
    header = {"alg": "Ed25519", "kid": jwk["kid"], "typ": "JWT"}
    public = true.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    own = {"kty": "OKP", "crv": "Ed25519", "x": _b64(other.public_key().public_bytes_raw())}
    whole = _signed(true, header, good)
    head, payload, signature = whole.split(".")
    hs256 = header | {"alg": "HS256"}
    wrong = {
        "another issuer": good | {"iss": "somebody"},
        "another audience": good | {"aud": "elsewhere"},
        "a list of other audiences": good | {"aud": ["elsewhere", "nowhere"]},
        "expired": good | {"iat": now_s - 1200, "exp": now_s - 60},
        "not yet valid": good | {"nbf": now_s + 60},
        "issued in the future": good | {"iat": now_s + 60},
        "expires in text": good | {"exp": "tomorrow"},
        "expires never": good | {"exp": 1e400},
        "unknown role": good | {"role": "king"},
        "roles": good | {"role": ["operator"]},
        "agent of nobody": good | {"role": "agent"},
        "agent of no tenant": good | {"role": "agent", "tenant": ""},
        "tenant that is none": good | {"tenant": "' OR 1=1"},
        "tenants": good | {"tenant": [tenant]},
        "subject with NUL": good | {"sub": "a\x00b"},
        "subject that is none": good | {"sub": 5},
    }
    return {
        **{name: _signed(true, header, claims) for name, claims in wrong.items()},
        **{
            f"no {claim}": _signed(true, header, {k: v for k, v in good.items() if k != claim})
            for claim in ("iss", "sub", "role", "aud", "exp")
        },
        "forged": _signed(other, header, good),
        "changed": f"{head}.{_b64(json.dumps(good | {'sub': 'root'}).encode())}.{signature}",
        "cut": whole[:-8],
        "no signature": f"{head}.{payload}.",
        "two parts": f"{head}.{payload}",
        "four parts": f"{whole}.{signature}",
        "alg none": f"{_b64(json.dumps({'alg': 'none'}).encode())}.{payload}.",
        "alg None": f"{_b64(json.dumps(header | {'alg': 'None'}).encode())}.{payload}.{signature}",
        "HS256 with the public key": _keyed(public.public_bytes_raw(), hs256, good),
        "HS256 with the public PEM": _keyed(pem, hs256, good),
        "HS256 with the public text": _keyed(jwk["x"].encode(), hs256, good),
        "another key's id": _signed(other, header | {"kid": "other"}, good),
        "true key, other id": _signed(true, header | {"kid": "other"}, good),
        "key in the token": _signed(other, {"alg": "Ed25519", "jwk": own}, good),
        "key by address": _signed(other, {"alg": "Ed25519", "jku": "http://127.0.0.1:1/"}, good),
        "unknown and critical": _signed(true, header | {"crit": ["x"], "x": 1}, good),
        "no claims": _signed(true, header, b"null"),
        "claims in a list": _signed(true, header, b"[]"),
        "claims that are no JSON": _signed(true, header, b"\xff"),
        "deep claims": _signed(true, header, b"[" * 20_000),
        "deep header": f"{_b64(b'[' * 20_000)}.{payload}.{signature}",
        "huge": _signed(true, header, good | {"more": "a" * 20_000, "aud": "x"}),
        "no token": "",
        "dots": "..",
        "not base64": "a.b!.c",
    }
