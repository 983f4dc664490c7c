"""Regions that lose their data, or get old data back, and come back by themselves to agreement."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from tests.cluster.conftest import await_that
from tests.cluster.local.test_cluster import CENTRAL, US, WEST, write

from acgs2.drill.checker import agreement, misplaced
from acgs2.local.cluster import Cluster
from acgs2.store.region import link_name


@contextmanager
def databases(cluster: Cluster) -> Iterator[Mapping[str, psycopg.Connection[Any]]]:
    with ExitStack() as stack:
        yield {
            r: stack.enter_context(psycopg.connect(cluster.state.dsn(r, "postgres"), autocommit=True))
            for r in cluster.state.topology.regions
        }


def health(cluster: Cluster, region: str) -> dict[str, Any]:
    try:
        return httpx.get(f"{cluster.state.url(region)}/health", timeout=5).json()  # type: ignore[no-any-return]
    except httpx.HTTPError:
        return {}


def whole(cluster: Cluster) -> bool:
    found = [health(cluster, r) for r in cluster.state.topology.regions]
    return all(
        h.get("status") == "ready" and not h["links_missing"] and all(h["peers_connected"].values())
        for h in found
    )


def agreed(cluster: Cluster) -> None:
    """Wait until every region is whole and all that may be held together is equal."""
    await_that(lambda: whole(cluster), "all regions to be whole", 60)
    with databases(cluster) as found:
        await_that(lambda: not agreement(found), "agreement", 30)
        assert misplaced(found) == []


def stop(cluster: Cluster, region: str) -> None:
    cluster.ask("kill", region=region, component="all")


def tenants(cluster: Cluster, region: str, zone: str, count: int = 3) -> list[str]:
    made = [write(cluster, region, zone) for _ in range(count)]
    assert all(m.status_code == 201 for m in made), [m.text for m in made]
    return [str(m.json()["id"]) for m in made]


def holds(cluster: Cluster, region: str, keys: list[str]) -> bool:
    with psycopg.connect(cluster.state.dsn(region, "postgres"), autocommit=True) as conn:
        row = conn.execute(
            b"SELECT count(*) FROM acgs.tenant WHERE key = ANY (%s::uuid[])", (keys,)
        ).fetchone()
    return row == (len(keys),)


def test_a_destroyed_database_is_given_everything_again_under_a_new_life(cluster: Cluster) -> None:
    keys = tenants(cluster, CENTRAL, "eu") + tenants(cluster, WEST, "all")
    agreed(cluster)
    before = health(cluster, CENTRAL)["origin"]
    stop(cluster, CENTRAL)
    shutil.rmtree(cluster.state.data_path(CENTRAL))
    late = tenants(cluster, US, "all")
    cluster.ask("start", region=CENTRAL, component="all")
    agreed(cluster)
    assert holds(cluster, CENTRAL, keys + late)
    assert health(cluster, CENTRAL)["origin"] != before
    after = tenants(cluster, CENTRAL, "eu")
    await_that(lambda: holds(cluster, WEST, after), "new records of the new life")


def test_a_slot_dropped_by_hand_is_made_again_and_nothing_is_missing(cluster: Cluster) -> None:
    cluster.link("cut", WEST, US)
    keys = tenants(cluster, WEST, "all")
    slot = link_name(WEST, US)
    with psycopg.connect(cluster.state.dsn(WEST, "postgres"), autocommit=True) as conn:
        query = b"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active"
        conn.execute(query, (slot,))
        idle = b"SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
        await_that(lambda: conn.execute(idle, (slot,)).fetchone(), "the slot to be idle")
        conn.execute(b"SELECT pg_drop_replication_slot(%s)", (slot,))
    assert not holds(cluster, US, keys)
    cluster.link("restore", WEST, US)
    await_that(lambda: holds(cluster, US, keys), "what the lost slot had held", 60)
    agreed(cluster)


@pytest.mark.parametrize("noted", [True, False], ids=["noted outside", "known by peers only"])
def test_an_old_backup_is_a_new_life_that_loses_and_falsely_acknowledges_nothing(
    cluster: Cluster, noted: bool
) -> None:
    agreed(cluster)
    data = cluster.state.data_path(CENTRAL)
    backup = data.with_name("backup")
    shutil.rmtree(backup, ignore_errors=True)
    stop(cluster, CENTRAL)
    shutil.copytree(data, backup, symlinks=True, copy_function=shutil.copy2)
    cluster.ask("start", region=CENTRAL, component="all")
    agreed(cluster)
    # After the backup: taken in by it, and published by it.
    keys = tenants(cluster, WEST, "eu") + tenants(cluster, CENTRAL, "eu") + tenants(cluster, US, "all")
    agreed(cluster)
    before = health(cluster, CENTRAL)["origin"]
    stop(cluster, CENTRAL)
    owner = data.stat()
    shutil.rmtree(data)
    backup.rename(data)
    own(data, owner.st_uid, owner.st_gid)
    if not noted:
        (cluster.state.region_path(CENTRAL) / "life.json").unlink()
    cluster.ask("start", region=CENTRAL, component="all")
    acknowledged: list[str] = []
    for _ in range(20):
        for region in (CENTRAL, WEST):
            try:
                answer = write(cluster, region, "eu")
            except httpx.HTTPError:
                continue
            if answer.status_code == 201:
                acknowledged.append(answer.json()["id"])
    agreed(cluster)
    assert health(cluster, CENTRAL)["origin"] != before
    for region in (CENTRAL, WEST):
        assert holds(cluster, region, keys[:6] + acknowledged), region
    assert holds(cluster, CENTRAL, keys)
    after = tenants(cluster, CENTRAL, "eu")
    assert holds(cluster, WEST, after)


def own(path: Any, uid: int, gid: int) -> None:
    for each in [path, *path.rglob("*")]:
        os.chown(each, uid, gid, follow_symlinks=False)
