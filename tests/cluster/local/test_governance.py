"""Governance over real links: who is cut off stops within a lease, who has another constitution does not begin."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import yaml
from tests.cluster.conftest import await_that, whole_trio
from tests.cluster.local.test_cluster import CENTRAL, US, WEST, command, refused, write
from tests.cluster.local.test_return import health

from acgs2 import policy
from acgs2.api.tokens import mint
from acgs2.consensus import PaxosRegister
from acgs2.consensus.voters import DatabaseVoter
from acgs2.local.cluster import Cluster
from acgs2.local.loopback import loopback
from acgs2.model.ids import uuid7
from acgs2.policy import Halts

REGIONS = [CENTRAL, WEST, US]
#: What this test's own looks may take on a busy machine, on top of what the promise is about.
LOOK_S = 0.5


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with whole_trio() as running:
        await_that(lambda: all(governs(running, r) for r in REGIONS), "all regions to govern")
        yield running


def governs(cluster: Cluster, region: str) -> bool:
    try:
        return loopback().get(f"{cluster.state.url(region)}/health/governing", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def call(
    cluster: Cluster, region: str, method: str, path: str, role: str = "operator", **rest: Any
) -> httpx.Response:
    state = cluster.state
    tenant, subject = rest.pop("tenant", None), rest.pop("subject", "test")
    key, now_s = state.path / "secrets" / "signing.json", int(time.time())
    token = mint(key, subject, role, state.topology.name, now_s, tenant=tenant)
    sent = {"authorization": f"Bearer {token}", **rest.pop("headers", {})}
    return loopback().request(method, state.url(region) + path, headers=sent, timeout=30, **rest)


def halts(cluster: Cluster, region: str) -> set[str]:
    return {each["id"] for each in call(cluster, region, "GET", "/api/v1/halts").json()}


def end(cluster: Cluster, number: str) -> None:
    for by in ("ann", "bo"):
        done = command("resume", number, "--as", by, state=cluster.state.path)
        assert done.returncode == 0, done.stderr


@contextmanager
def isolated(cluster: Cluster, region: str) -> Iterator[None]:
    others = [r for r in REGIONS if r != region]
    for other in others:
        cluster.link("cut", region, other)
    try:
        yield
    finally:
        for other in others:
            cluster.link("restore", region, other)


@contextmanager
def server_with(cluster: Cluster, region: str, **changes: str) -> Iterator[None]:
    """Have a region's server run with another configuration."""
    path = cluster.state.path / "secrets" / f"server.{region}.json"
    before = path.read_text(encoding="utf-8")

    def again(text: str) -> None:
        cluster.ask("kill", region=region, component="server")
        path.write_text(text, encoding="utf-8")
        cluster.ask("start", region=region, component="server")

    again(json.dumps(json.loads(before) | changes))
    try:
        yield
    finally:
        again(before)
        await_that(lambda: governs(cluster, region), f"{region} to govern again")


def ready(cluster: Cluster, region: str) -> httpx.Response:
    return loopback().get(f"{cluster.state.url(region)}/health/ready", timeout=5)


def agent(cluster: Cluster, region: str, zone: str) -> tuple[str, str]:
    tenant = write(cluster, region, zone).json()["id"]
    made = write(cluster, region, zone, "agents", {"tenant_id": tenant, "name": "one"})
    assert made.status_code == 201, made.text
    return str(tenant), str(made.json()["id"])


