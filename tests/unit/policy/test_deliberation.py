"""Held messages: every order of approvals, denials, halts and time, against what was promised."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from acgs2.policy import Approval, Halts, Held, Hold, decide
from acgs2.policy.deliberation import Outcome, check_invariants, missing, narrowed, refusal, wanting

SAFETY = Hold("safety", 2, ("ann", "bo", "cy"))
LEGAL = Hold("legal", 1, ("lea", "bo"))
HELD = Held(message_id="m", proposers=frozenset({"agent", "ann"}), holds=(SAFETY,), deadline_us=300)


def says(who, decision="approve", at_us=1):
    return Approval(approver=who, decision=decision, at_us=at_us)


def test_two_of_three_who_are_not_the_proposer():
    assert decide(HELD, [says("bo")], 5) is None
    assert missing(HELD, [says("bo")]) == {"safety": 1}
    found = decide(HELD, [says("bo"), says("cy")], 5)
    assert found is not None
    assert (found.decision, found.reason) == ("allow", Outcome.APPROVED)
    assert decide(HELD, [says("bo"), says("bo"), says("ann"), says("agent"), says("zoe")], 5) is None


@pytest.mark.parametrize(
    ("who", "at_us", "why"),
    [("ann", 1, "approver-is-proposer"), ("agent", 1, "approver-is-proposer"), ("zoe", 1, "approver-not-named"),
     ("bo", 300, "deliberation-expired"), ("bo", 299, None), ("Bo", 1, "approver-not-named")],
)  # fmt: skip
def test_who_does_not_count_is_told_why(who, at_us, why):
    assert refusal(HELD, who, at_us) == why


def test_one_denies_whatever_others_say():
    for order in itertools.permutations([says("bo"), says("cy"), says("cy", "deny", 2)]):
        found = decide(HELD, order, 5)
        assert found is not None
        assert (found.decision, found.reason) == ("deny", Outcome.DENIED)
    assert decide(HELD, [says("zoe", "deny"), says("ann", "deny"), says("bo", "deny", 300)], 5) is None


def test_past_the_deadline_it_is_denied():
    assert decide(HELD, [says("bo")], 299) is None
    late = decide(HELD, [says("bo"), says("cy", at_us=300)], 300)
    assert late is not None
    assert (late.decision, late.reason) == ("deny", Outcome.EXPIRED)
    in_time = decide(HELD, [says("bo"), says("cy", at_us=299)], 10_000)
    assert in_time is not None
    assert in_time.decision == "allow"


def test_every_group_must_approve_and_one_person_counts_in_both():
    both = Held(message_id="m", proposers=frozenset(), holds=(SAFETY, LEGAL), deadline_us=300)
    assert missing(both, [says("ann"), says("cy")]) == {"legal": 1}
    assert missing(both, [says("ann"), says("bo")]) == {}


def test_a_halt_ends_it():
    halt = Halts().halt("h", "all", "", "Fire.", "olga", 0).of()
    found = decide(HELD, [says("bo"), says("cy")], 5, halt)
    assert found is not None
    assert (found.decision, found.reason) == ("deny", Outcome.HALTED)


def test_who_left_the_group_does_not_approve():
    left = narrowed(HELD, {"safety": ("bo", "new")})
    assert left.holds == (Hold("safety", 2, ("bo",)),)
    assert decide(left, [says("bo"), says("cy"), says("new")], 5) is None
    assert narrowed(HELD, {}).holds[0].members == ()


def test_a_group_that_is_too_small_to_approve_is_told_of():
    assert wanting(HELD) == {}
    assert wanting(narrowed(HELD, {"safety": ("ann", "bo", "new")})) == {"safety": 1}, "ann proposed it"
    assert wanting(narrowed(HELD, {})) == {"safety": 2}
    late = decide(narrowed(HELD, {"safety": ("bo",)}), [says("bo"), says("cy")], 300)
    assert late is not None
    assert (late.decision, late.reason) == ("deny", Outcome.EXPIRED)


def test_without_a_group_nothing_is_approved():
    nobody = Held(message_id="m", proposers=frozenset(), holds=(), deadline_us=300)
    assert decide(nobody, [says("bo")], 5) is None
    empty = Held(message_id="m", proposers=frozenset(), holds=(Hold("x", 0, ()),), deadline_us=300)
    assert decide(empty, [], 5) is None


people = st.sampled_from(["ann", "bo", "cy", "lea", "zoe", "agent"])


class Deliberating(RuleBasedStateMachine):
    """Approvals arrive at several regions in any order; each decides by what it has."""

    @initialize(
        holds=st.sampled_from([(SAFETY,), (LEGAL,), (SAFETY, LEGAL)]), by=st.frozensets(people, max_size=2)
    )
    def begin(self, holds, by):
        self.held = Held(message_id="m", proposers=by | {"agent"}, holds=holds, deadline_us=30)
        self.now_us = 0
        self.said: list[Approval] = []
        self.halts = Halts()

    @rule(who=people, decision=st.sampled_from(["approve", "approve", "deny"]))
    def say(self, who, decision):
        self.said.append(Approval(approver=who, decision=decision, at_us=self.now_us))

    @rule(by_us=st.integers(1, 20))
    def wait(self, by_us):
        self.now_us += by_us

    @rule()
    def halt(self):
        self.halts = self.halts.halt("h", "all", "", "Fire.", "olga", self.now_us)

    @invariant()
    def promises_hold(self):
        check_invariants(self.held, self.said, self.now_us, self.halts.of())

    @invariant()
    def order_and_repeats_make_no_difference(self):
        first = decide(self.held, self.said, self.now_us, self.halts.of())
        assert first == decide(self.held, [*reversed(self.said), *self.said], self.now_us, self.halts.of())

    @invariant()
    def who_sees_less_never_allows_what_more_denies_for_good(self):
        final = decide(self.held, self.said, self.now_us, self.halts.of())
        if final is not None and final.reason is Outcome.APPROVED:
            later = decide(self.held, self.said, self.now_us + 1000, self.halts.of())
            assert later == final


TestDeliberating = Deliberating.TestCase
TestDeliberating.settings = settings(deadline=None, max_examples=60, stateful_step_count=20)
