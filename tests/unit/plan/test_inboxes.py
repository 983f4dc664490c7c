"""Who serves a zone's inboxes, and how long each waits before it takes them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from acgs2.plan.inboxes import order, patience_s, successor

NAMES = st.lists(st.sampled_from("abcdef"), unique=True)


def value(holder: str | None, **more: object) -> dict[str, object]:
    return {"holder": holder, "term": 3, "count": 7, **more}


def waits_s(agreed: dict[str, object] | None, me: str) -> float:
    """Return for how long one of three waits, with leases of 3 s that lapse after 3.5 s."""
    return patience_s(agreed, me, "abc", 3, 3.5)


@given(NAMES, NAMES)
def test_only_holders_serve_homes_first_as_declared(homes: list[str], holders: list[str]) -> None:
    found = order(homes, holders)
    assert sorted(found) == sorted(holders)
    lawful = [home for home in homes if home in holders]
    assert list(found[: len(lawful)]) == lawful
    assert list(found[len(lawful) :]) == sorted(found[len(lawful) :])


def test_what_nobody_ever_had_is_taken_in_order_one_lease_apart() -> None:
    assert [waits_s(None, me) for me in "abc"] == [0, 3, 6]


def test_what_lapsed_is_taken_by_the_first_of_the_others_after_one_lease() -> None:
    assert [waits_s(value("a"), me) for me in "bc"] == [3.5, 6.5]
    assert waits_s(value("c"), "a") < waits_s(value("c"), "b")
    assert waits_s(value("a"), "a") > 3, "after a restart its own lease is watched like any other"


def test_what_was_handed_over_is_its_successors_at_once_and_lapses_for_the_others() -> None:
    assert waits_s(value(None, next="b"), "b") == 0
    assert min(waits_s(value(None, next="b"), me) for me in "ac") > 3
    assert [waits_s(value(None), me) for me in "abc"] == [0, 3, 6]


def test_who_gives_up_names_the_first_of_the_others() -> None:
    assert [successor(me, "abc") for me in "abc"] == ["b", "a", "a"]
    assert successor("a", "a") is None


@given(NAMES.filter(bool), st.sampled_from("abcdefx"))
def test_no_two_wait_for_the_same_time(candidates: list[str], holder: str) -> None:
    for agreed in (None, value(holder), value(None), value(None, next=holder)):
        waits = [patience_s(agreed, me, candidates, 1, 1.1) for me in candidates if me != holder]
        assert len(set(waits)) == len(waits)
