"""Halts: one operator stops, two go on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acgs2.errors import ConflictError, InputError, NotFoundError, RefusedError
from acgs2.policy import Halts
from acgs2.policy.halts import RESUME_WITHIN_US

AGENT, TENANT = "aaaaaaaa-0000-4000-8000-000000000001", "11111111-1111-4111-8111-111111111111"
NONE = Halts()


def found_id(halt):
    assert halt is not None
    return halt.id


def test_who_is_halted():
    halts = NONE.halt("h1", "agent", AGENT.upper(), "Misbehaves.", "olga", 1)
    assert halts.version == 1
    assert found_id(halts.of(TENANT, AGENT)) == "h1"
    assert halts.of(TENANT, TENANT) is None
    assert halts.of(AGENT, None) is None
    both = halts.halt("h2", "tenant", TENANT, "Unpaid.", "olga", 2).halt("h3", "all", "", "Fire.", "olga", 3)
    assert found_id(both.of(TENANT, AGENT)) == "h3"
    assert found_id(both.of()) == "h3"
    assert NONE.of(TENANT, AGENT) is None


def test_it_takes_two_operators_within_an_hour():
    halts = NONE.halt("h1", "all", "", "Fire.", "olga", 0)
    once = halts.resume("h1", "olga", 10)
    assert once.of()
    with pytest.raises(RefusedError) as caught:
        once.resume("h1", "olga", 20)
    assert caught.value.reference == "second-operator-needed"
    assert once.resume("h1", "otto", 20).of() is None
    late = once.resume("h1", "otto", 10 + RESUME_WITHIN_US)
    assert late.of()  # the first one's wish is too old: otto's is a first one again
    assert late.resume("h1", "olga", 11 + RESUME_WITHIN_US).of() is None


def test_a_repeat_changes_nothing_and_another_halt_under_its_id_is_refused():
    halts = NONE.halt("h1", "all", "", "Fire.", "olga", 0)
    assert halts.halt("h1", "all", "", "Fire!", "otto", 5) is halts
    with pytest.raises(ConflictError):
        halts.halt("h1", "tenant", TENANT, "Other.", "olga", 5)
    with pytest.raises(NotFoundError):
        halts.resume("h2", "olga", 5)


@pytest.mark.parametrize(
    ("scope", "target", "reason"),
    [("agent", "", "x"), ("agent", "bob", "x"), ("tenant", "*", "x"), ("all", AGENT, "x"), ("world", "", "x"),
     ("all", "", ""), ("all", "", "  "), ("all", "", "x" * 2001), ("agent", None, "x")],
)  # fmt: skip
def test_what_is_no_halt_is_refused(scope, target, reason):
    with pytest.raises(InputError) as caught:
        NONE.halt("h", scope, target, reason, "olga", 0)
    assert caught.value.hint


@pytest.mark.parametrize("wrong", [None, [], {"version": "1"}, {"entries": [{"id": "x"}]}, {"entries": 1}])
def test_what_is_no_document_is_refused(wrong):
    with pytest.raises(InputError):
        Halts.parse(wrong)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["halt", "resume"]), st.integers(0, 2), st.sampled_from(["olga", "otto"]))
    )
)
def test_nobody_alone_ends_a_halt(acts):
    halts, wished = NONE, dict[str, set[str]]()
    for at, (act, number, by) in enumerate(acts):
        before, id = halts, f"h{number}"
        try:
            if act == "halt":
                halts = halts.halt(id, "all", "", "Why not.", by, at)
                wished.setdefault(id, set())
            else:
                halts = halts.resume(id, by, at)
                wished[id].add(by)
        except (NotFoundError, RefusedError):
            assert halts is before
        gone = {each.id for each in before.entries} - {each.id for each in halts.entries}
        assert all(wished.pop(each) == {"olga", "otto"} for each in gone)
        assert halts.version == before.version + (halts is not before)
        assert Halts.parse(halts.document()) == halts
        assert Halts.parse(halts.document()).digest == halts.digest
