"""What a witness answers for: that a log which it has seen only ever grew.

Pure: whoever asks brings what the witness cosigned last, what the log says now, and the proof between the
two; the answer is to cosign, and what to remember first, or why not. Memory must be on disk before a
cosignature leaves the witness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from acgs2.audit.checkpoint import Checkpoint
from acgs2.audit.note import Note
from acgs2.audit.tree import EMPTY, is_consistent

__all__ = ["Cosign", "Known", "Proof", "Refusal", "Refuse", "Witness", "decide"]


class Refusal(StrEnum):
    """Why a witness does not cosign."""

    FORK = "audit-fork"
    TRUNCATED = "audit-truncated"
    BAD_PROOF = "audit-proof-invalid"
    CLOCK = "audit-clock-behind"


@dataclass(frozen=True, slots=True)
class Known:
    """The last checkpoint of a log that a witness cosigned, as the log signed it, and when."""

    checkpoint: Checkpoint
    note: str
    time_s: int


@dataclass(frozen=True, slots=True)
class Cosign:
    """The witness may cosign, once it has this on disk."""

    known: Known


@dataclass(frozen=True, slots=True)
class Refuse:
    """The witness does not cosign; evidence is what both sides signed."""

    reason: Refusal
    evidence: tuple[str, ...]

    @property
    def is_misconduct(self) -> bool:
        """Return whether the log itself is at fault, and not the way or the clock."""
        return self.reason in (Refusal.FORK, Refusal.TRUNCATED)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a log says of its growth: the root it has now at the earlier size, and the proof from there."""

    earlier_root: bytes = EMPTY
    hashes: tuple[bytes, ...] = ()


def decide(known: Known | None, offered: Note, proof: Proof, now_s: int) -> Cosign | Refuse:
    """Return whether a witness may cosign a checkpoint.

    Args:
        known: what it cosigned last of this log; None for a log that nobody knows.
        offered: the checkpoint, whose signature by the log has been checked.
        proof: that the offered tree begins with the known one.
        now_s: the witness's time.
    """
    checkpoint = Checkpoint.parse(offered.text)
    if known is None:
        return Cosign(Known(checkpoint, str(offered), now_s))
    evidence = (known.note, str(offered))
    before = known.checkpoint
    if before.origin != checkpoint.origin:
        raise ValueError("a log is compared with itself")
    if checkpoint.size < before.size:
        return Refuse(Refusal.TRUNCATED, evidence)
    if checkpoint.size == before.size and checkpoint.root != before.root:
        return Refuse(Refusal.FORK, evidence)
    if before.size < checkpoint.size:
        if not _grew(before.size, proof.earlier_root, checkpoint, proof):
            return Refuse(Refusal.BAD_PROOF, evidence)
        if proof.earlier_root != before.root:
            return Refuse(Refusal.FORK, evidence)
    if now_s < known.time_s:
        return Refuse(Refusal.CLOCK, evidence)
    return Cosign(Known(checkpoint, str(offered), now_s))


def _grew(size: int, root: bytes, to: Checkpoint, proof: Proof) -> bool:
    return is_consistent(size, root, to.size, to.root, proof.hashes)


@dataclass(slots=True)
class Witness:
    """A witness's memory of every log, and what it cosigned by it."""

    known: dict[str, Known] = field(default_factory=dict)
    cosigned: list[Known] = field(default_factory=list)

    def consider(self, offered: Note, proof: Proof, now_s: int) -> Cosign | Refuse:
        """Decide, and remember what is cosigned."""
        origin = Checkpoint.parse(offered.text).origin
        answer = decide(self.known.get(origin), offered, proof, now_s)
        if isinstance(answer, Cosign):
            self.known[origin] = answer.known
            self.cosigned.append(answer.known)
        return answer

    def restored(self, others: Sequence[Witness]) -> Witness:
        """Return this witness after it forgot everything and learned from others."""
        found: dict[str, Known] = {}
        for other in others:
            for origin, known in other.known.items():
                if origin not in found or found[origin].checkpoint.size < known.checkpoint.size:
                    found[origin] = known
        return Witness(found)

    def check_invariants(self) -> None:
        """Raise AssertionError unless what was cosigned of each log grew, in size and time."""
        last: dict[str, Known] = {}
        for each in self.cosigned:
            before = last.get(each.checkpoint.origin)
            if before is not None:
                assert before.checkpoint.size <= each.checkpoint.size, "a log was cosigned that shrank"
                assert before.time_s <= each.time_s, "a witness's time went back"
                same = before.checkpoint.size == each.checkpoint.size
                assert not same or before.checkpoint.root == each.checkpoint.root, "a fork was cosigned"
            last[each.checkpoint.origin] = each
        for origin, each in last.items():
            assert self.known[origin].checkpoint.size >= each.checkpoint.size, "a witness forgot"
