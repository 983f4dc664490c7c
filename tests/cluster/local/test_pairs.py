"""A pair whose other half is away: alone only by agreement, recorded first, and ended when both are back."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import psycopg
from tests.cluster.conftest import await_that
from tests.cluster.local.test_cluster import CENTRAL, US, WEST, command, write
from tests.cluster.local.test_return import agreed, health, holds, stop

from acgs2.local.cluster import Cluster


def windows(cluster: Cluster, region: str) -> list[tuple[Any, ...]]:
    query = b"SELECT zone, peer, opened_at, closed_at FROM acgs.window ORDER BY opened_at"
    with psycopg.connect(cluster.state.dsn(region, "postgres"), autocommit=True) as conn:
        return conn.execute(query).fetchall()


def taken(cluster: Cluster, region: str) -> str | None:
    answer = write(cluster, region, "eu")
    return str(answer.json()["id"]) if answer.status_code == 201 else None


def test_one_goes_on_alone_by_agreement_and_the_window_is_closed(cluster: Cluster) -> None:
    agreed(cluster)
    stop(cluster, CENTRAL)
    key = await_that(lambda: taken(cluster, WEST), "the first write that is acknowledged alone", 30)
    acknowledged = datetime.now(UTC)
    ((zone, peer, opened, closed),) = windows(cluster, WEST)
    assert (zone, peer, closed) == ("eu", CENTRAL, None)
    assert opened < acknowledged, "recorded before the first unprotected acknowledgement"
    assert "eu" in health(cluster, WEST)["alone"]
    shown = json.loads(command("status", "--json", state=cluster.state.path).stdout)
    assert list(shown["regions"][WEST]["alone"]) == ["eu"]
    cluster.ask("start", region=CENTRAL, component="all")
    await_that(lambda: windows(cluster, WEST)[-1][3] is not None, "the window to close", 60)
    assert health(cluster, WEST)["alone"] == {}
    assert holds(cluster, CENTRAL, [key])
    agreed(cluster)


def test_without_a_majority_nobody_goes_on_alone(cluster: Cluster) -> None:
    agreed(cluster)
    before = len(windows(cluster, WEST))
    stop(cluster, US)
    stop(cluster, CENTRAL)
    failover = cluster.state.topology.failover
    until_s = time.monotonic() + 3 * failover.failures * failover.interval_s
    while time.monotonic() < until_s:
        answer = write(cluster, WEST, "eu")
        assert answer.status_code == 503, answer.text
        time.sleep(0.1)
    assert len(windows(cluster, WEST)) == before
    cluster.ask("start", region=US, component="all")
    await_that(lambda: taken(cluster, WEST), "a majority to agree", 30)
    assert len(windows(cluster, WEST)) == before + 1
    cluster.ask("start", region=CENTRAL, component="all")
    await_that(lambda: windows(cluster, WEST)[-1][3] is not None, "the window to close", 60)
    agreed(cluster)


def test_only_one_side_of_a_cut_link_goes_on(cluster: Cluster) -> None:
    agreed(cluster)
    cluster.link("cut", WEST, CENTRAL)
    await_that(lambda: taken(cluster, WEST) or taken(cluster, CENTRAL), "one of them to go on", 30)
    alone = [r for r in (WEST, CENTRAL) if health(cluster, r)["alone"]]
    assert len(alone) == 1
    other = CENTRAL if alone == [WEST] else WEST
    for _ in range(10):
        assert taken(cluster, other) is None
    cluster.link("restore", WEST, CENTRAL)
    await_that(lambda: taken(cluster, other), "both to acknowledge together again", 60)
    agreed(cluster)


def test_a_revocation_is_acknowledged_by_the_pair_of_the_zone_that_it_protects(cluster: Cluster) -> None:
    agreed(cluster)
    body = {"zone": "eu", "to": US, "instrument": "scc", "entities": ["agent"]}
    made = write(cluster, WEST, "eu", "transfers", body)
    assert made.status_code == 201, made.text
    path = f"transfers/{made.json()['id']}/revoke"
    cluster.link("cut", WEST, CENTRAL)
    try:
        refused = write(cluster, WEST, "eu", path)
        assert refused.status_code == 503, "the disk of one region would be all that knows of it"
        assert refused.json()["type"].endswith(("outcome-unknown", "pair-unavailable"))
    finally:
        cluster.link("restore", WEST, CENTRAL)
    await_that(lambda: write(cluster, WEST, "eu", path).status_code == 200, "the revocation", 60)
    agreed(cluster)