def send(cluster: Cluster, region: str, zone: str, tenant: str, sender: str) -> httpx.Response:
    body = {
        "message_id": str(uuid7(time.time_ns() // 1_000_000, os.urandom(10))),
        "conversation_id": str(uuid4()),
        "tenant_id": tenant,
        "from_agent": sender,
        "to_agent": sender,
        "message_type": "note",
        "constitutional_hash": "cdd01ef066bc6cf2",
    }
    headers = {"x-data-sovereignty": zone}
    return call(
        cluster,
        region,
        "POST",
        "/api/v1/messages",
        "agent",
        tenant=tenant,
        subject=sender,
        headers=headers,
        json=body,
    )


def test_a_region_that_is_cut_off_stops_within_a_lease_and_comes_back_with_what_is_in_force(
    cluster: Cluster,
) -> None:
    tenant, sender = agent(cluster, US, "us")
    lease_s = health(cluster, US)["governance"]["lease_ms"] / 1000
    await_that(lambda: send(cluster, US, "us", tenant, sender).status_code == 201, "a message to be taken in")
    with isolated(cluster, US):
        made = call(cluster, WEST, "POST", "/api/v1/halts", json={"scope": "all", "reason": "a drill"})
        assert made.status_code == 201, made.text
        number, told_s = made.json()["halt"]["id"], time.monotonic()
        while time.monotonic() < told_s + lease_s:
            began_s = time.monotonic()
            answer = send(cluster, US, "us", tenant, sender)
            if answer.status_code == 503:
                break
            assert answer.status_code == 201, answer.text
        assert time.monotonic() < told_s + lease_s + LOOK_S
        answer = send(cluster, US, "us", tenant, sender)
        assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (503, "not-governing")
        assert began_s < told_s + lease_s, "nothing was taken in any more that began after one lease"
        assert not governs(cluster, US)
        assert ready(cluster, US).status_code == 200, "reads and writes of a zone without a pair go on"
        assert write(cluster, US, "us").status_code == 201
        alone = call(cluster, US, "POST", "/api/v1/halts", json={"scope": "all", "reason": "alone"})
        assert (alone.status_code, alone.json()["type"].rpartition("/")[2]) == (503, "no-majority")
        assert number not in halts(cluster, US), "it cannot know"
        waited = call(
            cluster, WEST, "POST", "/api/v1/halts", json={"scope": "all", "reason": "once more", "wait": True}
        ).json()
        assert waited["binding"]["confirmed"] == [CENTRAL, WEST]
        assert waited["binding"]["unconfirmed"] == [US]
    await_that(lambda: governs(cluster, US), "the region to govern again")
    assert {number, waited["halt"]["id"]} <= halts(cluster, US), "with the new documents, at once"
    for region, zone in ((US, "us"), (US, "all")):
        assert send(cluster, region, zone, tenant, sender).status_code != 201
    for each in halts(cluster, WEST):
        end(cluster, each)
    await_that(
        lambda: send(cluster, US, "us", tenant, sender).status_code == 201, "messages to be taken in again"
    )


def test_a_region_of_another_constitution_does_not_govern(cluster: Cluster, tmp_path: Path) -> None:
    text = cluster.state.topology_path.read_text(encoding="utf-8")
    (tmp_path / "other.yaml").write_text(
        text.replace("cdd01ef066bc6cf2", "cdd01ef066bc6cf3"), encoding="utf-8"
    )
    with server_with(cluster, US, topology=str(tmp_path / "other.yaml")):
        await_that(lambda: (health(cluster, US).get("governance") or {}).get("mismatch"), "it to find out")
        assert not governs(cluster, US)
        assert ready(cluster, US).json()["missing"] == ["constitution"]
        assert health(cluster, US)["governance"]["lease_left_ms"] == 0
        done = command("constitution", "verify", state=cluster.state.path)
        assert done.returncode == 1, done.stdout
    assert ready(cluster, US).status_code == 200


def test_a_region_whose_own_record_says_otherwise_does_not_govern(cluster: Cluster) -> None:
    with psycopg.connect(cluster.state.dsn(US, "postgres"), autocommit=True) as conn:
        change = (
            b"UPDATE acgs.in_force SET digest = %s WHERE kind = 'policies' AND version = 1 RETURNING digest"
        )
        (before,) = conn.execute(
            b"SELECT digest FROM acgs.in_force WHERE kind = 'policies' AND version = 1"
        ).fetchone() or ("",)
        conn.execute(change, ("0" * 64,))
        try:
            with server_with(cluster, US):
                await_that(
                    lambda: (health(cluster, US).get("governance") or {}).get("mismatch"), "it to find out"
                )
                assert not governs(cluster, US)
                assert ready(cluster, US).status_code == 503
                conn.execute(change, (before,))
        finally:
            conn.execute(change, (before,))
    assert governs(cluster, US)


def test_a_region_with_another_file_goes_by_what_is_in_force_and_says_so(
    cluster: Cluster, tmp_path: Path
) -> None:
    document = yaml.safe_load(cluster.state.constitution_path.read_text(encoding="utf-8"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**document, "preamble": "My own."}), encoding="utf-8")
    with server_with(cluster, US, constitution=str(tmp_path / "mine.yaml")):
        await_that(lambda: governs(cluster, US), "it to govern")
        told = health(cluster, US)["governance"]
        assert told["file_differs"]
        assert told["constitution"] == health(cluster, WEST)["governance"]["constitution"]


def test_a_halt_whose_maker_died_before_raising_the_pointer_is_in_force_all_the_same(
    cluster: Cluster,
) -> None:
    number = str(uuid4())

    def halted(value: Any) -> Any:
        made = Halts.parse(value["document"]).halt(number, "all", "", "died", "mortal", 1)
        content = made.document()
        return {"version": value["version"] + 1, "digest": policy_digest(content), "document": content}

    async def die() -> None:
        voters = {r: DatabaseVoter(cluster.state.dsn(r, "acgs_owner")) for r in REGIONS}
        await PaxosRegister(voters, "mortal").change("halts", halted)
        for voter in voters.values():
            await voter.close()

    asyncio.run(die())
    await_that(lambda: all(number in halts(cluster, r) for r in REGIONS), "all regions to go by it", 30)
    end(cluster, number)


def policy_digest(content: Any) -> str:
    from acgs2.consensus import digest_of

    return digest_of(content)


def test_commands_halt_resume_amend_and_compare(cluster: Cluster, tmp_path: Path) -> None:
    def run(*arguments: str, status: int = 0) -> Any:
        done = command(*arguments, state=cluster.state.path)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    target = str(uuid4())
    made = run("halt", "agent", target, "--reason", "repeats itself", "--json")
    assert made["binding"]["unconfirmed"] == []
    assert target in run("halts")
    refused(command("resume", "nonsense", "--as", "ann", state=cluster.state.path), 3, "")
    assert run("resume", made["halt"]["id"], "--as", "ann", "--json")["outcome"] == "requested"
    refused(
        command("resume", made["halt"]["id"], "--as", "ann", state=cluster.state.path), 3, "another operator"
    )
    assert "over" in run("resume", made["halt"]["id"], "--as", "bo")
    assert "nothing is halted" in run("halts")

    assert run("constitution", "verify", "--json")["agreed"]
    document = yaml.safe_load(run("constitution", "show", "--yaml"))
    current = policy.of(document)
    wanted, paper = tmp_path / "next.yaml", str(tmp_path / "amendment.json")
    changed = {**document, "preamble": "As amended by command."}
    wanted.write_text(yaml.safe_dump(changed), encoding="utf-8")
    refused(
        command("constitution", "propose", str(wanted), "--out", paper, state=cluster.state.path),
        3,
        "does not follow",
    )
    wanted.write_text(yaml.safe_dump({**changed, "version": current.version + 1}), encoding="utf-8")
    assert "+preamble: As amended by command." in run("constitution", "propose", str(wanted), "--out", paper)
    eve, fay, gil = (each.name for each in current.amendment.amenders)
    refused(command("constitution", "submit", paper, state=cluster.state.path), 3, "0 of 2 signatures")
    run("constitution", "sign", paper, "--as", eve, "--yes")
    keys = cluster.state.amenders
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in keys.iterdir())
    wrong = command(
        "constitution",
        "sign",
        paper,
        "--as",
        fay,
        "--key",
        str(keys / f"{gil}.pem"),
        "--yes",
        state=cluster.state.path,
    )
    refused(wrong, 3, "not the key")
    refused(
        command("constitution", "sign", str(wanted), "--as", eve, state=cluster.state.path), 2, "no amendment"
    )
    run("constitution", "sign", paper, "--as", fay, "--yes")
    assert f"version {current.version + 1} is in force" in run("constitution", "submit", paper)
    told = run("constitution", "verify", "--json")
    assert told["agreed"]
    assert {each["version"] for each in told["regions"].values()} == {current.version + 1}
    assert run("constitution", "versions", "--json")[0]["version"] == current.version + 1


