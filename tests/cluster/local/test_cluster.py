"""A local cluster as its user sees it: up, faults, resume, two at once, and clear errors."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import psycopg
import pytest
from tests.cluster.conftest import TRIO, await_that, folder

from acgs2.api.tokens import mint
from acgs2.drill.checker import agreement, misplaced
from acgs2.errors import RuntimeFault
from acgs2.local.cluster import Cluster, up
from acgs2.local.control import ask
from acgs2.local.loopback import loopback

WEST, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"
DUO = """
name: duo
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  us-east-1: {country: US}
  us-west-2: {country: US}
zones:
  us: {regulation: ccpa, regions: [us-east-1, us-west-2], pair: none}
"""


def write(
    cluster: Cluster, region: str, zone: str, path: str = "tenants", body: Any = None, **headers: str
) -> httpx.Response:
    token = mint(
        cluster.state.path / "secrets" / "signing.json",
        "test",
        "operator",
        cluster.state.topology.name,
        int(time.time()),
    )
    sent = {"authorization": f"Bearer {token}", "x-data-sovereignty": zone} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    return loopback().post(
        f"{cluster.state.url(region)}/api/v1/{path}", json=body or {"name": "Acme"}, headers=sent, timeout=20
    )


def written(cluster: Cluster, region: str, zone: str) -> str:
    """Write until it is acknowledged: the pair's link may be a moment from being known as connected."""
    answer = await_that(
        lambda: (a := write(cluster, region, zone)).status_code == 201 and a, "an acknowledgement"
    )
    return str(answer.json()["id"])


def has(cluster: Cluster, region: str, key: str) -> bool:
    with psycopg.connect(cluster.state.dsn(region, "acgs_owner")) as conn:
        return conn.execute(b"SELECT 1 FROM acgs.tenant WHERE key = %s", (UUID(key),)).fetchone() is not None


def pids(cluster: Cluster) -> set[int]:
    return {p.pid for p in psutil.process_iter() if str(cluster.state.path) in " ".join(_command(p))}


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_regions_converge_over_their_distances(cluster: Cluster) -> None:
    key = written(cluster, US, "all")
    for region in (WEST, CENTRAL):
        await_that(lambda r=region: has(cluster, r, key), f"the tenant in {region}")
    connections = {
        r: psycopg.connect(cluster.state.dsn(r, "acgs_owner"), autocommit=True)
        for r in cluster.state.topology.regions
    }
    try:
        await_that(lambda: not agreement(connections), "agreement")
        assert misplaced(connections) == []
        await_that(
            lambda: (
                connections[US]
                .execute(b"SELECT count(*) FROM acgs.link_lag WHERE source = %s", (WEST,))
                .fetchone()[0]
                > 3
            ),
            "lag",
        )
        fastest = (
            connections[US]
            .execute(b"SELECT min(lag_us) / 1000.0 FROM acgs.link_lag WHERE source = %s", (WEST,))
            .fetchone()
        )
        rtt_ms = next(n.rtt_ms for n in cluster.state.topology.links() if {n.a, n.b} == {WEST, US})
        assert fastest is not None
        assert float(fastest[0]) >= rtt_ms / 2 * 0.98, "nothing is faster than the link"
    finally:
        for conn in connections.values():
            conn.close()


def test_a_cut_link_holds_a_pairs_acknowledgement_back_and_restoring_lets_it_through(
    cluster: Cluster,
) -> None:
    written(cluster, WEST, "eu")
    cluster.link("cut", WEST, CENTRAL)
    try:
        answer = write(cluster, WEST, "eu", idempotency_key="during-the-cut")
        assert answer.status_code == 503
        assert answer.json()["type"].rpartition("/")[2] in ("outcome-unknown", "pair-unavailable")
        refused = await_that(
            lambda: (a := write(cluster, WEST, "eu")).json()["type"].endswith("pair-unavailable") and a,
            "refusal at once",
        )
        assert refused.json()["away"] == [CENTRAL]
        assert write(cluster, US, "us").status_code == 201, "a zone without a pair goes on"
    finally:
        cluster.link("restore", WEST, CENTRAL)
    again = await_that(
        lambda: (a := write(cluster, WEST, "eu", idempotency_key="during-the-cut")).status_code < 300 and a,
        "the repeat",
    )
    assert has(cluster, CENTRAL, again.json()["id"])


