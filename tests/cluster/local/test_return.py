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
from tests.cluster.local.test_cluster import CENTRAL, US, WEST, command, write

from acgs2.drill.checker import agreement, misplaced
from acgs2.errors import RuntimeFault
from acgs2.local.cluster import Cluster
from acgs2.local.loopback import loopback
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
        return loopback().get(f"{cluster.state.url(region)}/health", timeout=5).json()  # type: ignore[no-any-return]
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


def test_a_backup_with_its_note_started_where_nobody_is_reached_is_told_later(cluster: Cluster) -> None:
    agreed(cluster)
    data, note = cluster.state.data_path(US), cluster.state.region_path(US) / "life.json"
    backup = data.with_name("backup")
    shutil.rmtree(backup, ignore_errors=True)
    stop(cluster, US)
    noted = note.read_text(encoding="ascii")
    shutil.copytree(data, backup, symlinks=True, copy_function=shutil.copy2)
    cluster.ask("start", region=US, component="all")
    agreed(cluster)
    keys = tenants(cluster, US, "all")
    agreed(cluster)
    before = health(cluster, US)["origin"]
    stop(cluster, US)
    owner = data.stat()
    shutil.rmtree(data)
    backup.rename(data)
    own(data, owner.st_uid, owner.st_gid)
    note.write_text(noted, encoding="ascii")
    for other in (WEST, CENTRAL):
        cluster.link("cut", US, other)
    cluster.ask("start", region=US, component="all")
    await_that(lambda: health(cluster, US).get("origin") == before, "it to take itself for what it was")
    for other in (WEST, CENTRAL):
        cluster.link("restore", US, other)
    await_that(lambda: health(cluster, US).get("origin") != before, "it to be told that it is behind")
    agreed(cluster)
    assert holds(cluster, US, keys)


def own(path: Any, uid: int, gid: int) -> None:
    for each in [path, *path.rglob("*")]:
        os.chown(each, uid, gid, follow_symlinks=False)


def test_an_old_copy_takes_a_new_life_and_the_original_stands_down(cluster: Cluster) -> None:
    """The copy is found to be behind; once others know its life, the original is refused, and writes nothing."""
    agreed(cluster)
    keys = tenants(cluster, CENTRAL, "eu")
    data = cluster.state.data_path(CENTRAL)
    copy, original = data.with_name("copy"), data.with_name("original")
    for old in (copy, original):
        shutil.rmtree(old, ignore_errors=True)
    stop(cluster, CENTRAL)
    shutil.copytree(data, copy, symlinks=True, copy_function=shutil.copy2)
    status = data.stat()
    own(copy, status.st_uid, status.st_gid)
    cluster.ask("start", region=CENTRAL, component="all")
    agreed(cluster)
    later = tenants(cluster, CENTRAL, "eu")
    agreed(cluster)
    before = health(cluster, CENTRAL)["origin"]
    stop(cluster, CENTRAL)
    note = cluster.state.region_path(CENTRAL) / "life.json"
    noted = note.read_text(encoding="ascii")
    data.rename(original)
    copy.rename(data)
    cluster.ask("start", region=CENTRAL, component="all")
    agreed(cluster)
    assert health(cluster, CENTRAL)["origin"] != before
    assert holds(cluster, CENTRAL, keys + later)
    # The original comes to life again with its own note: it is not behind it, and yet it has been replaced.
    stop(cluster, CENTRAL)
    data.rename(copy)
    original.rename(data)
    note.write_text(noted, encoding="ascii")
    cluster.ask("start", region=CENTRAL, component="all")
    refused = 0
    for _ in range(10):
        answer = write(cluster, CENTRAL, "eu")
        refused += answer.status_code == 503
        assert answer.status_code in (201, 503), answer.text
        if answer.status_code == 201:
            assert health(cluster, CENTRAL)["origin"] != before, "it wrote as what it was"
    assert refused
    agreed(cluster)
    assert health(cluster, CENTRAL)["origin"] != before, "it went on as a life of its own"
    assert holds(cluster, CENTRAL, keys + later)
    shutil.rmtree(copy)


def test_a_slot_that_reached_its_bound_is_made_again_and_nothing_is_missing(cluster: Cluster) -> None:
    agreed(cluster)
    slot = link_name(WEST, US)
    with psycopg.connect(cluster.state.dsn(WEST, "postgres"), autocommit=True) as conn:
        conn.execute(b"ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        conn.execute(b"ALTER SYSTEM SET wal_keep_size = 0")
        conn.execute(b"ALTER SYSTEM SET max_wal_size = '32MB'")
        conn.execute(b"SELECT pg_reload_conf()")
        stop(cluster, US)
        keys = tenants(cluster, WEST, "all")
        try:
            lost = b"SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND wal_status = 'lost'"

            def bound_reached() -> bool:
                conn.execute(b"SELECT pg_logical_emit_message(true, 'filler', repeat('x', 1000000))")
                conn.execute(b"SELECT pg_switch_wal()")
                conn.execute(b"CHECKPOINT")
                return conn.execute(lost, (slot,)).fetchone() is not None

            await_that(bound_reached, "the slot to be lost", 60)
        finally:
            for name in ("max_slot_wal_keep_size", "wal_keep_size", "max_wal_size"):
                conn.execute(f"ALTER SYSTEM RESET {name}".encode())
            conn.execute(b"SELECT pg_reload_conf()")
        cluster.ask("start", region=US, component="all")
        await_that(lambda: holds(cluster, US, keys), "what the lost slot had held", 60)
        agreed(cluster)
        why = b"SELECT reason FROM acgs.incoming WHERE peer = %s"
        with psycopg.connect(cluster.state.dsn(US, "postgres"), autocommit=True) as there:
            assert there.execute(why, (WEST,)).fetchone() == ("slot-lost",)


def test_both_homes_of_a_zone_destroyed_come_back_with_what_others_have(cluster: Cluster) -> None:
    keys = tenants(cluster, WEST, "all")
    agreed(cluster)
    for region in (WEST, CENTRAL):
        stop(cluster, region)
        shutil.rmtree(cluster.state.data_path(region))
    for region in (WEST, CENTRAL):
        cluster.ask("start", region=region, component="all")
    agreed(cluster)
    assert holds(cluster, WEST, keys)
    assert holds(cluster, CENTRAL, keys)
    tenants(cluster, WEST, "eu", 1)


def test_a_half_restored_directory_does_not_run_and_status_says_why(cluster: Cluster) -> None:
    agreed(cluster)
    keys = tenants(cluster, WEST, "all")
    stop(cluster, US)
    data = cluster.state.data_path(US)
    (data / "global" / "pg_control").rename(data / "pg_control.aside")
    with pytest.raises(RuntimeFault, match="pg_control"):
        cluster.ask("start", region=US, component="all")
    shown = command("status", state=cluster.state.path)
    assert shown.returncode == 5
    assert "pg_control" in shown.stdout
    (data / "pg_control.aside").rename(data / "global" / "pg_control")
    cluster.ask("start", region=US, component="all")
    agreed(cluster)
    assert holds(cluster, US, keys)
