"""A log as files (https://c2sp.org/tlog-tiles): checkpoint, tiles, bundles of leaves; keys and history.

`history.jsonl` has earlier checkpoints with cosignatures, a JSON string a line: what witnesses saw when.
The rest is what any reader of tlog-tiles expects, below any web server or in a directory or tar.
"""

from __future__ import annotations

import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from acgs2.audit.checkpoint import Checkpoint
from acgs2.audit.note import Note, parse_note
from acgs2.audit.tiles import WIDTH, number_path, tiles_at
from acgs2.errors import InputError

__all__ = [
    "HISTORY",
    "KEYS",
    "Folder",
    "Source",
    "Tar",
    "bundles",
    "history_of",
    "opened",
    "unpacked",
    "write",
]

HISTORY = "history.jsonl"
KEYS = "keys"


class Source(Protocol):
    """Where a log's files are."""

    def bytes_of(self, path: str) -> bytes | None:
        """Return a file's content; None where there is no such file."""
        ...

    def text(self, path: str) -> str:
        """Return a file's text; raises OSError where there is none."""
        ...


class _Text:
    def bytes_of(self, path: str) -> bytes | None:
        raise NotImplementedError

    def text(self, path: str) -> str:
        """Return a file's text; raises FileNotFoundError where there is none."""
        found = self.bytes_of(path)
        if found is None:
            raise FileNotFoundError(f"there is no {path}")
        return found.decode()


class Folder(_Text):
    """A directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def bytes_of(self, path: str) -> bytes | None:
        """Return a file's content; None where there is no such file."""
        file = self._path / path
        return file.read_bytes() if file.is_file() else None


class Tar(_Text):
    """A tar file, compressed or not."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115 - as long as its reader
        self._names = {m.name.removeprefix("./"): m for m in self._tar.getmembers() if m.isfile()}

    def bytes_of(self, path: str) -> bytes | None:
        """Return a file's content; None where there is no such file."""
        member = self._names.get(path)
        file = self._tar.extractfile(member) if member is not None else None
        return file.read() if file is not None else None


def opened(path: Path) -> Source:
    """Open an export.

    Raises:
        InputError: there is none (`audit-export-unreadable`).
    """
    try:
        if path.is_dir():
            return Folder(path)
        return Tar(path)
    except (OSError, tarfile.TarError) as error:
        raise InputError(
            "audit-export-unreadable",
            f"{path} is no export of an audit log: {error}.",
            hint="Name the directory, or a tar of it, that `acgs2 audit export` wrote.",
        ) from error


def unpacked(bundle: bytes) -> list[bytes] | None:
    """Return the leaves of a bundle; None where it ends within one."""
    found, at = [], 0
    while at < len(bundle):
        if at + 2 > len(bundle):
            return None
        (length,) = struct.unpack_from(">H", bundle, at)
        if at + 2 + length > len(bundle):
            return None
        found.append(bundle[at + 2 : at + 2 + length])
        at += 2 + length
    return found


def bundles(source: Source, number: int, width: int) -> list[bytes] | None:
    """Return the leaves of one bundle; of a full one too, where a part of it was asked for."""
    for each in dict.fromkeys((width, WIDTH)):
        found = source.bytes_of(f"tile/entries/{number_path(number, each)}")
        if found is not None:
            leaves = unpacked(found)
            return leaves[:width] if leaves is not None else None
    return None


def history_of(source: Source) -> list[Note]:
    """Return the earlier checkpoints of an export.

    Raises:
        InputError: a line is no note (`audit-malformed`).
    """
    found = source.bytes_of(HISTORY)
    if found is None:
        return []
    try:
        return [parse_note(str(json.loads(line))) for line in found.splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(
            "audit-malformed", f"{HISTORY} is not a JSON string a line.", hint="Export the log again."
        ) from error


def write(source: Source, folder: Path, progress: Callable[[int, int], None] = lambda done, of: None) -> int:
    """Write a log's files to a directory; returns how many leaves it has.

    Raises:
        FileNotFoundError: the source lacks a file that its checkpoint promises.
    """
    note = source.text("checkpoint")
    size = Checkpoint.parse(parse_note(note).text).size
    paths = [tile.path for tile in tiles_at(size)]
    paths += [f"tile/entries/{number_path(t.number, t.width)}" for t in tiles_at(size) if t.level == 0]
    for number, path in enumerate(paths):
        file = folder / path
        if file.is_file():
            continue  # tiles never change: a second export adds what is new
        found = source.bytes_of(path)
        if found is None:
            raise FileNotFoundError(f"the log has no {path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(found)
        progress(number + 1, len(paths))
    for path in (HISTORY, KEYS):
        (folder / path).write_bytes(source.bytes_of(path) or b"")
    (folder / "checkpoint").write_text(note, encoding="utf-8")
    return size
