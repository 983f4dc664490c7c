"""Regions that come to a running cluster and leave it for good, while clients write."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from tests.cluster.conftest import TRIO, await_that, whole_trio
from tests.cluster.local.test_cluster import CENTRAL, US, WEST, command, pids, refused, write
from tests.cluster.local.test_return import agreed, databases, health, holds

from acgs2.local.cluster import Cluster, up

NORTH = "eu-north-1"
#: A third home for eu, a voter; what us sent to eu-west-1 goes there as well.
FOUR = TRIO.replace(
    "  us-east-1: {country: US}\n", "  us-east-1: {country: US}\n  eu-north-1: {country: SE}\n"
).replace("regions: [eu-west-1, eu-central-1]}", "regions: [eu-west-1, eu-central-1, eu-north-1]}")
FOUR += "  - {zone: us, to: eu-north-1, instrument: none_required, entities: [tenant, agent]}\n"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with whole_trio() as running:
        yield running


class Load:
    """Clients that write in every region until they are told to stop, and keep what was acknowledged."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.acknowledged: dict[str, list[str]] = {"eu": [], "all": [], "us": []}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(region, zone), daemon=True)
            for region, zone in ((WEST, "eu"), (CENTRAL, "eu"), (US, "all"), (US, "us"))
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _run(self, region: str, zone: str) -> None:
        while not self._stop.wait(0.05):
            try:
                answer = write(self.cluster, region, zone)
            except httpx.HTTPError:
                continue
            if answer.status_code == 201:
                self.acknowledged[zone].append(answer.json()["id"])


def apply(cluster: Cluster, text: str, folder: Path, *options: str) -> dict[str, Any]:
    (folder / "new.yaml").write_text(text, encoding="utf-8")
    done = command(
        "topology", "apply", str(folder / "new.yaml"), "--json", *options, state=cluster.state.path
    )
    assert done.returncode == 0, done.stderr
    cluster.state = Cluster.open(cluster.state.path).state
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def voters(cluster: Cluster, region: str) -> list[str]:
    with psycopg.connect(cluster.state.dsn(region, "postgres"), autocommit=True) as conn:
        row = conn.execute(b"SELECT names FROM acgs.voters").fetchone()
    return list(row[0]) if row else []


@pytest.mark.slow
def test_a_region_joins_under_load_and_leaves_for_good(cluster: Cluster, tmp_path: Path) -> None:
    agreed(cluster)
    with Load(cluster) as load:
        await_that(lambda: all(len(keys) > 3 for keys in load.acknowledged.values()), "writes before")
        shown = apply(cluster, FOUR, tmp_path)
        assert shown["regions"] == [WEST, CENTRAL, US, NORTH]
        before = {zone: len(keys) for zone, keys in load.acknowledged.items()}
        await_that(
            lambda: all(len(load.acknowledged[z]) > n + 3 for z, n in before.items()), "writes afterwards"
        )
    agreed(cluster)
    assert holds(cluster, NORTH, load.acknowledged["eu"] + load.acknowledged["us"]), "and nothing is missing"
    with psycopg.connect(cluster.state.dsn(NORTH, "postgres"), autocommit=True) as conn:
        assert conn.execute(b"SELECT 1 FROM acgs.tenant WHERE zone = 'all'").fetchone() is None
    await_that(lambda: NORTH in voters(cluster, WEST), "everyone to know who votes")
    with databases(cluster) as found:
        leaves = [
            row[0]
            for conn in found.values()
            for row in conn.execute(
                b"SELECT body::json FROM acgs.audit_leaf WHERE kind = 'voters'"
            ).fetchall()
        ]
    assert [leaf for leaf in leaves if leaf["added"] == NORTH and NORTH in leaf["names"]], leaves
    assert health(cluster, NORTH)["seeded"]
    key = write(cluster, NORTH, "eu").json()["id"]
    await_that(lambda: holds(cluster, WEST, [key]), "what the new region writes")
    # It leaves again: it hands over what it wrote, forgets, and is gone with its data.
    last = write(cluster, NORTH, "eu").json()["id"]
    with Load(cluster) as load:
        shown = apply(cluster, TRIO, tmp_path)
        count = len(load.acknowledged["eu"])
        await_that(lambda: len(load.acknowledged["eu"]) > count + 3, "writes afterwards")
    assert any("eu-north-1 for good" in line for line in shown["changes"])
    agreed(cluster)
    assert holds(cluster, WEST, [last])
    assert holds(cluster, CENTRAL, [last])
    assert not cluster.state.region_path(NORTH).exists()
    with databases(cluster) as found:
        for conn in found.values():
            for query in (
                b"SELECT 1 FROM acgs.region WHERE name = 'eu-north-1'",
                b"SELECT 1 FROM pg_replication_slots WHERE slot_name LIKE '%%north%%'",
                b"SELECT 1 FROM pg_subscription WHERE subname LIKE '%%north%%'",
                b"SELECT 1 FROM pg_publication WHERE pubname LIKE '%%north%%'",
                b"SELECT 1 FROM acgs.tenant WHERE 'eu-north-1' = ANY (residency)",
            ):
                assert conn.execute(query).fetchone() is None, query
    assert voters(cluster, WEST) == sorted([WEST, CENTRAL, US])
    # A record that the one who left was sent is erased: nobody waits for it.
    erased = command("tenants", "erase", last, "--region", WEST, "--zone", "eu", state=cluster.state.path)
    assert erased.returncode == 0, erased.stderr
    with psycopg.connect(cluster.state.dsn(WEST, "postgres"), autocommit=True) as conn:
        owed = b"SELECT region FROM acgs.duty WHERE key = %s"
        assert ("eu-north-1",) not in conn.execute(owed, (last,)).fetchall()


