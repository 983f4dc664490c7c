"""Judges an exported log by itself: nothing but its files and the keys that the reader trusts.

A log is what it claims when its checkpoint is signed and cosigned, its leaves make the root that was signed,
every earlier checkpoint that witnesses cosigned is the root of its own beginning, and no leaf has a time that
contradicts when witnesses saw the checkpoints around it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from acgs2.audit.checkpoint import Checkpoint, is_signed_by
from acgs2.audit.cosignature import cosigned_at_s
from acgs2.audit.export import Source, bundles, history_of
from acgs2.audit.keys import Trusted
from acgs2.audit.leaf import Leaf
from acgs2.audit.note import Note, parse_note
from acgs2.audit.tiles import WIDTH, Growth, Tile
from acgs2.audit.tree import HASH_BYTES, leaf_hash
from acgs2.errors import InputError

__all__ = ["Finding", "Report", "verify"]

Progress = Callable[[int, int], None]
#: What of a log is listed one by one before the rest is only counted.
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, with the index of the leaf that it is about, if it is about one."""

    kind: str
    message: str
    index: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"kind": self.kind, "message": self.message, "index": self.index}


@dataclass(slots=True)
class Report:
    """What was found in one log."""

    origin: str = ""
    size: int = 0
    witnesses: tuple[str, ...] = ()
    checkpoints: int = 0
    findings: list[Finding] = field(default_factory=list)
    more: int = 0

    def find(self, kind: str, message: str, index: int | None = None) -> None:
        """Add a finding."""
        if len(self.findings) < _LISTED:
            self.findings.append(Finding(kind, message, index))
        else:
            self.more += 1

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "origin": self.origin,
            "size": self.size,
            "witnesses": list(self.witnesses),
            "checkpoints": self.checkpoints,
            "findings": [f.as_dict() for f in self.findings],
            "more": self.more,
        }


@dataclass(frozen=True, slots=True)
class _Seen:
    """A checkpoint that this log is known to have signed, and when witnesses saw it (s)."""

    checkpoint: Checkpoint
    times_s: tuple[int, ...]


def verify(
    source: Source,
    trusted: Trusted,
    *,
    needed: int = 2,
    tolerance_s: int = 30,
    known: Sequence[Note] = (),
    later: Sequence[Note] = (),
    progress: Progress = lambda done, of: None,
) -> Report:
    """Return what is wrong with a log.

    Args:
        source: its files.
        trusted: the keys of logs and witnesses that the reader trusts.
        needed: how many witnesses must have cosigned.
        tolerance_s: how far a leaf's time may be from what witnesses saw: clocks, and acts under way.
        known: checkpoints that witnesses have of it; the log may not be shorter.
        later: checkpoints of another export of it, which may have been made later.
        progress: told leaves done and of how many.
    """
    report = Report()
    try:
        note = parse_note(source.text("checkpoint"))
        checkpoint = Checkpoint.parse(note.text)
    except (InputError, OSError, UnicodeDecodeError) as error:
        report.find("checkpoint-missing", f"There is no checkpoint that can be read: {error}")
        return report
    report.origin, report.size = checkpoint.origin, checkpoint.size
    _signatures(report, note, trusted, needed)
    seen = [_seen(note, trusted)]
    for each, must in [(n, True) for n in (*history_of(source), *known)] + [(n, False) for n in later]:
        found = _known(report, each, checkpoint, trusted, must=must)
        if found is not None:
            seen.append(found)
    report.checkpoints = len(seen)
    _leaves(report, source, seen, tolerance_s, progress)
    return report


def _signatures(report: Report, note: Note, trusted: Trusted, needed: int) -> None:
    logs = trusted.of_log(report.origin)
    if not logs:
        report.find("log-unknown", f"No trusted key may sign for {report.origin}.")
    elif not any(is_signed_by(note, key) for key in logs):
        report.find("signature-invalid", "The checkpoint is not signed by its log.")
    names = set()
    for key in trusted.witnesses(report.origin):
        claims = [s for s in note.signatures if s.is_by(key)]
        if cosigned_at_s(note, key) is not None:
            names.add(key.name)
        elif claims:
            report.find("cosignature-forged", f"The cosignature under the name of {key.name} is not its own.")
    report.witnesses = tuple(sorted(names))
    if len(names) < needed:
        who = ", ".join(sorted(names)) or "nobody"
        report.find("cosignatures-too-few", f"Of {needed} witnesses that are needed {who} cosigned.")


def _seen(note: Note, trusted: Trusted) -> _Seen:
    checkpoint = Checkpoint.parse(note.text)
    times = [cosigned_at_s(note, key) for key in trusted.witnesses(checkpoint.origin)]
    return _Seen(checkpoint, tuple(t for t in times if t is not None))


