"""What is counted of requests by zone, and what a share of them took at most."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from acgs2.api.tally import BOUNDS_MS, Counted, Tally, percentile_ms, since

PATH = "/api/v1/users/7"


def counted(*took_s: float, zone: str = "eu", status: int = 200, method: str = "GET") -> Tally:
    tally = Tally()
    for each in took_s:
        tally.answered(zone, method, PATH, status, each)
    return tally


@given(st.lists(st.floats(0.001, 30), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_an_upper_bound_and_a_fifth_too_high_at_most(
    took_s: list[float], share: float
) -> None:
    found = percentile_ms(counted(*took_s).counted()["eu"].ms_buckets, share)
    true_ms = sorted(took_s)[math.ceil(share * len(took_s)) - 1] * 1000
    assert true_ms <= found * 1.001
    assert found <= max(true_ms * 1.2, BOUNDS_MS[0])


def test_nothing_took_no_time_and_what_took_longest_is_not_lost() -> None:
    assert percentile_ms(Counted().ms_buckets, 0.99) == 0
    assert percentile_ms(counted(0.0).counted()["eu"].ms_buckets, 0.99) == BOUNDS_MS[0]
    assert percentile_ms(counted(1e6).counted()["eu"].ms_buckets, 0.99) == BOUNDS_MS[-1]


def test_reads_and_faults_are_counted_by_zone_and_what_nobody_waited_for_is_not() -> None:
    tally = Tally()
    for zone, method, path, status in [
        ("eu", "GET", PATH, 200),
        ("eu", "HEAD", PATH, 404),
        ("eu", "POST", PATH, 503),
        ("us", "POST", PATH, 201),
        ("eu", "GET", PATH, 499),
        ("eu", "POST", "/api/v1/inboxes/7/claim", 200),
        ("eu", "GET", "/api/v1/deliberations/events", 200),
    ]:
        tally.answered(zone, method, path, status, 0.004)
    found = tally.counted()
    assert (found["eu"].requests, found["eu"].reads, found["eu"].errors) == (3, 2, 1)
    assert (found["us"].requests, found["us"].reads, found["us"].errors) == (1, 0, 0)
    assert [sum(each.ms_buckets) for each in found.values()] == [3, 1]


@given(st.lists(st.floats(0, 30)), st.lists(st.floats(0, 30)))
def test_between_two_looks_is_what_came_in_between(before: list[float], after: list[float]) -> None:
    earlier, later = counted(*before).counted(), counted(*before, *after).counted()
    assert since(earlier, later).get("eu", Counted()) == counted(*after).counted().get("eu", Counted())


def test_who_has_started_anew_has_counted_all_of_it_since() -> None:
    later = counted(0.1, 0.2).counted()
    assert since(counted(0.3, 0.3, 0.3).counted(), later) == later