@pytest.mark.slow
def test_a_region_that_is_lost_is_removed_and_the_rest_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    apply(cluster, FOUR, tmp_path)
    agreed(cluster)
    keys = [write(cluster, WEST, "eu").json()["id"] for _ in range(3)]
    agreed(cluster)
    cluster.ask("kill", region=CENTRAL, component="all")
    shutil.rmtree(cluster.state.data_path(CENTRAL))
    without = (
        FOUR.replace("  eu-central-1: {country: DE}\n", "")
        .replace("[eu-west-1, eu-central-1, eu-north-1]}", "[eu-west-1, eu-north-1]}")
        .replace("[eu-west-1, eu-central-1, us-east-1]", "[eu-west-1, us-east-1]")
    )
    (tmp_path / "without.yaml").write_text(without, encoding="utf-8")
    refused(
        command("topology", "apply", str(tmp_path / "without.yaml"), state=cluster.state.path),
        3,
        "does not answer",
    )
    apply(cluster, without, tmp_path, "--gone", CENTRAL)
    agreed(cluster)
    answer = await_that(
        lambda: (a := write(cluster, WEST, "eu")).status_code == 201 and a, "the pair of those who are left"
    )
    keys.append(answer.json()["id"])
    assert holds(cluster, NORTH, keys)
    assert voters(cluster, WEST) == sorted([WEST, US, NORTH])
    assert "eu-central-1" not in json.dumps(health(cluster, WEST))
    path = cluster.state.path
    cluster.down()
    await_that(lambda: not pids(cluster), "the last process to end")
    # It comes back as it was left, from its own file.
    again = up(path / "topology.yaml", path)
    agreed(again)
    assert holds(again, NORTH, keys)


def test_what_cannot_be_changed_is_refused_with_the_reason(cluster: Cluster, tmp_path: Path) -> None:
    for text, says in (
        (TRIO.replace("name: trio", "name: duo"), "called duo"),
        (TRIO.replace("eu-west-1: {country: IE}", "eu-west-1: {country: FR}"), "country of eu-west-1"),
        (TRIO.replace("regulation: ccpa", "regulation: pdpa"), "regulation of zone us"),
        (
            TRIO.replace(
                "{regulation: gdpr, regions: [eu-west-1, eu-central-1]}",
                "{regulation: gdpr, regions: [us-east-1]}",
            ),
            "errors of law",
        ),
    ):
        (tmp_path / "wrong.yaml").write_text(text, encoding="utf-8")
        refused(command("topology", "apply", str(tmp_path / "wrong.yaml"), state=cluster.state.path), 3, says)
    (tmp_path / "same.yaml").write_text("# a comment\n" + TRIO, encoding="utf-8")
    done = command("topology", "apply", str(tmp_path / "same.yaml"), state=cluster.state.path)
    assert (done.returncode, done.stdout.strip()) == (0, "nothing to change")
    (tmp_path / "four.yaml").write_text(FOUR, encoding="utf-8")
    planned = command("topology", "apply", str(tmp_path / "four.yaml"), "--dry-run", state=cluster.state.path)
    assert planned.returncode == 0, planned.stderr
    assert "add region eu-north-1" in planned.stdout
    assert len(cluster.ask("status")["regions"]) == 4, "three regions and the links"