def test_a_one_way_cut_is_one_way_and_unknown_links_are_refused(cluster: Cluster) -> None:
    cluster.link("cut", US, WEST, one_way=True)
    lines = {(n["from"], n["to"]): n["cut"] for n in cluster.link("status")["lines"]}
    cluster.link("restore", US, WEST, reset=True)
    assert lines[US, WEST]
    assert not lines[WEST, US]
    with pytest.raises(Exception, match="no link"):
        cluster.link("cut", US, "mars-west-1")
    with pytest.raises(RuntimeFault, match="token"):
        ask(cluster.state.ports["links"], "wrong", {"action": "status"})
    with socket.create_connection(("127.0.0.1", cluster.state.ports["links"])) as sock:
        sock.sendall(b"\x00garbage\n")
        assert b"error" in sock.recv(4096)


def test_a_crashed_server_comes_back_and_a_frozen_region_goes_on(cluster: Cluster) -> None:
    parts = {c["component"]: c for c in cluster.ask("status")["regions"][US]}
    os.kill(parts["server"]["pid"], signal.SIGKILL)
    await_that(
        lambda: {c["component"]: c for c in cluster.ask("status")["regions"][US]}["server"]["restarts"] == 1,
        "the restart",
    )
    await_that(lambda: _ready(cluster, US), "the server")
    cluster.ask("freeze", region=US)
    with pytest.raises(httpx.TimeoutException):
        httpx.get(cluster.state.url(US) + "/health/live", timeout=0.5)
    cluster.ask("thaw", region=US)
    await_that(lambda: _ready(cluster, US), "the region after its freeze")


def test_a_crashed_database_comes_back_and_nothing_is_lost(cluster: Cluster) -> None:
    key = written(cluster, US, "all")
    before = _part(cluster, US, "postgres")
    os.kill(before["pid"], signal.SIGKILL)
    # Its server may not have noticed yet, and says that it is ready.
    await_that(lambda: _part(cluster, US, "postgres")["restarts"] > before["restarts"], "its end to be seen")
    await_that(lambda: _part(cluster, US, "postgres")["phase"] == "ready", "the database")
    await_that(lambda: _ready(cluster, US) and has(cluster, US, key), "the database with its data")
    after = written(cluster, US, "all")
    await_that(lambda: has(cluster, WEST, after), "replication after the crash")


def test_a_database_that_fails_to_restart_is_tried_again_until_it_does(cluster: Cluster) -> None:
    control = cluster.state.data_path(US) / "global" / "pg_control"
    aside = control.with_name("aside")
    control.rename(aside)
    try:
        os.kill(_part(cluster, US, "postgres")["pid"], signal.SIGKILL)
        await_that(lambda: _part(cluster, US, "postgres")["restarts"] >= 3, "three restarts in vain")
    finally:
        aside.rename(control)
    await_that(lambda: _ready(cluster, US), "the database once its control file is back")


def _part(cluster: Cluster, region: str, component: str) -> dict[str, Any]:
    return next(c for c in cluster.ask("status")["regions"][region] if c["component"] == component)


def test_acknowledged_writes_survive_the_taker_and_its_disk(cluster: Cluster) -> None:
    keys = [written(cluster, WEST, "eu") for _ in range(20)]
    cluster.ask("kill", region=WEST)
    shutil.rmtree(cluster.state.data_path(WEST))
    assert all(has(cluster, CENTRAL, key) for key in keys)


def _ready(cluster: Cluster, region: str) -> bool:
    try:
        return (
            loopback().get(cluster.state.url(region) + "/health", timeout=2).json().get("status") == "ready"
        )
    except httpx.HTTPError:
        return False


def test_everything_killed_comes_back_with_its_data_and_leaves_no_process() -> None:
    with folder() as path:
        (path / "duo.yaml").write_text(DUO, encoding="utf-8")
        first = up(path / "duo.yaml", path / "state")
        try:
            key = written(first, US, "us")
            supervisor = next(
                p for p in pids(first) if "acgs2.local.supervisor" in " ".join(psutil.Process(p).cmdline())
            )
            os.kill(supervisor, signal.SIGKILL)
            await_that(lambda: not pids(first), "every process to end with its supervisor")
            again = up(path / "duo.yaml", path / "state")
            assert has(again, US, key)
            await_that(lambda: has(again, "us-west-2", key), "replication to go on")
            assert up(path / "duo.yaml", path / "state").state.ports == first.state.ports, (
                "a second up resumes"
            )
        finally:
            first.down()
        await_that(lambda: not pids(first), "every process to be gone")


def test_two_clusters_stand_side_by_side(cluster: Cluster) -> None:
    with folder() as path:
        (path / "duo.yaml").write_text(DUO, encoding="utf-8")
        other = up(path / "duo.yaml", path / "state")
        try:
            assert not set(other.state.ports.values()) & set(cluster.state.ports.values())
            written(other, US, "us")
            assert _ready(cluster, CENTRAL)
        finally:
            other.destroy()
        assert not (path / "state").exists()


