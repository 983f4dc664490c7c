"""The witnessed log of a whole cluster, and every attack on the real database: seen by witnesses and by verify."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from tests.cluster.conftest import await_that
from tests.cluster.local.test_cluster import CENTRAL, US, WEST
from tests.cluster.local.test_cluster import command as run
from tests.cluster.local.test_governance import agent, governs, ready, send

from acgs2.api.tokens import mint
from acgs2.audit.checkpoint import Checkpoint
from acgs2.audit.keys import private_path, read_own
from acgs2.local.cluster import Cluster
from acgs2.local.loopback import loopback

AUDITED = b"SELECT acgs.audit('test', %s, '{\"a\":1}', %s)"


@pytest.fixture
def root(cluster: Cluster) -> Iterator[Callable[[str], psycopg.Connection[Any]]]:
    """Connections of one who has taken a database over: no trigger holds them."""
    opened: list[psycopg.Connection[Any]] = []

    def connect(region: str) -> psycopg.Connection[Any]:
        conn = psycopg.connect(cluster.state.dsn(region, "postgres"), autocommit=True)
        opened.append(conn)
        conn.execute(b"SET session_replication_role = replica")
        return conn

    yield connect
    for conn in opened:
        conn.close()


def asked(
    cluster: Cluster, region: str, path: str, role: str = "auditor", tenant: str | None = None
) -> httpx.Response:
    key = cluster.state.path / "secrets" / "signing.json"
    token = mint(key, "somebody", role, cluster.state.topology.name, int(time.time()), tenant=tenant)
    return loopback().get(
        f"{cluster.state.url(region)}/api/v1/audit{path}",
        headers={"authorization": f"Bearer {token}"},
        timeout=10,
    )


def command(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(*arguments, state=cluster.state.path)


def act(conn: psycopg.Connection[Any], count: int = 1) -> UUID:
    subject = uuid4()
    for _ in range(count):
        conn.execute(AUDITED, (subject, subject))
    return subject


def witnessed(cluster: Cluster, region: str, subject: UUID) -> dict[str, Any]:
    """Wait until what is about a subject is witnessed, and all else in the log, and return the log's state."""

    def state() -> dict[str, Any] | None:
        leaves = asked(cluster, region, f"/leaves?subject={subject}").json()
        found = asked(cluster, region, "").json()
        done = found.get("size") and found["witnessed"] == found["size"]
        placed = all(leaf["index"] is not None and leaf["index"] < found["size"] for leaf in leaves)
        return found if leaves and done and placed else None

    return await_that(state, f"the log of {region} to be witnessed")  # type: ignore[no-any-return]


def verified(cluster: Cluster, *arguments: str) -> tuple[int, set[str]]:
    done = command(cluster, "audit", "verify", "--json", *arguments)
    logs = json.loads(done.stdout)["logs"]
    return done.returncode, {finding["kind"] for log in logs for finding in log["findings"]}


def incidents(cluster: Cluster, region: str, kind: str) -> list[dict[str, Any]]:
    with psycopg.connect(cluster.state.dsn(region, "acgs_owner"), autocommit=True) as conn:
        rows = conn.execute(b"SELECT detail FROM acgs.incident WHERE kind = %s", (kind,)).fetchall()
    return [detail for (detail,) in rows]


def test_what_is_done_is_witnessed_by_two_others_and_proven(
    cluster: Cluster, root: Any, tmp_path: Path
) -> None:
    subject = act(root(WEST), 30)
    rows = await_that(
        lambda: [
            r for r in asked(cluster, WEST, f"/proofs?subject={subject}").json() if len(r["witnesses"]) >= 2
        ],
        "proofs",
    )
    assert len(rows) == 30
    assert {name.rpartition("/")[2] for name in rows[0]["witnesses"]} == {CENTRAL, US}
    assert command(cluster, "audit", "prove", str(subject), "--region", WEST).returncode == 0
    assert command(cluster, "audit", "prove", str(uuid4()), "--region", WEST).returncode == 1
    for region in (WEST, CENTRAL, US):
        witnessed(cluster, region, act(root(region)))
        assert verified(cluster, "--region", region) == (0, set())
    assert "witnessed" in command(cluster, "audit", "show").stdout
    folder = str(tmp_path / "log")
    assert command(cluster, "audit", "export", folder, "--region", WEST).returncode == 0
    assert verified(cluster, folder) == (0, set())
    witnessed(cluster, WEST, act(root(WEST)))
    assert command(cluster, "audit", "export", folder + "2", "--region", WEST).returncode == 0
    assert verified(cluster, folder, "--against", folder + "2") == (0, set())


