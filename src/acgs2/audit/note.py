"""Signed notes (https://c2sp.org/signed-note) with Ed25519: text, then a line per signature.

A signature line names its key and begins with four bytes of a hash over name, kind and public key, so that a
reader finds the key that it trusts. Lines by keys that it does not know say nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from acgs2.errors import InputError

__all__ = ["COSIGNATURE", "ED25519", "Key", "Note", "Signature", "Signer", "parse_note"]

#: What kind of signature a key makes, by the first byte of its encoded public key.
ED25519 = 0x01
COSIGNATURE = 0x04
_DASH = "\N{EM DASH} "
_LINE = re.compile(r"\N{EM DASH} ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_NAME = re.compile(r"[^\s+]+")


@dataclass(frozen=True, slots=True)
class Key:
    """A public key by the name that it signs under."""

    name: str
    kind: int
    public: bytes

    def __post_init__(self) -> None:
        """Refuse names that a signature line could not hold."""
        if not _NAME.fullmatch(self.name) or len(self.public) != 32:
            raise _malformed("key", f"{self.name!r} with {len(self.public)} bytes is no key")

    @property
    def id(self) -> bytes:
        """Return the four bytes that its signatures begin with."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def __str__(self) -> str:
        """Return it as `vkey`: name, id, kind and key."""
        encoded = base64.b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.id.hex()}+{encoded}"

    @classmethod
    def parse(cls, vkey: str) -> Key:
        """Read a `vkey`.

        Raises:
            InputError: it is none (`audit-malformed`).
        """
        name, _, rest = vkey.strip().partition("+")
        identity, _, encoded = rest.partition("+")
        body = _decoded(encoded, "key")
        if len(body) != 33 or body[0] not in (ED25519, COSIGNATURE):
            raise _malformed("key", f"{vkey.strip()!r} is of no kind that is known")
        key = cls(name, body[0], body[1:])
        if key.id.hex() != identity:
            raise _malformed("key", f"{vkey.strip()!r} does not have its own id")
        return key

    def named(self, name: str) -> Key:
        """Return the same key as it signs under another name."""
        return Key(name, self.kind, self.public)

    def accepts(self, signature: bytes, message: bytes) -> bool:
        """Return whether a signature of 64 bytes is this key's."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key and what it signs as."""

    key: Key
    private: Ed25519PrivateKey

    @classmethod
    def from_seed(cls, name: str, kind: int, seed: bytes) -> Signer:
        """Return the signer of a seed of 32 bytes."""
        private = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(Key(name, kind, private.public_key().public_bytes_raw()), private)

    def named(self, name: str) -> Signer:
        """Return the same key as it signs under another name."""
        return Signer(self.key.named(name), self.private)

    def sign(self, message: bytes) -> bytes:
        """Return 64 bytes."""
        return self.private.sign(message)


@dataclass(frozen=True, slots=True)
class Signature:
    """One line: who, the id of the key, and what it signed with it."""

    name: str
    key_id: bytes
    body: bytes

    def __str__(self) -> str:
        """Return the line, without its end."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.body).decode()}"

    def is_by(self, key: Key) -> bool:
        """Return whether it claims to be a key's."""
        return self.name == key.name and self.key_id == key.id


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signatures, none of them checked yet."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        """Return the note as it is stored and sent."""
        return self.text + "\n" + "".join(f"{s}\n" for s in self.signatures)

    def with_signatures(self, *more: Signature) -> Note:
        """Return the note with further lines."""
        return Note(self.text, (*self.signatures, *more))


def parse_note(raw: str) -> Note:
    """Read a note.

    Raises:
        InputError: it is none (`audit-malformed`).
    """
    head, blank, tail = raw.rpartition("\n\n")
    if not blank or not tail.endswith("\n") or any(ord(c) < 32 and c != "\n" for c in raw):
        raise _malformed("note", "no text, blank line and signatures")
    signatures = []
    for line in tail[:-1].split("\n"):
        match = _LINE.fullmatch(line)
        body = _decoded(match.group(2), "note") if match else b""
        if match is None or len(body) < 5:
            raise _malformed("note", "a line of it is no signature")
        signatures.append(Signature(match.group(1), body[:4], body[4:]))
    return Note(head + "\n", tuple(signatures))


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed(what, "it is not base64") from error


def _malformed(what: str, why: str) -> InputError:
    return InputError(
        "audit-malformed",
        f"This is no {what}: {why}.",
        hint="See docs/audit.md for the formats and where they are specified.",
    )
