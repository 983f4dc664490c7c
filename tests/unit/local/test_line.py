"""One direction of a link: its delay, its bandwidth, and what loss costs."""

from __future__ import annotations

from random import Random

import pytest

from acgs2.local.links import Line


def test_bytes_arrive_after_half_a_round_trip() -> None:
    assert Line(80, rng=Random(1)).due_s(10.0, 1000) == pytest.approx(10.04)


def test_bandwidth_is_shared_in_order() -> None:
    line = Line(0, bandwidth_mbps=8, rng=Random(1))
    assert line.due_s(0.0, 1_000_000) == pytest.approx(1.0)
    assert line.due_s(0.0, 500_000) == pytest.approx(1.5)
    assert line.due_s(9.0, 500_000) == pytest.approx(9.5)


def test_a_lost_segment_costs_a_retransmission_timeout() -> None:
    assert Line(20, loss=0.999999, rng=Random(1)).due_s(0.0, 1) == pytest.approx(0.21)
    assert Line(400, loss=0.999999, rng=Random(1)).due_s(0.0, 1) == pytest.approx(1.0)


def test_slow_multiplies_the_delay() -> None:
    line = Line(100, rng=Random(1))
    line.factor = 5
    assert line.due_s(0.0, 1) == pytest.approx(0.25)