def test_who_may_read_what(cluster: Cluster, root: Any) -> None:
    tenant = act(root(WEST))
    witnessed(cluster, WEST, tenant)
    mine = asked(cluster, WEST, f"/leaves?subject={tenant}", "service", str(tenant)).json()
    assert [leaf["kind"] for leaf in mine] == ["test"]
    assert asked(cluster, WEST, f"/leaves?subject={tenant}", "service", str(uuid4())).json() == []
    assert asked(cluster, WEST, f"/leaves?subject={tenant}", "service").status_code == 403
    for path in ("", "/checkpoint", "/tile/0/000", "/history", "/keys", "/witnessed"):
        assert asked(cluster, WEST, path, "service", str(tenant)).status_code == 403, path
        assert loopback().get(f"{cluster.state.url(WEST)}/api/v1/audit{path}").status_code == 401
    for path in ("/tile/0/999", "/tile/entries/x999/999", "/tile/7/000", "/checkpoint?size=999999999"):
        assert asked(cluster, WEST, path).status_code == 404, path
    for path in (
        "/tile/8/000",
        "/tile/-1/000",
        "/tile/0/-01",
        "/tile/0/",
        "/tile/0/000.p/256",
        "/tile/x/000",
        "/tile/0/%00",
        "/leaves",
        "/leaves?subject=x",
        "/history?limit=0",
        "/checkpoint?size=x",
    ):
        assert asked(cluster, WEST, path).status_code == 400, path


def test_a_back_dated_leaf_is_found_by_what_witnesses_saw(cluster: Cluster, root: Any) -> None:
    conn = root(CENTRAL)
    witnessed(cluster, CENTRAL, act(conn))
    subject = uuid4()
    conn.execute(
        b"INSERT INTO acgs.audit_leaf (at_us, kind, subject, body) VALUES (acgs.now_us() - 86400000000, 'test', %s, '{}')",
        (subject,),
    )
    witnessed(cluster, CENTRAL, subject)
    assert verified(cluster, "--region", CENTRAL) == (1, {"leaf-back-dated"})


def test_a_tampered_leaf_is_found(cluster: Cluster, root: Any) -> None:
    conn = root(WEST)
    witnessed(cluster, WEST, act(conn, 300))
    place = conn.execute(
        b"SELECT xid::text, id FROM acgs.audit_leaf WHERE kind = 'test' ORDER BY xid, id LIMIT 1"
    ).fetchone()
    change = b"UPDATE acgs.audit_leaf SET body = %s WHERE xid = %s::xid8 AND id = %s"
    conn.execute(change, ('{"a":2}', *place))
    code, kinds = verified(cluster, "--region", WEST)
    assert (code, kinds >= {"leaf-tampered", "root-mismatch"}) == (1, True)
    conn.execute(change, ('{"a":1}', *place))
    assert verified(cluster, "--region", WEST) == (0, set())


def test_a_region_whose_log_is_damaged_does_not_govern_until_it_is_whole(cluster: Cluster, root: Any) -> None:
    tenant, sender = agent(cluster, WEST, "eu")
    conn = root(CENTRAL)
    witnessed(cluster, CENTRAL, act(conn))
    await_that(lambda: send(cluster, CENTRAL, "eu", tenant, sender).status_code == 201, "a message taken in")
    subject = act(conn)
    witnessed(cluster, CENTRAL, subject)
    change = b"UPDATE acgs.audit_leaf SET body = %s WHERE subject = %s"
    conn.execute(change, ('{"a":2}', subject))
    try:
        for again in (False, True):
            if again:  # it does not forget by being started again
                cluster.ask("kill", region=CENTRAL, component="server")
                cluster.ask("start", region=CENTRAL, component="server")
            await_that(lambda: missing(cluster, CENTRAL) == ["audit"], "the damage to be found")
            assert not governs(cluster, CENTRAL)
            answer = send(cluster, CENTRAL, "eu", tenant, sender)
            assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (503, "audit-damaged")
            assert open_incidents(cluster, CENTRAL, "audit-damaged") == 1
        assert governs(cluster, WEST)
        assert send(cluster, WEST, "eu", tenant, sender).status_code == 201
    finally:
        conn.execute(change, ('{"a":1}', subject))
    await_that(lambda: governs(cluster, CENTRAL), "the region to govern again")
    await_that(lambda: send(cluster, CENTRAL, "eu", tenant, sender).status_code == 201, "a message taken in")
    assert ready(cluster, CENTRAL).status_code == 200
    assert not open_incidents(cluster, CENTRAL, "audit-damaged")
    witnessed(cluster, CENTRAL, act(conn))
    assert "leaf-tampered" not in verified(cluster, "--region", CENTRAL)[1]


