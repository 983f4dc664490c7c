"""The guide's limits, on the proxy that has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cluster.conftest import TRIO, await_that
from tests.cluster.front.stage import Caller, Stage, staged

from acgs2.topology import Limits

WEST = "eu-west-1"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    # Probed once, so that only requests find out; who is left alone comes back sooner than in 30 s.
    seldom = "failover: {interval_s: 60}\nfront: {limits: {interval_s: 0.1, ejection_s: 1}}\n"
    with staged(f"{TRIO}{seldom}") as running:
        yield running


def test_the_figures_are_the_guides() -> None:
    limits = Limits()
    assert (limits.connections, limits.pending, limits.failures) == (100, 10, 5)
    assert (limits.interval_s, limits.ejection_s, limits.ejection_percent) == (10, 30, 50)
    assert (limits.retries, limits.per_try_s, limits.timeout_s) == (3, 10, 30)


def test_a_hundred_go_through_ten_wait_and_the_next_are_refused_at_once(stage: Stage) -> None:
    server, caller = stage.recorders[WEST], Caller(stage, stage.state.ports[f"gateway/{WEST}"])
    server.mode = "hold"
    for number in range(100):
        caller.send()
        await_that(lambda n=number: server.under_way == n + 1, f"request {number + 1} to arrive")
    caller.send(15)
    await_that(lambda: len(caller.answers) >= 5, "refusals")
    assert server.under_way == 100
    server.release()
    await_that(lambda: len(caller.answers) == 115, "all answers")
    assert caller.count(200) == 110
    assert caller.count(503) == 5
    assert caller.problems() == {"overloaded"}


def test_who_cannot_be_reached_five_times_is_left_alone_and_comes_back(stage: Stage) -> None:
    server, client = stage.recorders[WEST], stage.near(WEST)
    assert client.send("GET", "/api/v1/users").status == 200
    server.drop()
    # The first three are tried four times each; from the fifth failure on nobody is asked.
    problems = [client.send("GET", "/api/v1/users").problem for _ in range(4)]
    assert problems[0] == "region-away"
    assert problems[-1] == "region-not-serving"
    server.listen()
    assert client.send("GET", "/api/v1/users").problem == "region-not-serving", (
        "left alone, although it is back"
    )
    await_that(lambda: client.send("GET", "/api/v1/users").status == 200, "it to be asked again")
    client.close()
