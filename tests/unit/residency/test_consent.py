"""Consent under every interleaving of grants, withdrawals and deliveries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from acgs2.residency import Consent

ORIGINS = ("a#1", "b#2", "c#3")
steps = st.lists(
    st.tuples(
        st.sampled_from(["grant", "withdraw", "hear"]), st.sampled_from(ORIGINS), st.sampled_from(ORIGINS)
    ),
    max_size=12,
)


def play(history: list[tuple[str, str, str]]) -> dict[str, Consent]:
    held = {origin: Consent() for origin in ORIGINS}
    for act, here, there in history:
        if act == "hear":
            held[here] = held[here].merge(held[there])
        else:
            held[here] = getattr(held[here], act)(here)
    return held


@given(steps)
def test_merging_is_commutative_associative_and_idempotent(history: list[tuple[str, str, str]]) -> None:
    a, b, c = play(history).values()
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a.merge(Consent())


@given(steps, st.sampled_from(ORIGINS), st.sampled_from(ORIGINS))
def test_a_withdrawal_wins_over_every_grant_that_did_not_know_it(
    history: list[tuple[str, str, str]], here: str, there: str
) -> None:
    held = play(history)
    withdrawn = held[here].withdraw(here)
    others = [held[there].grant(there) if o == there else held[o] for o in ORIGINS if o != here]
    merged = withdrawn
    for other in others:
        merged = merged.merge(other)
    assert not merged.given
    assert merged.grant(there).given


def test_consent_is_not_given_until_it_is() -> None:
    assert not Consent().given
    assert Consent().grant("a#1").given
    assert not Consent().withdraw("a#1").given
