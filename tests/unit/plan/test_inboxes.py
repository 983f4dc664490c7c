"""Who serves a zone's inboxes, and how long each waits before it takes them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from acgs2.plan.inboxes import order, patience_s, successor

NAMES = st.lists(st.sampled_from("abcdef"), unique=True)


def value(holder: str | None, **more: object) -> dict[str, object]:
    return {"holder": holder, "term": 3, "count": 7, **more}


@given(NAMES, NAMES)
def test_only_holders_serve_homes_first_as_declared(homes: list[str], holders: list[str]) -> None:
    found = order(homes, holders)
    assert sorted(found) == sorted(holders)
    lawful = [home for home in homes if home in holders]
    assert list(found[: len(lawful)]) == lawful
    assert list(found[len(lawful) :]) == sorted(found[len(lawful) :])


def test_what_nobody_ever_had_is_taken_in_order_one_lease_apart() -> None:
    assert [patience_s(None, me, "abc", 3) for me in "abc"] == [0, 3, 6]


def test_what_lapsed_is_taken_by_the_first_of_the_others_after_one_lease() -> None:
    waits = [patience_s(value("a"), me, "abc", 3) for me in "bc"]
    assert waits == [3.3000000000000003, 3 * 2.1]
    assert patience_s(value("c"), "a", "abc", 3) < patience_s(value("c"), "b", "abc", 3)
    assert patience_s(value("a"), "a", "abc", 3) > 3, (
        "after a restart its own lease is watched like any other"
    )


def test_what_was_handed_over_is_its_successors_at_once_and_lapses_for_the_others() -> None:
    assert patience_s(value(None, next="b"), "b", "abc", 3) == 0
    assert min(patience_s(value(None, next="b"), me, "abc", 3) for me in "ac") > 3
    assert [patience_s(value(None), me, "abc", 3) for me in "abc"] == [0, 3, 6]


def test_who_gives_up_names_the_first_of_the_others() -> None:
    assert [successor(me, "abc") for me in "abc"] == ["b", "a", "a"]
    assert successor("a", "a") is None


@given(NAMES.filter(bool), st.sampled_from("abcdefx"))
def test_no_two_wait_for_the_same_time(candidates: list[str], holder: str) -> None:
    for agreed in (None, value(holder), value(None), value(None, next=holder)):
        waits = [patience_s(agreed, me, candidates, 1) for me in candidates if me != holder]
        assert len(set(waits)) == len(waits)
