"""A region whose clock is far from that of most regions writes nothing until it is right again."""

from __future__ import annotations

import psycopg
import pytest
from tests.cluster.conftest import await_that
from tests.cluster.local.test_cluster import US, WEST, command, write
from tests.cluster.local.test_return import agreed, health

from acgs2.local.cluster import Cluster


def problem(cluster: Cluster, region: str) -> str | None:
    answer = write(cluster, region, "all")
    return None if answer.status_code == 201 else str(answer.json()["type"]).rpartition("/")[2]


@pytest.mark.parametrize("offset_ms", [2000, -2000])
def test_a_region_far_from_the_others_time_refuses_writes(cluster: Cluster, offset_ms: int) -> None:
    agreed(cluster)
    command("chaos", "clock", US, "--offset-ms", str(offset_ms), state=cluster.state.path)
    try:
        await_that(lambda: problem(cluster, US) == "clock-apart", "the region to notice")
        assert health(cluster, US)["status"] == "not-ready"
        assert abs(health(cluster, US)["clocks_ahead_ms"][WEST] + offset_ms) < 200
        assert problem(cluster, WEST) is None, "those whose clocks agree go on"
        assert health(cluster, WEST)["clock_apart"] is False
        # A server that starts anew has heard nobody yet, and does not write before it has.
        cluster.ask("kill", region=US, component="server")
        cluster.ask("start", region=US, component="server")
        assert problem(cluster, US) is not None
    finally:
        cluster.clock(US, 0)
    await_that(lambda: problem(cluster, US) is None, "writes to be taken again")
    agreed(cluster)
    with psycopg.connect(cluster.state.dsn(US, "postgres"), autocommit=True) as conn:
        row = conn.execute(
            b"SELECT count(*), count(closed_at) FROM acgs.incident WHERE kind = 'clock-apart'"
        ).fetchone()
    assert row is not None
    assert row[0] == row[1] > 0


def test_a_clock_within_the_limit_is_left_alone(cluster: Cluster) -> None:
    agreed(cluster)
    cluster.clock(US, 300)
    try:
        await_that(lambda: health(cluster, WEST)["clocks_ahead_ms"][US] > 200, "the others to see it")
        assert problem(cluster, US) is None
    finally:
        cluster.clock(US, 0)


def test_an_unknown_region_has_no_clock(cluster: Cluster) -> None:
    done = command("chaos", "clock", "mars-north-1", "--offset-ms", "1", state=cluster.state.path)
    assert done.returncode == 2
    assert "mars-north-1" in done.stderr
