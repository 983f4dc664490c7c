"""A local cluster that agrees over etcd: what the regions' databases could not decide any more, etcd still does."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.cluster.conftest import TRIO, await_that, finish, folder
from tests.cluster.local.test_cluster import CENTRAL, US, WEST, command
from tests.cluster.local.test_governance import call, end, governs, halts
from tests.cluster.local.test_pairs import taken, windows
from tests.cluster.local.test_return import agreed, health, stop
from tests.conformance.etcd import Etcd

from acgs2.local.cluster import Cluster, up


@pytest.fixture
def cluster(etcd: Etcd) -> Iterator[Cluster]:
    with folder() as path:
        text = f"{TRIO}agreement: {{register: etcd, endpoints: {etcd.endpoints}}}\n"
        (path / "trio.yaml").write_text(text, encoding="utf-8")
        running = up(path / "trio.yaml", path / "state")
        try:
            yield running
        finally:
            finish(running)


def leads(cluster: Cluster, region: str) -> int:
    """Return the term in which a region says that it leads, 0 if it does not."""
    found = health(cluster, region).get("leader", {})
    return found["term"] if found.get("held_here") else 0


def test_what_governs_is_agreed_over_etcd_and_a_halt_is_in_force_everywhere(
    cluster: Cluster, etcd: Etcd
) -> None:
    regions = [WEST, CENTRAL, US]
    await_that(lambda: all(governs(cluster, r) for r in regions), "all regions to govern", 30)
    made = command("halt", "all", "--reason", "drill", "--json", state=cluster.state.path)
    assert made.returncode == 0, made.stderr
    number = json.loads(made.stdout)["halt"]["id"]
    assert all(number in halts(cluster, r) for r in regions)
    for member in etcd.members[:2]:
        etcd.kill(member)
    await_that(lambda: not any(governs(cluster, r) for r in regions), "nobody to govern without a majority")
    for member in etcd.members[:2]:
        etcd.start(member)
    await_that(lambda: all(governs(cluster, r) for r in regions), "all regions to govern again", 30)
    end(cluster, number)
    assert not any(halts(cluster, r) for r in regions)
    made = call(cluster, US, "POST", "/api/v1/traffic", json={"region": WEST, "weight": 25}).json()
    assert made["weights"] == {WEST: 25}
    shown = lambda r: call(cluster, r, "GET", "/api/v1/traffic").json()  # noqa: E731
    await_that(
        lambda: all(shown(r) == made for r in regions), "where traffic goes to be known in all regions", 5
    )


def test_the_last_region_goes_on_alone_and_leads_as_long_as_etcd_has_a_majority(
    cluster: Cluster, etcd: Etcd
) -> None:
    agreed(cluster)
    stop(cluster, US)
    stop(cluster, CENTRAL)
    await_that(lambda: taken(cluster, WEST), "the first write that is acknowledged alone", 30)
    ((zone, peer, _, closed),) = windows(cluster, WEST)
    assert (zone, peer, closed) == ("eu", CENTRAL, None)
    term = await_that(lambda: leads(cluster, WEST), "the last region to lead")
    for member in etcd.members[:2]:
        etcd.kill(member)
    await_that(lambda: not leads(cluster, WEST), "nobody to lead without a majority")
    assert taken(cluster, WEST), "what was agreed stays agreed"
    for member in etcd.members[:2]:
        etcd.start(member)
    assert await_that(lambda: leads(cluster, WEST), "it to lead again") >= term
    for region in (US, CENTRAL):
        cluster.ask("start", region=region, component="all")
    await_that(lambda: windows(cluster, WEST)[-1][3] is not None, "the window to close", 60)
    assert health(cluster, WEST)["alone"] == {}
    agreed(cluster)
