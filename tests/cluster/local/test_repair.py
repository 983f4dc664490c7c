"""Anti-entropy: rows changed by hand, rows missing, a dead region's last change that reached one survivor."""

from __future__ import annotations

import json

import psycopg
from tests.cluster.conftest import await_that
from tests.cluster.local.test_cluster import CENTRAL, US, WEST, command
from tests.cluster.local.test_return import agreed, databases, health, holds, tenants

from acgs2.drill.checker import agreement
from acgs2.local.cluster import Cluster


def repair(cluster: Cluster, region: str) -> dict[str, list[dict[str, object]]]:
    done = command("repair", region, "--json", state=cluster.state.path)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def by_hand(cluster: Cluster, region: str, statement: str, *parameters: object) -> None:
    with psycopg.connect(cluster.state.dsn(region, "postgres"), autocommit=True) as conn:
        conn.execute(b"SET session_replication_role = replica")
        assert conn.execute(statement.encode(), parameters).rowcount == 1


def test_equal_regions_find_nothing(cluster: Cluster) -> None:
    tenants(cluster, WEST, "all", 5)
    agreed(cluster)
    found = repair(cluster, WEST)
    assert sum(int(str(f["differing"])) for f in found["compared"]) == 0
    assert sum(int(str(f["compared"])) for f in found["compared"]) >= 10


def test_a_row_changed_by_hand_is_found_and_the_copy_of_most_is_kept(cluster: Cluster) -> None:
    (key,) = tenants(cluster, WEST, "all", 1)
    agreed(cluster)
    # At the very region that wrote it: two others know better.
    by_hand(cluster, WEST, "UPDATE acgs.tenant SET name = 'Forged' WHERE key = %s", key)
    repair(cluster, WEST)
    agreed(cluster)
    with databases(cluster) as found:
        for conn in found.values():
            assert conn.execute(b"SELECT name FROM acgs.tenant WHERE key = %s", (key,)).fetchone() == (
                "Acme",
            )
        kept = b"SELECT loser_value ->> 'name' FROM acgs.conflict WHERE key = %s AND strategy = 'repair'"
        assert found[WEST].execute(kept, (key,)).fetchone() == ("Forged",)
        incident = b"SELECT kind FROM acgs.incident WHERE detail ->> 'key' = %s"
        assert found[WEST].execute(incident, (key,)).fetchone() == ("diverged",)


def test_what_one_survivor_lacks_is_given_both_ways(cluster: Cluster) -> None:
    first, second = tenants(cluster, WEST, "all", 2)
    agreed(cluster)
    by_hand(cluster, CENTRAL, "DELETE FROM acgs.tenant WHERE key = %s", first)
    by_hand(cluster, US, "DELETE FROM acgs.tenant WHERE key = %s", second)
    with databases(cluster) as found:
        assert agreement(found)
    repair(cluster, US)
    await_that(lambda: holds(cluster, CENTRAL, [first]) and holds(cluster, US, [second]), "both to be whole")
    agreed(cluster)


def test_the_last_change_of_a_region_that_dies_reaches_all_survivors(cluster: Cluster) -> None:
    agreed(cluster)
    cluster.link("cut", US, CENTRAL)
    keys = tenants(cluster, US, "all", 2)
    await_that(lambda: holds(cluster, WEST, keys), "one survivor to have it")
    cluster.ask("kill", region=US, component="all")
    assert not holds(cluster, CENTRAL, keys)
    repair(cluster, CENTRAL)
    await_that(lambda: holds(cluster, CENTRAL, keys), "the other survivor to be given it")
    cluster.link("restore", US, CENTRAL)
    cluster.ask("start", region=US, component="all")
    agreed(cluster)
    assert health(cluster, US)["seeded"]
