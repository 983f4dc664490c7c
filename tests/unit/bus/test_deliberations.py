"""What the rows of held messages say: who may approve now, what was said, and how it ends."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from acgs2.bus.deliberations import conclusion, has_said, held_of
from acgs2.policy import Halts, Hold

NAMED = ("ann", "bo", "cy")


def row(*words: tuple[str, str], verdict: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "key": uuid4(),
        "tenant_id": uuid4(),
        "from_agent": uuid4(),
        "proposer": "service",
        "hlc": 0,
        "basis": {"holds": [{"group": "safety", "approvals": 2, "members": NAMED}], "deadline_s": 300},
        "approvals": [{"approver": who, "decision": said, "at_us": 1, "reason": ""} for who, said in words],
        "verdict": verdict,
    }


def ends(found: dict[str, Any], *members: str, at_s: int = 5) -> tuple[str, str] | None:
    final = conclusion(found, {"safety": members}, Halts(), at_s * 1_000_000)
    return None if final is None else (final.decision, str(final.reason))


def test_who_has_left_does_not_count_and_who_came_since_gains_nothing() -> None:
    both = row(("ann", "approve"), ("bo", "approve"))
    assert ends(both, *NAMED) == ("allow", "approved")
    assert ends(both, "bo", "cy") is None
    assert ends(both, "bo", "cy", at_s=300) == ("deny", "expired")
    assert ends(row(("bo", "approve"), ("new", "approve")), "bo", "new") is None
    assert ends(row(("ann", "deny")), "bo", "cy") is None
    assert ends(both, at_s=300) == ("deny", "expired"), "the group is gone"
    assert held_of(both, {"safety": ("bo", "new")}).holds == (Hold("safety", 2, ("bo",)),)
    assert held_of(both, None).holds == (Hold("safety", 2, NAMED),)


def test_a_word_is_known_by_itself_or_by_the_verdict_that_rests_on_it() -> None:
    said = row(("ann", "approve"))
    assert has_said(said, "ann", "approve")
    assert not has_said(said, "ann", "deny")
    assert not has_said(said, "bo", "approve")
    rested = row(verdict={"approvals": [{"approver": "bo", "decision": "deny"}]})
    assert has_said(rested, "bo", "deny")
    assert not has_said(row(verdict={"approvals": None}), "bo", "deny")
