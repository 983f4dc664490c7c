"""What becomes of a held message: a pure function of who said what, and of the time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Literal

import msgspec

from acgs2.policy.halts import Halt
from acgs2.policy.verdict import Hold

__all__ = [
    "Approval",
    "Final",
    "Held",
    "Outcome",
    "check_invariants",
    "counted",
    "decide",
    "missing",
    "narrowed",
    "refusal",
    "wanting",
]


class Outcome(StrEnum):
    """Why a held message was let go or not."""

    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    HALTED = "halted"


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A message that waits. `proposers` are all names of who sent it: the agent and the principal."""

    message_id: str
    proposers: frozenset[str]
    holds: tuple[Hold, ...]
    deadline_us: int


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What one person said, and when it was accepted."""

    approver: str
    decision: Literal["approve", "deny"]
    at_us: int
    reason: str = ""


class Final(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a deliberation; `counted` are the approvals that it rests on."""

    decision: Literal["allow", "deny"]
    reason: Outcome
    counted: tuple[Approval, ...] = ()


def refusal(held: Held, approver: str, at_us: int) -> str | None:
    """Return why what somebody says does not count, as a problem's reference; None where it does."""
    if approver in held.proposers:
        return "approver-is-proposer"
    if not any(approver in hold.members for hold in held.holds):
        return "approver-not-named"
    if at_us >= held.deadline_us:
        return "deliberation-expired"
    return None


def counted(held: Held, approvals: Iterable[Approval]) -> tuple[Approval, ...]:
    """Return what counts, one per person, in order of time: whoever denies once has denied."""
    found: dict[str, Approval] = {}
    for each in approvals:
        if refusal(held, each.approver, each.at_us) is None:
            known = found.get(each.approver)
            if known is None or _before(each, known):
                found[each.approver] = each
    return tuple(sorted(found.values(), key=lambda each: (each.at_us, each.approver)))


def _before(a: Approval, b: Approval) -> bool:
    return (a.decision != "deny", a.at_us, a.reason) < (b.decision != "deny", b.at_us, b.reason)


def missing(held: Held, approvals: Iterable[Approval]) -> Mapping[str, int]:
    """Return how many approvals each group still lacks; groups that lack none are left out."""
    for_it = {each.approver for each in counted(held, approvals) if each.decision == "approve"}
    lacking: dict[str, int] = {}
    for hold in held.holds:
        count = max(1, hold.approvals) - len(for_it.intersection(hold.members))
        if count > 0:
            lacking[hold.group] = max(count, lacking.get(hold.group, 0))
    return lacking


def decide(held: Held, approvals: Iterable[Approval], now_us: int, halt: Halt | None = None) -> Final | None:
    """Return the end of a deliberation, or None while it is open.

    A halt ends it first, then one denial, then enough approvals of every group, then the deadline. Enough
    approvals that were accepted in time stand, however late it is noticed. What nobody could ever approve
    waits for its deadline like everything else.
    """
    said = counted(held, approvals)
    if halt is not None:
        return Final(decision="deny", reason=Outcome.HALTED, counted=said)
    if any(each.decision == "deny" for each in said):
        return Final(decision="deny", reason=Outcome.DENIED, counted=said)
    if held.holds and not missing(held, said):
        return Final(decision="allow", reason=Outcome.APPROVED, counted=said)
    if now_us >= held.deadline_us:
        return Final(decision="deny", reason=Outcome.EXPIRED, counted=said)
    return None


def narrowed(held: Held, groups: Mapping[str, Iterable[str]]) -> Held:
    """Return what is held with only those members who still are some: who left a group does not approve."""
    return msgspec.structs.replace(held, holds=tuple(_narrowed(hold, groups) for hold in held.holds))


def wanting(held: Held) -> Mapping[str, int]:
    """Return how many people each group has too few to approve it at all; those with enough are left out."""
    lacking: dict[str, int] = {}
    for hold in held.holds:
        count = max(1, hold.approvals) - len(set(hold.members) - held.proposers)
        if count > 0:
            lacking[hold.group] = max(count, lacking.get(hold.group, 0))
    return lacking


def _narrowed(hold: Hold, groups: Mapping[str, Iterable[str]]) -> Hold:
    now = frozenset(groups.get(hold.group, ()))
    return Hold(hold.group, hold.approvals, tuple(each for each in hold.members if each in now))


def check_invariants(
    held: Held, approvals: Iterable[Approval], now_us: int, halt: Halt | None = None
) -> None:
    """Hold a decision against what was promised, worked out another way.

    Raises:
        AssertionError: a promise is broken.
    """
    said = [
        each for each in approvals if each.at_us < held.deadline_us and each.approver not in held.proposers
    ]
    deny = {each.approver for each in said if each.decision == "deny"}
    approve = {each.approver for each in said if each.decision == "approve"} - deny
    named = {member for hold in held.holds for member in hold.members}
    final = decide(held, approvals, now_us, halt)
    if final is None:
        assert halt is None, "a halt is waited for"
        assert now_us < held.deadline_us, "it waits past its deadline"
        assert not deny & named, "a denial is waited for"
        return
    assert {each.approver for each in final.counted} == (deny | approve) & named, "somebody else was counted"
    if final.decision == "allow":
        assert held.holds, "nobody was asked"
        assert halt is None, "it was allowed while halted"
        assert not deny & named, "it was allowed against a denial"
        for hold in held.holds:
            assert len(approve & set(hold.members)) >= hold.approvals, f"too few of {hold.group} approved"
