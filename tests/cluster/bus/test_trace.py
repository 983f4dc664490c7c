"""The trace of messages in real regions: what became of them, who may see it, and proofs that hold."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from acgs2 import Client
from acgs2.audit.keys import PUBLIC, read_trusted
from acgs2.cli.audit import is_proven
from acgs2.local.cluster import Cluster

from ..conftest import await_that
from .speaker import APPROVERS, PAYMENT, Speaker, problem, serving

WEST, CENTRAL, EAST = "eu-west-1", "eu-central-1", "us-east-1"
ANN, BO, _ = APPROVERS
SAID = "the-secret-of-the-message"
NOBODYS = "018f0000-0000-7000-8000-000000000001"


@pytest.fixture(scope="module")
def eu(cluster: Cluster) -> Iterator[Speaker]:
    await_that(lambda: all(serving(cluster, r) for r in (WEST, CENTRAL, EAST)), "all regions to govern")
    speaker = Speaker(cluster, "eu", WEST)
    await_that(lambda: served_by(speaker), "somebody to serve the zone's inboxes")
    yield speaker
    speaker.http.close()


def served_by(eu: Speaker, region: str = WEST) -> str | None:
    zones = eu.ask("GET", "/api/v1/inboxes", region=region).json()["zones"]
    return next((each["region"] for each in zones if each["zone"] == eu.zone), None)


def sent(eu: Speaker, status: int = 201, region: str = WEST, **changed: Any) -> str:
    message = eu.message(content=SAID, **changed)
    answer = eu.send(message, region=region)
    assert answer.status_code == status, answer.text
    return str(message["message_id"])


def trace(eu: Speaker, message: str, region: str = WEST, token: str = "") -> dict[str, Any]:
    answer = eu.ask("GET", f"/api/v1/messages/{message}/trace", region=region, token=token)
    assert answer.status_code == 200, answer.text
    assert SAID not in answer.text, "a trace does not show what a message says"
    return answer.json()


def states(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(leaf["kind"], leaf["region"], leaf["state"]) for leaf in found["audit"]]


def proven(eu: Speaker, message: str, region: str, kinds: list[str]) -> list[dict[str, Any]]:
    """Wait for a region's own leaves to be in a checkpoint that two others cosigned; the proofs must hold."""

    def witnessed() -> list[dict[str, Any]]:
        own = [leaf for leaf in trace(eu, message, region)["audit"] if leaf["region"] == region]
        done = all(leaf["state"] == "proven" and len(leaf["witnesses"]) >= 2 for leaf in own)
        return own if done and [leaf["kind"] for leaf in own] == kinds else []

    found = await_that(witnessed, f"{kinds} to be witnessed")
    trusted = read_trusted(eu.cluster.state.path / "secrets" / PUBLIC)
    for leaf in found:
        assert is_proven(leaf, trusted)
        assert leaf["log"] == leaf["checkpoint"].partition("\n")[0]
        assert leaf["log"].startswith(f"acgs2.example/trio/{region}/")
        assert leaf["prove"] == f"acgs2 audit prove {message} --region {region}"
        forged = {**leaf, "entry": leaf["entry"].replace(message, str(uuid4()))}
        assert not is_proven(forged, trusted)
    return found