def test_the_command_line_replaces_the_policies_that_it_was_shown_and_no_others(
    cluster: Cluster, tmp_path: Path
) -> None:
    def run(*arguments: str) -> Any:
        return command("policies", *arguments, state=cluster.state.path)

    def written(text: str) -> str:
        (tmp_path / "platform.cedar").write_text(text, encoding="utf-8")
        return str(tmp_path / "platform.cedar")

    shown = json.loads(run("show", "--json").stdout)
    before = run("show")
    assert f"version {shown['etag']}:" in before.stderr
    ours = written(before.stdout + "// ours\n")
    refused(run("put", ours), 3, "name it with --version")
    assert run("show").stdout == before.stdout
    put = run("put", ours, "--version", shown["etag"], "--json")
    assert json.loads(put.stdout)["binding"]["unconfirmed"] == []
    # Somebody who saw the version before does not undo that.
    theirs = written(before.stdout + "// theirs\n")
    refused(run("put", theirs, "--version", shown["etag"]), 3, "Look at what is in force now")
    assert run("show").stdout.endswith("// ours\n")
    refused(run("put", theirs, "--version", shown["etag"], "--force"), 2, "exclude each other")
    assert run("put", theirs, "--force").returncode == 0
    assert run("show").stdout.endswith("// theirs\n")
    refused(run("put", written("forbid ("), "--force"), 2, ":1:")