def _known(report: Report, note: Note, newest: Checkpoint, trusted: Trusted, *, must: bool) -> _Seen | None:
    """Return an earlier checkpoint to compare with; find fault where it reaches further, or is forged."""
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != newest.origin:
        return None
    if not any(is_signed_by(note, key) for key in trusted.of_log(newest.origin)):
        report.find(
            "signature-invalid", f"The checkpoint at {checkpoint.size} leaves is not signed by its log."
        )
        return None
    if checkpoint.size > newest.size:
        if must:
            lost = checkpoint.size - newest.size
            report.find(
                "log-truncated", f"{lost} leaves are missing: {checkpoint.size} were signed.", newest.size
            )
        return None
    return _seen(note, trusted)


def _leaves(
    report: Report, source: Source, seen: Sequence[_Seen], tolerance_s: int, progress: Progress
) -> None:
    by_size: dict[int, list[_Seen]] = {}
    for each in seen:
        by_size.setdefault(each.checkpoint.size, []).append(each)
    times = _Times(seen, tolerance_s)
    growth, moved = Growth(), _Moved()
    for number, width in ((n, min(WIDTH, report.size - n * WIDTH)) for n in range(-(-report.size // WIDTH))):
        entries = bundles(source, number, width)
        if entries is None or len(entries) != width:
            have = growth.size + len(entries or ())
            report.find("log-truncated", f"The leaves end at {have}; {report.size} were signed.", have)
            return
        hashes = source.bytes_of(Tile(0, number, width).path) or b""
        for entry in entries:
            index, leaf = growth.size, leaf_hash(entry)
            place = index % WIDTH * HASH_BYTES
            expected = hashes[place : place + HASH_BYTES]
            if expected and expected != leaf:
                moved.note(index, leaf, expected)
            _leaf(report, index, entry, times)
            growth.add([leaf])
            for each in by_size.get(growth.size, ()):
                _compare(report, growth, each, is_own=each is seen[0])
        progress(growth.size, report.size)
    moved.judge(report)


@dataclass(slots=True)
class _Moved:
    """Leaves that are not what the hashes say: changed, or only in another place."""

    found: dict[int, bytes] = field(default_factory=dict)
    wanted: dict[int, bytes] = field(default_factory=dict)

    def note(self, index: int, leaf: bytes, expected: bytes) -> None:
        self.found[index], self.wanted[index] = leaf, expected

    def judge(self, report: Report) -> None:
        elsewhere = set(self.wanted.values())
        for index, leaf in self.found.items():
            if leaf in elsewhere:
                report.find("leaf-reordered", f"The leaf at {index} belongs to another place.", index)
            else:
                report.find("leaf-tampered", f"The leaf at {index} is not the one that was logged.", index)


class _Times:
    """Between what times a leaf can have been written, by what witnesses saw."""

    def __init__(self, seen: Sequence[_Seen], tolerance_s: int) -> None:
        self.tolerance_s = tolerance_s
        cosigned = sorted((s for s in seen if s.times_s), key=lambda s: s.checkpoint.size)
        self._sizes = [s.checkpoint.size for s in cosigned]
        self._without = list(accumulate((min(s.times_s) for s in cosigned), max))
        self._within = list(accumulate((max(s.times_s) for s in reversed(cosigned)), min))[::-1]

    def between(self, index: int) -> tuple[int | None, int | None]:
        """Return when witnesses had seen the log without the leaf at an index, and when with it (s)."""
        at = bisect_right(self._sizes, index)
        return (
            self._without[at - 1] if at else None,
            self._within[at] if at < len(self._within) else None,
        )


def _leaf(report: Report, index: int, entry: bytes, times: _Times) -> None:
    try:
        leaf = Leaf.parse(entry)
    except InputError:
        report.find("leaf-malformed", f"The leaf at {index} is not canonical JSON of a leaf.", index)
        return
    if index == 0 and (leaf.kind != "log-began" or leaf.body.get("origin") != report.origin):
        report.find("log-began-missing", "The first leaf does not say which log it begins.", 0)
    earliest_s, latest_s = times.between(index)
    at_s = leaf.at_us / 1e6
    if earliest_s is not None and at_s < earliest_s - times.tolerance_s:
        report.find(
            "leaf-back-dated",
            f"The leaf at {index} says {earliest_s - at_s:.0f} s before witnesses saw the log without it.",
            index,
        )
    if latest_s is not None and at_s > latest_s + times.tolerance_s:
        report.find(
            "leaf-post-dated",
            f"The leaf at {index} says {at_s - latest_s:.0f} s after witnesses had seen it.",
            index,
        )


def _compare(report: Report, growth: Growth, seen: _Seen, *, is_own: bool) -> None:
    if growth.root() == seen.checkpoint.root:
        return
    size = seen.checkpoint.size
    if is_own:
        report.find("root-mismatch", f"The {size} leaves do not have the root that was signed.")
    else:
        report.find("log-forked", f"Another tree of {size} leaves was signed than the one these begin with.")
