"""Failover and failback over real links: who leads may die after any step, and what is agreed goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.cluster.conftest import TRIO, await_that, finish, folder
from tests.cluster.local.test_cluster import CENTRAL, US, WEST, command, refused
from tests.cluster.local.test_governance import call, governs

from acgs2.local.cluster import Cluster, up

REGIONS = (WEST, CENTRAL, US)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with folder() as path:
        text = TRIO.replace("failover: {automatic: false}", "failover: {dwell_s: 0.5}")
        (path / "trio.yaml").write_text(text, encoding="utf-8")
        running = up(path / "trio.yaml", path / "state")
        try:
            await_that(lambda: all(governs(running, r) for r in REGIONS), "all regions to govern")
            # Who was never agreed to serve is not failed over from, however well it was seen to be.
            await_that(lambda: {*state(running)["agreed"]["served"]} == {*REGIONS}, "all to have served", 30)
            yield running
        finally:
            finish(running)


def state(cluster: Cluster) -> dict[str, Any]:
    """Return what is agreed, from the region that leads where it is known which."""
    for region in cluster.state.topology.stacks():
        answer = _asked(cluster, region)
        if answer and answer["leader"]:
            return (_asked(cluster, answer["leader"]) if answer["leader"] != region else answer) or answer
    return {"agreed": {"plans": {}, "closed": [], "served": [], "traffic": {}}, "leader": None, "judged": {}}


def _asked(cluster: Cluster, region: str) -> dict[str, Any] | None:
    try:
        answer = call(cluster, region, "GET", "/api/v1/failover")
    except Exception:  # noqa: BLE001 - it is dead, or not up yet
        return None
    return answer.json() if answer.status_code == 200 else None


def ups(cluster: Cluster) -> set[str]:
    return {r for r, judged in state(cluster)["judged"].items() if judged["state"] == "up"}


def over(cluster: Cluster, kind: str, region: str, since_us: int) -> dict[str, Any] | None:
    """Return the last plan of a region that is over and was begun after a moment."""
    closed = state(cluster)["agreed"]["closed"]
    mine = [p for p in closed if (p["kind"], p["region"]) == (kind, region) and p["begun_us"] >= since_us]
    return mine[-1] if mine else None


def whole(cluster: Cluster) -> None:
    """Wait until every region takes part in full and governs."""

    def settled() -> bool:
        agreed = state(cluster)["agreed"]
        return not agreed["plans"] and not agreed["traffic"]["down"] and not agreed["traffic"]["weights"]

    regions = cluster.state.topology.stacks()
    await_that(settled, "all regions to take part in full", 120)
    await_that(lambda: all(governs(cluster, r) for r in regions), "all regions to govern", 30)
    await_that(lambda: ups(cluster) >= {*regions}, "all regions to be seen to serve", 30)


def test_a_region_that_dies_is_left_for_a_lawful_one_and_comes_back_by_itself(cluster: Cluster) -> None:
    whole(cluster)
    began_us = time.time_ns() // 1000
    cluster.ask("kill", region=CENTRAL, component="all")
    plan = await_that(lambda: over(cluster, "failover", CENTRAL, began_us), "the failover", 60)
    assert plan["state"] == "closed", plan["why"]
    (choice,) = [c for c in plan["choices"] if c["zone"] == "eu"]
    assert choice["target"] == WEST
    assert {c["region"]: c["chosen"] for c in choice["candidates"]} == {WEST: True, US: False}
    assert CENTRAL in state(cluster)["agreed"]["traffic"]["down"]
    cluster.ask("start", region=CENTRAL, component="all")
    back = await_that(lambda: over(cluster, "failback", CENTRAL, began_us), "the failback", 120)
    assert back["state"] == "closed", back["why"]
    assert [s["value"] for s in back["steps"] if s["kind"] == "weight"] == [10, 25, 50, 75, 100]
    whole(cluster)
    with psycopg.connect(cluster.state.dsn(plan["notes"][-1]["by"], "postgres"), autocommit=True) as conn:
        leaves = conn.execute(b"SELECT body::json FROM acgs.audit_leaf WHERE kind = 'failover'").fetchall()
    assert {"begun", "closed"} <= {leaf[0]["what"] for leaf in leaves if leaf[0]["region"] == CENTRAL}


@pytest.mark.parametrize("after", [1, 2, 3])
def test_who_leads_dies_after_a_step_and_the_next_one_finishes_without_repeating_it(
    cluster: Cluster, after: int
) -> None:
    whole(cluster)
    leader = state(cluster)["leader"]
    region = next(r for r in (CENTRAL, WEST) if r != leader)
    began_us = time.time_ns() // 1000
    begun = call(cluster, leader, "POST", f"/api/v1/failover/{region}").json()
    assert begun["begun"]

    def so_far() -> bool:
        agreed = state(cluster)["agreed"]
        plan = agreed["plans"].get(region)
        return plan is None or len(plan["notes"]) >= after

    await_that(so_far, f"{after} steps to be done", 30)
    parts = cluster.ask("status")["regions"][leader]
    os.kill(
        next(c["pid"] for c in parts if c["component"] == "server"), signal.SIGKILL
    )  # it is started again
    plan = await_that(lambda: over(cluster, "failover", region, began_us), "the failover", 90)
    assert plan["state"] == "closed", plan["why"]
    assert [note["step"] for note in plan["notes"]] == list(range(len(plan["steps"]))), (
        "each step once, in order"
    )
    terms = [note["term"] for note in plan["notes"]]
    assert terms == sorted(terms), "terms only rise"
    assert len(set(terms)) == 2, "somebody else finished it"
    # Whom an operator has left stays left, well as it is, until an operator brings it back.
    await_that(lambda: region in ups(cluster), f"{region} to be seen to be up", 30)
    time.sleep(1)
    now = state(cluster)["agreed"]
    assert not now["plans"]
    assert region in now["traffic"]["down"]
    assert call(cluster, state(cluster)["leader"], "POST", f"/api/v1/failback/{region}").json()["begun"]
    whole(cluster)


def test_a_failback_that_a_failover_stops_has_its_end_in_the_log(cluster: Cluster) -> None:
    whole(cluster)
    region = next(r for r in (CENTRAL, WEST) if r != state(cluster)["leader"])
    began_us = time.time_ns() // 1000

    def asked(kind: str) -> dict[str, Any]:
        done = call(cluster, state(cluster)["leader"], "POST", f"/api/v1/{kind}/{region}").json()
        assert done["begun"]
        return done["plan"]

    asked("failover")
    await_that(lambda: over(cluster, "failover", region, began_us), "the failover", 60)
    stopped = asked("failback")

    def at_a_gate() -> bool:
        plan = state(cluster)["agreed"]["plans"][region]
        return plan["steps"][plan["at"]]["kind"] == "gate"

    await_that(at_a_gate, "a gate of the failback", 60)
    asked("failover")

    def leaves() -> list[str]:
        found: list[str] = []
        for name in cluster.state.topology.stacks():
            with psycopg.connect(cluster.state.dsn(name, "postgres"), autocommit=True) as conn:
                query = b"SELECT body::json->>'what' FROM acgs.audit_leaf WHERE body::json->>'plan' = %s"
                found += [row[0] for row in conn.execute(query, (stopped["id"],))]
        return found

    await_that(lambda: len(leaves()) >= 2, "both leaves of the failback", 10)
    assert sorted(leaves()) == ["begun", "stopped"], "each of them once"
    await_that(lambda: not state(cluster)["agreed"]["plans"], "the second failover", 60)
    asked("failback")
    whole(cluster)


def test_commands_show_plans_and_say_why(cluster: Cluster) -> None:
    whole(cluster)
    path = cluster.state.path
    dry = command("failover", WEST, "--dry-run", "--json", state=path)
    assert dry.returncode == 0, dry.stderr
    shown = json.loads(dry.stdout)
    assert not shown["begun"]
    assert {c["zone"]: c["target"] for c in shown["plan"]["choices"]} == {"eu": CENTRAL, "all": CENTRAL}
    assert WEST not in state(cluster)["agreed"]["plans"], "nothing was begun"
    text = command("failover", US, "--dry-run", state=path).stdout
    assert "Nothing was done." in text
    assert "may not hold all that belongs to zone us" in text
    assert "held to be" in command("failover", state=path).stdout
    refused(command("failover", "xx-nowhere-1", state=path), 2, "no region")
    refused(command("failback", WEST, state=path), 3, "No failover has left")
    assert command("traffic", "drain", US, state=path).returncode == 0
    assert "none, drained" in command("failover", state=path).stdout
    assert command("traffic", "restore", US, state=path).returncode == 0
    for role in ("service", "auditor"):
        assert call(cluster, WEST, "POST", f"/api/v1/failover/{US}", role=role).status_code == 403