def test_the_command_line_makes_a_tenants_policies_and_replaces_those_that_it_was_shown(
    cluster: Cluster, tmp_path: Path
) -> None:
    body = {"name": "Acme"}
    made = call(cluster, WEST, "POST", "/api/v1/tenants", json=body, headers={"x-data-sovereignty": "eu"})
    tenant = ("--tenant", made.json()["id"], "--region", WEST)
    cedar = tmp_path / "tenant.cedar"

    def put(text: str, *more: str) -> Any:
        cedar.write_text(text, encoding="utf-8")
        return command(
            "policies", "put", str(cedar), *tenant, "--zone", "eu", *more, state=cluster.state.path
        )

    assert put("// one\n").returncode == 0
    shown = json.loads(command("policies", "show", *tenant, "--json", state=cluster.state.path).stdout)
    refused(put("// two\n"), 3, "name it with --version")
    assert put("// two\n", "--version", shown["etag"]).returncode == 0
    refused(put("// three\n", "--version", shown["etag"]), 3, "Look at what is in force now")
    assert put("// three\n", "--force").returncode == 0


def test_all_that_was_agreed_survives_the_cluster_being_down(cluster: Cluster) -> None:
    before = {r: health(cluster, r)["governance"]["versions"] for r in REGIONS}
    for region in REGIONS:
        cluster.ask("kill", region=region, component="all")
    for region in REGIONS:
        cluster.ask("start", region=region, component="all")
    await_that(lambda: all(governs(cluster, r) for r in REGIONS), "all regions to govern again", 60)
    assert {r: health(cluster, r)["governance"]["versions"] for r in REGIONS} == before
