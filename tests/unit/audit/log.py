"""A log in memory, with witnesses, as files: what `verify` judges, to be damaged by tests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from acgs2.audit.checkpoint import Checkpoint
from acgs2.audit.cosignature import cosign, line
from acgs2.audit.export import HISTORY
from acgs2.audit.keys import Trusted
from acgs2.audit.leaf import Leaf
from acgs2.audit.note import COSIGNATURE, ED25519, Note, Signer
from acgs2.audit.tiles import Tile, number_path, tiles_at
from acgs2.audit.tree import leaf_hash, root_of

NAME = "acgs2.example/local/eu-west-1"
ORIGIN = f"{NAME}/0a1b2c3d"
LOG = Signer.from_seed(NAME, ED25519, b"L" * 32)
WITNESSES = [Signer.from_seed(f"acgs2.example/local/w{n}", COSIGNATURE, bytes([n]) * 32) for n in range(3)]
TRUSTED = Trusted((LOG.key, *(w.key for w in WITNESSES)))
BEGAN_S = 1_800_000_000


def leaf(index: int, at_s: int, kind: str = "verdict") -> bytes:
    body = {"origin": ORIGIN, "before": None} if index == 0 else {"index": index}
    return Leaf(at_s * 1_000_000, kind if index else "log-began", None, None, body).entry


def note_of(entries: list[bytes], signer: Signer = LOG) -> Note:
    return Checkpoint(ORIGIN, len(entries), root_of([leaf_hash(e) for e in entries])).sign(signer)


def cosigned(note: Note, time_s: int, witnesses: list[Signer] = WITNESSES) -> Note:
    lines = [line(w.key, time_s, cosign(note.text, w, time_s)) for w in witnesses]
    return note.with_signatures(*lines)


@dataclass
class Files:
    """An export; a `Source`."""

    files: dict[str, bytes] = field(default_factory=dict)

    def bytes_of(self, path: str) -> bytes | None:
        return self.files.get(path)

    def text(self, path: str) -> str:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path].decode()


def packed(entries: list[bytes]) -> bytes:
    return b"".join(len(e).to_bytes(2, "big") + e for e in entries)


def export(entries: list[bytes], note: Note, history: list[Note], shown: list[bytes] | None = None) -> Files:
    """Return the files of a log; `shown` are other leaves than those whose hashes the tiles have."""
    made = Files({"checkpoint": str(note).encode()})
    made.files[HISTORY] = "".join(json.dumps(str(n)) + "\n" for n in history).encode()
    level = [leaf_hash(e) for e in entries]
    for tile in tiles_at(len(entries)):
        hashes = level
        for _ in range(tile.level):
            hashes = [root_of(hashes[i : i + 256]) for i in range(0, len(hashes) // 256 * 256, 256)]
        made.files[tile.path] = b"".join(hashes[tile.number * 256 : tile.number * 256 + tile.width])
    for tile in (t for t in tiles_at(len(entries)) if t.level == 0):
        part = (shown or entries)[tile.number * 256 : tile.number * 256 + tile.width]
        path = f"tile/entries/{number_path(tile.number, tile.width)}"
        made.files[path] = packed(part)
    assert Tile(0, 0, 1)
    return made


def healthy(size: int = 600, every: int = 100) -> tuple[list[bytes], Note, list[Note]]:
    """Return leaves, ten a second, the newest checkpoint, and those that witnesses saw before."""
    entries = [leaf(index, BEGAN_S + index // 10) for index in range(size)]
    sizes = [*range(1, size, every), size]
    notes = [cosigned(note_of(entries[:n]), BEGAN_S + n // 10 + 1) for n in sizes]
    return entries, notes[-1], notes
