"""Cosignatures with the witness's time (https://c2sp.org/tlog-cosignature, Ed25519, `cosignature/v1`)."""

from __future__ import annotations

from acgs2.audit.note import Key, Note, Signature, Signer

__all__ = ["cosign", "cosigned_at_s", "line"]

_TIME_BYTES = 8


def _message(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def cosign(text: str, signer: Signer, time_s: int) -> bytes:
    """Return a witness's signature of a checkpoint's text, of 64 bytes; time in seconds since the epoch."""
    return signer.sign(_message(text, time_s))


def line(key: Key, time_s: int, signature: bytes) -> Signature:
    """Return a cosignature as a line of the note."""
    return Signature(key.name, key.id, time_s.to_bytes(_TIME_BYTES, "big") + signature)


def cosigned_at_s(note: Note, key: Key) -> int | None:
    """Return when a witness first cosigned a note, as it says itself; None where it did not."""
    times = []
    for each in note.signatures:
        if each.is_by(key) and len(each.body) == _TIME_BYTES + 64:
            time_s = int.from_bytes(each.body[:_TIME_BYTES], "big")
            if key.accepts(each.body[_TIME_BYTES:], _message(note.text, time_s)):
                times.append(time_s)
    return min(times, default=None)