def missing(cluster: Cluster, region: str) -> list[str] | None:
    """Return what a region that answers says that it lacks to serve."""
    try:
        answer = ready(cluster, region)
    except httpx.HTTPError:
        return None
    assert answer.status_code == (503 if "missing" in answer.json() else 200)
    return answer.json().get("missing", [])


def open_incidents(cluster: Cluster, region: str, kind: str) -> int:
    with psycopg.connect(cluster.state.dsn(region, "acgs_owner"), autocommit=True) as conn:
        query = b"SELECT count(*) FROM acgs.incident WHERE kind = %s AND closed_at IS NULL"
        row = conn.execute(query, (kind,)).fetchone()
    assert row is not None
    return int(row[0])


def test_a_forked_log_is_refused_and_told_of_by_its_witnesses(cluster: Cluster, root: Any) -> None:
    """Whoever has the region's database and its key signs another tree of the same size."""
    conn = root(WEST)
    state = witnessed(cluster, WEST, act(conn))
    signer = read_own(private_path(cluster.state.path / "secrets", WEST)).log
    forged = Checkpoint(state["origin"], state["size"], b"\x05" * 32)
    was = conn.execute(
        b"SELECT root, signature FROM acgs.audit_cut WHERE size = %s", (state["size"],)
    ).fetchone()
    change = b"UPDATE acgs.audit_cut SET root = %s, signature = %s WHERE size = %s"
    conn.execute(change, (forged.root, forged.sign(signer).signatures[0].body, state["size"]))
    conn.execute(b"NOTIFY acgs_audit_offered")
    for witness in (CENTRAL, US):
        (evidence,) = await_that(lambda w=witness: incidents(cluster, w, "audit-fork"), f"{witness} to tell")
        assert evidence["origin"] == state["origin"]
        assert forged.text in evidence["offered"]
        assert evidence["known"].startswith(state["origin"])
    assert verified(cluster, "--region", WEST)[0] == 1
    assert "log-forked" in verified(cluster, "--region", WEST)[1]
    conn.execute(change, (*was, state["size"]))


def test_a_truncated_log_is_refused_and_told_of_by_its_witnesses(cluster: Cluster, root: Any) -> None:
    conn = root(US)
    before = witnessed(cluster, US, act(conn))["size"]
    size = witnessed(cluster, US, act(conn, 5))["size"]
    with conn.transaction():
        conn.execute(b"DELETE FROM acgs.audit_cosignature WHERE size > %s", (before,))
        conn.execute(b"DELETE FROM acgs.audit_cut WHERE size > %s", (before,))
        conn.execute(
            b"DELETE FROM acgs.audit_leaf WHERE kind = 'test' AND (xid, id) > (SELECT xid, id FROM acgs.audit_cut WHERE size = %s)",
            (before,),
        )
        conn.execute(b"UPDATE acgs.audit_offer SET size = %s", (before,))
        conn.execute(b"NOTIFY acgs_audit_offered")
    for witness in (WEST, CENTRAL):
        (evidence,) = await_that(
            lambda w=witness: incidents(cluster, w, "audit-truncated"), f"{witness} to tell"
        )
        assert f"\n{before}\n" in evidence["offered"]
        assert f"\n{size}\n" in evidence["known"]
    assert verified(cluster, "--region", US) == (1, {"log-truncated"})
