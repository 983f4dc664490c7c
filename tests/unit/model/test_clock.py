"""When a region's clock is too far from the others' to write."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from acgs2.model.clock import APART_US, Offset, is_apart

offsets = st.dictionaries(
    st.sampled_from([f"region-{n}" for n in range(6)]),
    st.builds(Offset, st.integers(-3 * APART_US, 3 * APART_US), st.integers(0, APART_US)),
)


def test_most_regions_decide() -> None:
    far, near = Offset(APART_US + 2000, 1000), Offset(400_000, 1000)
    assert is_apart({"a": far, "b": far, "c": far, "d": near}, 5, False)
    assert not is_apart({"a": far, "b": far, "c": near, "d": near}, 5, False)
    assert is_apart({"a": far, "b": far}, 3, False)
    assert not is_apart({"a": far}, 2, False), "of two nobody knows who is right"


def test_what_may_be_the_links_delay_is_no_evidence() -> None:
    slow = Offset(APART_US + 2000, 3000)
    assert not is_apart({"a": slow, "b": slow}, 3, False)


def test_an_answer_stands_until_enough_regions_are_heard() -> None:
    assert is_apart({}, 5, True)
    assert is_apart({"a": Offset(0, 0)}, 5, True)
    assert not is_apart({"a": Offset(0, 0), "b": Offset(0, 0)}, 5, True)
    assert not is_apart({}, 5, False)


@given(offsets, st.booleans())
def test_at_most_a_minority_is_ever_outvoted(heard: dict[str, Offset], before: bool) -> None:
    regions = len(heard) + 1
    far = sum(o.is_far for o in heard.values())
    if far * 2 > regions:
        assert is_apart(heard, regions, before)
    else:
        assert is_apart(heard, regions, False) is False