def cli(eu: Speaker, *words: str, status: int = 0) -> str:
    command = [sys.executable, "-m", "acgs2.cli", "--state", str(eu.cluster.state.path), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def test_an_allowed_message_is_followed_through_both_regions(eu: Speaker) -> None:
    message = sent(eu)
    here, there = trace(eu, message), trace(eu, message, CENTRAL)
    assert here["message"]["from_agent"] == eu.agents[0]
    assert here["message"] == there["message"]
    assert (here["verdict"]["decision"], here["verdict"]["impact"]) == ("allow", 0)
    assert here["verdict"]["basis"]["policies"] == ["within-a-tenant"]
    assert here["verdict"]["basis"]["constitution"]["version"] == 1
    assert [each["region"] for each in here["verdict"]["accepted"]] == [WEST]
    assert here["verdict"] == there["verdict"]
    assert here["deliberation"] is None
    for found in (here, there):
        assert found["receipt"] == {
            "zone": "eu",
            "residency": {CENTRAL: "home", WEST: "home"},
            "durable_in": [CENTRAL, WEST],
            "been_in": [CENTRAL, WEST],
        }
    assert states(there) == [("message", WEST, "elsewhere")]
    (leaf,) = proven(eu, message, WEST, ["message"])
    body = json.loads(leaf["entry"])["body"]
    assert (body["message_id"], body["decision"]) == (message, "allow")

    serves = served_by(eu)
    assert serves is not None
    for found in (here, there):
        waiting = found["deliveries"]
        assert (waiting["served_by"], waiting["zone"]) == (serves, "eu")
        assert [each["region"] for each in waiting["endpoints"]] == (
            [] if found["region"] == serves else [serves]
        )
        assert [(each["agent"], each["state"]) for each in waiting["items"]] == [(eu.agents[1], "ready")]
    token = eu.agent_token(eu.agents[1])
    inbox = f"/api/v1/inboxes/{eu.agents[1]}"
    claims = eu.ask("POST", f"{inbox}/claim", {"limit": 10}, token=token, region=serves).json()["claims"]
    claim = next(each["claim"] for each in claims if each["message"]["message_id"] == message)
    assert trace(eu, message, serves)["deliveries"]["items"][0]["state"] == "claimed"
    settled = eu.ask("POST", f"{inbox}/acknowledge", {"claims": [claim]}, token=token, region=serves)
    assert settled.status_code == 200
    for region in (WEST, CENTRAL):

        def done(region: str = region) -> bool:
            (item,) = trace(eu, message, region)["deliveries"]["items"]
            return (item["state"], item["attempts"], item["region"]) == ("done", 1, serves)

        await_that(done, f"{region} to know that it was delivered")


def test_a_held_message_shows_who_let_it_go_and_where(eu: Speaker) -> None:
    message = sent(eu, 202, CENTRAL, **PAYMENT)
    found = trace(eu, message, CENTRAL)
    assert (found["verdict"]["decision"], found["deliberation"]["state"]) == ("deliberate", "open")
    assert found["deliberation"]["missing"] == {"safety": 2}
    assert found["deliveries"]["items"] == []
    for who, region in ((ANN, CENTRAL), (BO, WEST)):
        answer = eu.ask(
            "POST",
            f"/api/v1/deliberations/{message}/approvals",
            {"decision": "approve", "reason": "I looked."},
            token=eu.token(who, "approver"),
            region=region,
        )
        assert answer.status_code == 201, answer.text

    def ended() -> dict[str, Any] | None:
        found = trace(eu, message)
        return found if found["deliberation"]["state"] == "approved" and len(found["audit"]) == 4 else None

    found = await_that(ended, "the message to be approved")
    held = found["deliberation"]
    assert [(said["approver"], said["decision"], said["reason"]) for said in held["approvals"]] == [
        (ANN, "approve", "I looked."),
        (BO, "approve", "I looked."),
    ]
    assert held["ended_at"] > held["held_since"]
    assert sorted((kind, region) for kind, region, _ in states(found)) == [
        ("approval", CENTRAL),
        ("approval", WEST),
        ("message", CENTRAL),
        ("verdict", held["decided_in"]),
    ]
    mine = ["approval", "verdict"] if held["decided_in"] == WEST else ["approval"]
    assert {"elsewhere"} == {state for kind, region, state in states(found) if region == CENTRAL}
    proven(eu, message, WEST, mine)
    proven(
        eu, message, CENTRAL, ["message", "approval"] + ([] if held["decided_in"] == WEST else ["verdict"])
    )
    await_that(lambda: trace(eu, message)["deliveries"]["items"], "it to be deliverable")
    # Who receives it knows that it was let go, and not who said what about it.
    shown = trace(eu, message, token=eu.agent_token(eu.agents[1]))["deliberation"]
    assert (shown["state"], shown["approvals"]) == ("approved", None)


def test_a_denied_message_says_by_which_policy_and_goes_nowhere(eu: Speaker) -> None:
    other = Speaker(eu.cluster, "eu", WEST, agents=1)
    message = sent(eu, 403, to_agent=other.agents[0], to_tenant_id=other.tenant)
    found = trace(eu, message)
    assert found["verdict"]["decision"] == "deny"
    assert found["verdict"]["basis"]["reasons"]
    assert (found["deliberation"], found["deliveries"]["items"]) == (None, [])
    (leaf,) = proven(eu, message, WEST, ["message"])
    assert json.loads(leaf["entry"])["body"]["decision"] == "deny"
    # The receiver's tenant may see the message, and not the log of the sender's.
    assert trace(eu, message, token=other.service)["audit"] is None
    other.http.close()


def test_of_two_verdicts_the_strictest_stands_and_both_are_proven(eu: Speaker) -> None:
    anywhere = Speaker(eu.cluster, "all", WEST)
    receiver = f"/api/v1/agents/{anywhere.agents[1]}"
    await_that(
        lambda: anywhere.ask("GET", receiver, region=EAST).status_code == 200 and served_by(anywhere, EAST),
        "the agents to be known in both regions",
    )
    message = anywhere.message()
    key = message["message_id"]
    operator = anywhere.token("operator@test", "operator")
    eu.cluster.link("cut", WEST, EAST)
    try:
        retired = anywhere.ask("PATCH", receiver, {"status": "retired"}, token=operator, region=EAST)
        assert retired.status_code == 200, retired.text
        answers = [anywhere.send(message, region=region).status_code for region in (WEST, EAST)]
        assert answers == [201, 403]
        assert len(trace(anywhere, key)["deliveries"]["items"]) == 1
    finally:
        eu.cluster.link("restore", WEST, EAST)

    def known() -> bool:
        return all(len(trace(anywhere, key, r)["verdict"]["accepted"]) == 2 for r in (WEST, EAST))

    await_that(known, "both regions to know of both")
    for region in (WEST, EAST):
        found = trace(anywhere, key, region)
        assert found["verdict"]["decision"] == "deny"
        accepted = [(each["region"], each["decision"]) for each in found["verdict"]["accepted"]]
        assert accepted == [(WEST, "allow"), (EAST, "deny")]
        assert found["deliveries"]["items"] == []
        assert sorted(region for _, region, _ in states(found)) == [WEST, EAST]
        proven(anywhere, key, region, ["message"])
    anywhere.http.close()


def test_an_act_of_which_the_log_knows_nothing_is_said_to_be_missing(eu: Speaker) -> None:
    message = sent(eu, 202, **PAYMENT)
    with psycopg.connect(eu.cluster.state.dsn(WEST, "acgs_owner"), autocommit=True) as conn:
        conn.execute(
            b"INSERT INTO acgs.approval (key, zone, tenant_id, message_id, approver, decision)"
            b" VALUES (gen_random_uuid(), 'eu', %s, %s, 'mallory', 'approve')",
            (eu.tenant, message),
        )
    assert ("approval", WEST, "missing") in states(trace(eu, message))


def test_it_is_shown_to_whom_the_message_is_shown(eu: Speaker) -> None:
    message = sent(eu)
    sender, receiver, bystander = eu.agents
    for token in (
        eu.agent_token(sender),
        eu.agent_token(receiver),
        eu.service,
        eu.token("op", "operator"),
        eu.token("aud", "auditor"),
    ):
        assert trace(eu, message, token=token)["audit"] is not None
    # Who watches over messages sees what became of them, and not what they say.
    watching = ((eu.token("aud", "auditor"), 200), (eu.token("ann@acgs2.example", "approver"), 404))
    for token, status in watching:
        assert eu.ask("GET", f"/api/v1/messages/{message}/trace", token=token).status_code == status
        for path in (f"/api/v1/messages/{message}", f"/api/v1/messages?tenant={eu.tenant}"):
            answer = eu.ask("GET", path, token=token)
            assert (answer.status_code, problem(answer)) == (403, "role-not-allowed")
    # Who may not read the whole log is not shown it message by message either.
    assert trace(eu, message, token=eu.token("svc", "service"))["audit"] is None
    path = f"/api/v1/messages/{message}/trace"
    for token, status, reference in (
        (eu.agent_token(bystander), 404, "record-unknown"),
        (eu.token("service", "service", str(uuid4())), 404, "record-unknown"),
        (eu.token(sender, "agent", str(uuid4()), lifetime_s=-10), 401, "token-invalid"),
        ("x", 401, "token-invalid"),
    ):
        answer = eu.ask("GET", path, token=token)
        assert (answer.status_code, problem(answer)) == (status, reference)
        # As the message itself is.
        same = eu.ask("GET", f"/api/v1/messages/{message}", token=token)
        assert (same.status_code, problem(same)) == (status, reference)
    bare = eu.http.get(eu.cluster.state.url(WEST) + path)
    assert (bare.status_code, problem(bare)) == (401, "token-missing")
    unlawful = eu.ask("GET", path, region=EAST)
    assert (unlawful.status_code, problem(unlawful)) == (421, "residency-not-lawful-here")
    assert {each["region"] for each in unlawful.json()["endpoints"]} == {WEST, CENTRAL}


@pytest.mark.parametrize("message", ["nonsense", "%00", NOBODYS[:-1], NOBODYS, "0" * 300])
def test_what_is_no_message_is_not_found(eu: Speaker, message: str) -> None:
    for path in (f"/api/v1/messages/{message}/trace", f"/api/v1/messages/{message}"):
        answer = eu.ask("GET", path)
        assert answer.status_code == 404, answer.text
        assert problem(answer) in ("not-found", "record-unknown")


def test_the_command_line_puts_it_together_from_all_regions(eu: Speaker) -> None:
    message = sent(eu, region=CENTRAL)
    proven(eu, message, CENTRAL, ["message"])
    whole = json.loads(cli(eu, "messages", "trace", message, "--region", WEST, "--json"))
    assert whole["regions"][0] == WEST
    assert [(leaf["region"], leaf["state"], leaf["proven"]) for leaf in whole["audit"]] == [
        (CENTRAL, "proven", True)
    ]
    said = cli(eu, "messages", "trace", message, "--region", WEST)
    assert "\x1b" not in said
    for words in (
        "Verdict allowed by within-a-tenant",
        "on disk  eu-central-1, eu-west-1",
        "ready",
        "checked",
    ):
        assert words in said, said
    assert SAID not in said
    wrong = cli(eu, "messages", "trace", "nonsense", "--region", WEST, status=2)
    assert "An id is a UUID." in wrong


def test_a_refused_message_says_how_to_trace_it(eu: Speaker) -> None:
    other = Speaker(eu.cluster, "eu", WEST, agents=1)
    words = ("--region", WEST, "--zone", "eu", "--tenant", eu.tenant, "--from", eu.agents[0])
    to = ("--to", other.agents[0], "--to-tenant", other.tenant, "--type", "greeting")
    other.http.close()
    said = cli(eu, "messages", "send", *words, *to, status=3)
    command = said.rpartition("acgs2 messages trace ")[2].split()
    assert "Verdict denied" in cli(eu, "messages", "trace", *command)


def test_the_sdk_returns_it(eu: Speaker) -> None:
    message = sent(eu)

    async def asked() -> dict[str, Any]:
        url = eu.cluster.state.url(WEST)
        async with Client(url, zone="eu", token=eu.service, ca=eu.cluster.state.trust) as client:
            return await client.messages.trace(message)

    found = asyncio.run(asked())
    assert (found["message"]["message_id"], found["verdict"]["decision"]) == (message, "allow")
