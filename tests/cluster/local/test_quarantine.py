"""A row that no code can merge is set aside, and the link goes on; an operator decides what becomes of it."""

from __future__ import annotations

import json

import psycopg
from tests.cluster.conftest import await_that
from tests.cluster.local.test_cluster import CENTRAL, WEST, command, write
from tests.cluster.local.test_return import agreed, databases, holds

from acgs2.local.cluster import Cluster


def quarantine(cluster: Cluster, *arguments: str) -> tuple[int, str]:
    done = command("quarantine", *arguments, "--region", CENTRAL, state=cluster.state.path)
    return done.returncode, done.stdout + done.stderr


def test_poison_is_set_aside_and_everything_else_arrives(cluster: Cluster) -> None:
    agreed(cluster)
    # A release that lost the ability to take in one value: as good as any other error in the merge.
    with psycopg.connect(cluster.state.dsn(CENTRAL, "postgres"), autocommit=True) as conn:
        conn.execute(b"ALTER TABLE acgs.tenant ADD CONSTRAINT poison CHECK (name <> 'Poison')")
    bad = [write(cluster, WEST, "all", body={"name": "Poison"}).json()["id"] for _ in range(2)]
    good = [write(cluster, WEST, "all").json()["id"] for _ in range(3)]
    await_that(lambda: holds(cluster, CENTRAL, good), "what came after the poison", 60)
    assert not holds(cluster, CENTRAL, bad[:1])
    status, out = quarantine(cluster, "list", "--json")
    rows = json.loads(out)
    assert (status, {r["reason"] for r in rows}) == (0, {"cannot-be-merged"})
    assert {r["sqlstate"] for r in rows} == {"23514"}
    held = {
        json.loads(quarantine(cluster, "show", str(r["id"]))[1])["records"][0]["key"]: r["id"] for r in rows
    }
    assert set(held) == set(bad)
    number = str(held[bad[0]])
    assert quarantine(cluster, "retry", number)[0] == 3
    assert quarantine(cluster, "retry", "999999")[0] == 3
    with psycopg.connect(cluster.state.dsn(CENTRAL, "postgres"), autocommit=True) as conn:
        conn.execute(b"ALTER TABLE acgs.tenant DROP CONSTRAINT poison")
    assert quarantine(cluster, "retry", number)[0] == 0
    await_that(lambda: holds(cluster, CENTRAL, bad[:1]), "the row that can be merged now")
    assert quarantine(cluster, "drop", str(held[bad[1]]), "--yes")[0] == 0
    assert json.loads(quarantine(cluster, "list", "--json")[1]) == []
    with databases(cluster) as found:
        dropped = found[CENTRAL].execute(
            b"SELECT detail ->> 'by' FROM acgs.incident WHERE kind = 'quarantine-dropped'"
        )
        assert dropped.fetchone() == ("operator@cli",)
    # What was given up here is given back by the others.
    assert command("repair", CENTRAL, state=cluster.state.path).returncode == 1
    await_that(lambda: holds(cluster, CENTRAL, bad), "the dropped row")
    agreed(cluster)
