"""What becomes of a held message: a pure function of who said what, and of the time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Literal

import msgspec

from acgs2.policy.halts import Halt
from acgs2.policy.verdict import Hold

__all__ = ["Approval", "Final", "Held", "Outcome", "decide", "missing", "narrowed", "refusal"]


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
    lacking = {hold.group: hold.approvals - len(for_it.intersection(hold.members)) for hold in held.holds}
    return {group: count for group, count in lacking.items() if count > 0}


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
    return msgspec.structs.replace(
        held,
        holds=tuple(
            Hold(
                hold.group,
                hold.approvals,
                tuple(m for m in hold.members if m in set(groups.get(hold.group, ()))),
            )
            for hold in held.holds
        ),
    )
