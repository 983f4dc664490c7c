"""Whoever waits in the queue gets a turn: the model is a list, the promises are about any history."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from acgs2.bus.queue import FairQueue
from acgs2.errors import OverloadedError

TENANTS = ("a", "b", "c")


class Waiting(RuleBasedStateMachine):
    """Puts and takes at random, beside a plain list of what waits in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[tuple[str, int, int]] = FairQueue(20, 8)
        self.model: list[tuple[str, int, int]] = []
        self.count = 0

    @rule(tenant=st.sampled_from(TENANTS), priority=st.integers(0, 3))
    def put(self, tenant: str, priority: int) -> None:
        self.count += 1
        item = (tenant, priority, self.count)
        mine = sum(each[0] == tenant for each in self.model)
        if len(self.model) >= 20 or mine >= 8:
            with pytest.raises(OverloadedError) as refused:
                self.queue.put(tenant, priority, item)
            expected = "overloaded" if len(self.model) >= 20 else "tenant-overloaded"
            assert refused.value.reference == expected
            return
        self.queue.put(tenant, priority, item)
        self.model.append(item)

    @rule(count=st.integers(1, 12))
    def take(self, count: int) -> None:
        before = Counter(each[0] for each in self.model)
        taken = self.queue.take(count)
        assert len(taken) == min(count, len(self.model))
        got = Counter(each[0] for each in taken)
        for tenant, n in got.items():
            for other in before:
                # Nobody gets two more than another who still has something waiting.
                assert n <= got[other] + 1 or got[other] == before[other], (tenant, other)
        for item in taken:
            waiting = [each for each in self.model if each[0] == item[0]]
            assert item == min(waiting, key=lambda each: (-each[1], each[2]))
            self.model.remove(item)

    @invariant()
    def as_many_wait_as_were_put(self) -> None:
        assert len(self.queue) == len(self.model)


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=150, deadline=None)


@given(burst=st.integers(2, 100))
def test_a_burst_of_one_tenant_delays_another_by_one_turn(burst: int) -> None:
    queue: FairQueue[str] = FairQueue(1000, 500)
    for _ in range(burst):
        queue.put("loud", 3, "loud")
    queue.put("quiet", 0, "quiet")
    assert "quiet" in queue.take(2)
