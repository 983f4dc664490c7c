"""Checkpoints (https://c2sp.org/tlog-checkpoint): which log, how many leaves, which root, signed."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from acgs2.audit.note import Key, Note, Signature, Signer
from acgs2.audit.tree import HASH_BYTES
from acgs2.errors import InputError

__all__ = ["Checkpoint", "is_signed_by", "origin_of", "region_of"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """Return what is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def sign(self, signer: Signer) -> Note:
        """Return the note with the log's signature; the log's key goes by the name of the origin."""
        mine = signer.named(self.origin)
        signature = Signature(self.origin, mine.key.id, mine.sign(self.text.encode()))
        return Note(self.text, (signature,))

    def signed(self, key: Key, signature: bytes) -> Note:
        """Return the note with a signature that was made before."""
        return Note(self.text, (Signature(self.origin, key.named(self.origin).id, signature),))

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a checkpoint's note.

        Raises:
            InputError: it is none (`audit-malformed`).
        """
        try:
            origin, size, encoded, end = text.split("\n")
            root = base64.b64decode(encoded, validate=True)
            found = cls(origin, int(size), root)
        except (ValueError, binascii.Error) as error:
            raise _malformed() from error
        if end or len(root) != HASH_BYTES or found.size < 0 or found.text != text or not origin:
            raise _malformed()
        return found


def is_signed_by(note: Note, key: Key) -> bool:
    """Return whether a checkpoint's note has the signature of its log's key."""
    mine = key.named(Checkpoint.parse(note.text).origin)
    return any(s.is_by(mine) and mine.accepts(s.body, note.text.encode()) for s in note.signatures)


def origin_of(key_name: str, incarnation: str) -> str:
    """Return the origin of the log of one life of a region."""
    return f"{key_name}/{incarnation}"


def region_of(origin: str) -> str:
    """Return the name of the key that signs for a log: its origin without the incarnation."""
    return origin.rpartition("/")[0]


def _malformed() -> InputError:
    return InputError(
        "audit-malformed",
        "This is no checkpoint: not three lines of origin, size and root.",
        hint="See docs/audit.md for the formats and where they are specified.",
    )