def command(*arguments: str, state: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "acgs2.cli", "--state", str(state), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], status: int, says: str) -> None:
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_brought_up_says_why() -> None:
    with folder() as path, socket.socket() as taken:
        for port in range(20_000, 30_000):  # a port that a topology may name, unlike some that are given out
            with contextlib.suppress(OSError):
                taken.bind(("127.0.0.1", port))
                break
        refused(command("status", state=path / "none"), 5, "no cluster")
        refused(command("up", str(path / "nowhere.yaml"), state=path / "a"), 2, "cannot be read")
        (path / "broken.yaml").write_text("name: [", encoding="utf-8")
        refused(command("up", str(path / "broken.yaml"), state=path / "b"), 2, "broken.yaml:1")
        (path / "port.yaml").write_text(
            DUO + f"local: {{base_port: {taken.getsockname()[1]}}}\n", encoding="utf-8"
        )
        refused(command("up", str(path / "port.yaml"), state=path / "c"), 5, f"Port {taken.getsockname()[1]}")
        (path / "d").mkdir()
        (path / "d" / "state.json").write_text(json.dumps({"format": 99, "ports": {}}), encoding="utf-8")
        (path / "d" / "secrets").mkdir()
        (path / "d" / "secrets" / "secrets.json").write_text("{}", encoding="utf-8")
        (path / "duo.yaml").write_text(DUO, encoding="utf-8")
        refused(command("up", str(path / "duo.yaml"), state=path / "d"), 5, "format 99")
        (path / "file").write_text("", encoding="utf-8")
        refused(command("up", str(path / "duo.yaml"), state=path / "file" / "below"), 5, "cannot be written")


def test_another_topology_is_not_mistaken_for_this_one(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(TRIO.replace("name: trio", "name: other"), encoding="utf-8")
    refused(command("up", str(tmp_path / "other.yaml"), state=cluster.state.path), 5, "differs")
    refused(command("tenants", "list", "--region", "mars-west-1", state=cluster.state.path), 2, "no region")
    refused(command("chaos", "kill", "mars-west-1", state=cluster.state.path), 2, "no region")


def test_status_and_lag_are_readable_by_scripts(cluster: Cluster) -> None:
    lag = command("lag", "--json", state=cluster.state.path)
    assert {row["to"] for row in json.loads(lag.stdout)["links"]} >= {US, CENTRAL}
    status = command("status", "--json", state=cluster.state.path)
    assert status.returncode == 5, "a region was killed"
    assert json.loads(status.stdout)["regions"][CENTRAL]["status"] == "ready"
    assert "\x1b[" not in command("status", state=cluster.state.path).stdout


def test_every_process_logs_lines_that_programs_and_people_can_read(cluster: Cluster) -> None:
    # PostgreSQL and Envoy write as they do.
    named = ("*.server.log", "links.links.log", "supervisor.log")
    ours = [log for name in named for log in cluster.state.logs.glob(name)]
    assert len(ours) == 5
    for log in ours:
        for line in log.read_text(encoding="utf-8").splitlines():
            body = json.loads(line)
            assert {"timestamp", "level", "event", "logger", "process"} <= set(body), line
            assert (body["process"] == "server") <= ("region" in body), line
    shown = command("logs", CENTRAL, "--component", "server", "-n", "1000", state=cluster.state.path).stdout
    assert re.search(
        r"^\d{4}-\d\d-\d\d [\d:.]{12} info +awake incarnation=[0-9a-f]{8} seeded=true$", shown, re.MULTILINE
    )
    assert "\x1b[" not in shown
    raw = command(
        "logs", CENTRAL, "--component", "server", "-n", "2", "--json", state=cluster.state.path
    ).stdout
    assert [json.loads(line)["region"] for line in raw.splitlines()] == [CENTRAL, CENTRAL]


def test_the_demo_keeps_its_promises_and_leaves_nothing_behind() -> None:
    with folder() as path:
        done = command("demo", "--seconds", "3", "--json", state=path / "state")
        report = json.loads(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr
        assert report["good"]
        assert report["acknowledged"] > 50
        assert report["paired_acknowledged"] > 0
        assert report["paired_lost"] == 0
        assert report["verdict"] == {"disagreements": [], "misplaced": [], "lost": []}
        assert {c["field"] for c in report["conflicts"]} >= {"display_name"}
        assert report["placement"]["us-east-1"].get("sg", 0) > 0
        assert "eu" not in report["placement"].get("ap-southeast-1", {})
        assert not (path / "state").exists()
        assert not [p for p in psutil.process_iter() if str(path) in " ".join(_command(p))]
