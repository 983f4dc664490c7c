"""Who is down is what a majority of all voters saw for itself, each several times in a row, lately."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from acgs2.plan import Observation, fold, judge
from acgs2.topology import Failover

VOTERS = ["a", "b", "c", "d", "e"]
SETTINGS = Failover()

observations = st.lists(
    st.builds(
        Observation,
        observer=st.sampled_from([*VOTERS, "stranger"]),
        subject=st.sampled_from(VOTERS),
        failures=st.integers(0, 5),
        age_s=st.floats(0, 10),
        problem=st.sampled_from(["", "timeout"]),
    ),
    unique_by=lambda o: (o.observer, o.subject),
)


@given(observations)
def test_down_needs_a_majority_of_all_voters_that_saw_it_lately(seen: list[Observation]) -> None:
    found = judge(VOTERS, VOTERS, seen, SETTINGS)
    for region, judged in found.items():
        by = {
            o.observer
            for o in seen
            if o.subject == region
            and o.observer in VOTERS
            and o.failures >= SETTINGS.failures
            and o.age_s <= 3 * SETTINGS.interval_s
        }
        assert (judged.state == "down") == (len(by) >= 3)
        assert set(judged.down_by) == by
        assert judged.why


@given(st.lists(st.sampled_from([None, "refused"]), min_size=1, max_size=12))
def test_what_is_seen_counts_in_a_row(looks: list[str | None]) -> None:
    seen = Observation("a", "b")
    for problem in looks:
        seen = fold(seen, problem)
    last = looks[-1]
    row = next((n for n, each in enumerate(reversed(looks)) if (each is None) != (last is None)), len(looks))
    assert (seen.successes, seen.failures) == ((row, 0) if last is None else (0, row))
    assert seen.problem == (last or "")


def test_one_way_cut_seen_by_a_minority_is_nobodys_failover() -> None:
    seen = [Observation("a", "b", failures=9, problem="timeout")]
    seen += [Observation(o, "b", successes=9) for o in ("c", "d")]
    judged = judge(VOTERS, ["b"], seen, SETTINGS)["b"]
    assert judged.state == "unsure"
    assert "no majority" in judged.why


def test_a_region_that_comes_and_goes_is_never_up() -> None:
    seen = {o: Observation(o, "b") for o in ("a", "c", "d")}
    for second in range(60):
        problem = None if second % 4 < 2 else "refused"
        seen = {o: fold(each, problem) for o, each in seen.items()}
        assert judge(VOTERS, ["b"], seen.values(), SETTINGS)["b"].state == "unsure"
