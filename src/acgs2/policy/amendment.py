"""How the constitution changes: a whole new document, signed by k of the n amenders of the one in force."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

import msgspec
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from acgs2.errors import ForbiddenError, RefusedError
from acgs2.policy.constitution import LOCAL, Constitution

__all__ = ["Amendment", "Signature", "check", "public_key", "sign", "statement"]

#: What is signed begins with this line, so that it cannot be taken for anything else that is signed here.
_DOMAIN = b"acgs2 constitution amendment v1\n"
_PREFIX = "ed25519:"


class Signature(msgspec.Struct, frozen=True):
    """An amender's signature of the statement: `ed25519:` and base64url without padding."""

    amender: str
    signature: str


class Amendment(msgspec.Struct, frozen=True, kw_only=True):
    """A change that may be made: which version follows which, and whose signatures say so."""

    id: str
    base_version: int
    base_digest: str
    version: int
    digest: str
    signatures: tuple[Signature, ...]


def statement(current: Constitution, proposed: Constitution) -> bytes:
    """Return what amenders sign: that one digest follows another."""
    return _DOMAIN + rfc8785.dumps(
        {
            "id": current.id,
            "base": {"version": current.version, "digest": current.digest},
            "proposed": {"version": proposed.version, "digest": proposed.digest},
        }
    )


def sign(current: Constitution, proposed: Constitution, amender: str, key: Ed25519PrivateKey) -> Signature:
    """Return an amender's signature."""
    return Signature(amender, _PREFIX + _encode(key.sign(statement(current, proposed))))


def public_key(key: Ed25519PrivateKey) -> str:
    """Return the public half of a key as the constitution writes it."""
    return _PREFIX + _encode(key.public_key().public_bytes_raw())


def check(current: Constitution, proposed: Constitution, signatures: Iterable[Signature]) -> Amendment:
    """Return the amendment if it may be made.

    Only the version in force says who signs and how many; what the proposed one says of that counts from the
    next amendment on. One signature that is wrong refuses it all.

    Raises:
        RefusedError: it does not follow the version in force, or too few sign it.
        ForbiddenError: a signature is not an amender's, is there twice, or is not of this.
    """
    _follows(current, proposed)
    given = tuple(signatures)
    message, seen = statement(current, proposed), set[str]()
    for each in given:
        if each.amender in seen:
            raise ForbiddenError(
                "signer-repeated",
                f"{each.amender} signed twice.",
                hint="One signature each.",
                amender=each.amender,
            )
        seen.add(each.amender)
        _verify(current, each, message)
    needed = current.amendment.approvals
    if len(given) < needed:
        raise RefusedError(
            "signatures-missing",
            f"{len(given)} of {needed} signatures are there.",
            hint=f"Amenders: {', '.join(each.name for each in current.amendment.amenders)}.",
            needed=needed,
            given=len(given),
        )
    return Amendment(
        id=current.id,
        base_version=current.version,
        base_digest=current.digest,
        version=proposed.version,
        digest=proposed.digest,
        signatures=tuple(sorted(given, key=lambda each: each.amender)),
    )


def _follows(current: Constitution, proposed: Constitution) -> None:
    if proposed.id != current.id:
        raise RefusedError(
            "another-constitution", f"{proposed.id} is not {current.id}.", hint="An amendment keeps the id."
        )
    if proposed.version != current.version + 1:
        raise RefusedError(
            "version-not-next",
            f"Version {proposed.version} does not follow version {current.version}.",
            hint=f"Base it on the version in force and call it {current.version + 1}.",
        )
    if not proposed.founded:
        raise RefusedError(
            "amender-without-key",
            "The proposed document has an amender without a key.",
            hint="Write every key as ed25519:...; `local` is only for founding.",
        )


def _verify(current: Constitution, given: Signature, message: bytes) -> None:
    key = next((each.key for each in current.amendment.amenders if each.name == given.amender), None)
    if key is None or key == LOCAL:
        raise ForbiddenError(
            "signer-unknown",
            f"{given.amender} is no amender of the version in force.",
            hint=f"Amenders: {', '.join(each.name for each in current.amendment.amenders)}.",
            amender=given.amender,
        )
    try:
        if not given.signature.startswith(_PREFIX):
            raise ValueError(given.signature)
        signature = _decode(given.signature.removeprefix(_PREFIX))
        Ed25519PublicKey.from_public_bytes(_decode(key.removeprefix(_PREFIX))).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise ForbiddenError(
            "signature-invalid",
            f"The signature of {given.amender} is not of this amendment.",
            hint="Sign exactly this document, based on the version in force.",
            amender=given.amender,
        ) from error


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _decode(value: str) -> bytes:
    try:
        made = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64url") from error
    if _encode(made) != value:
        raise ValueError("not the canonical base64url")
    return made
