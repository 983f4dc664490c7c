"""Messages through the door of real regions: judged, kept once, acknowledged when durable, refused with a reason."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from acgs2.local.cluster import Cluster
from acgs2.local.loopback import health

from ..conftest import await_that
from .speaker import PAYMENT, Speaker, problem

WEST, CENTRAL, EAST = "eu-west-1", "eu-central-1", "us-east-1"


@pytest.fixture(scope="module")
def eu(cluster: Cluster) -> Iterator[Speaker]:
    await_that(
        lambda: all(_serving(cluster, region) for region in (WEST, CENTRAL, EAST)), "all regions to govern"
    )
    speaker = Speaker(cluster, "eu", WEST)
    yield speaker
    speaker.http.close()


def _serving(cluster: Cluster, region: str) -> bool:
    return bool(health(cluster.state.url(region)).get("governance", {}).get("serving"))


def stored(cluster: Cluster, region: str, message: str) -> list[Any]:
    with psycopg.connect(cluster.state.dsn(region, "acgs_owner")) as conn:
        query = b"SELECT decision, origin, digest, erased FROM acgs.message WHERE key = %s"
        return conn.execute(query, (message,)).fetchall()


def test_a_message_is_accepted_once_it_is_in_both_regions_of_its_pair(eu: Speaker) -> None:
    message = eu.message()
    answer = eu.send(message)
    assert answer.status_code == 201, answer.text
    receipt = answer.json()
    assert receipt["decision"] == "allow"
    assert receipt["basis"]["policies"] == ["within-a-tenant"]
    assert sorted(receipt["durable_in"]) == [CENTRAL, WEST]
    assert sorted(receipt["residency"]) == [CENTRAL, WEST]
    # At this moment, not later: that is what the answer said.
    assert stored(eu.cluster, CENTRAL, message["message_id"]), "the other region of the pair lacks it"
    assert not stored(eu.cluster, EAST, message["message_id"])


def test_a_repeat_is_answered_as_the_first_time_and_stored_once(eu: Speaker) -> None:
    message = eu.message()
    first = eu.send(message)
    again, elsewhere = eu.send(message), eu.send(message, region=CENTRAL)
    assert (first.status_code, again.status_code, elsewhere.status_code) == (201, 200, 200)
    for answer in (again, elsewhere):
        assert {**answer.json(), "durable_in": 0} == {**first.json(), "durable_in": 0}
    assert len(stored(eu.cluster, WEST, message["message_id"])) == 1


def test_many_repeats_at_once_are_one_message(eu: Speaker) -> None:
    message = eu.message()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: eu.send(message), range(32)))
    assert sorted({a.status_code for a in answers}) == [200, 201]
    assert sum(a.status_code == 201 for a in answers) == 1


def test_an_id_is_not_used_for_another_message(eu: Speaker) -> None:
    message = eu.message()
    assert eu.send(message).status_code == 201
    for changed in ({"content": "other"}, {"to_agent": eu.agents[2]}, {"priority": 2}):
        answer = eu.send(message | changed)
        assert (answer.status_code, problem(answer)) == (409, "message-id-reused")


def test_a_denied_message_is_stored_with_its_reasons_and_refused_again(eu: Speaker) -> None:
    operator = eu.token("operator@test", "operator")
    retired = eu.ask("POST", "/api/v1/agents", {"tenant_id": eu.tenant, "name": "old"}, token=operator).json()
    changed = eu.ask("PATCH", f"/api/v1/agents/{retired['id']}", {"status": "retired"}, token=operator)
    assert changed.status_code == 200, changed.text
    message = eu.message(to_agent=retired["id"])
    for _ in range(2):
        answer = eu.send(message)
        assert (answer.status_code, problem(answer)) == (403, "denied-by-policy")
        assert answer.json()["basis"]["policies"]
    assert stored(eu.cluster, WEST, message["message_id"])[0][0] == "deny"


def test_what_an_agent_is_when_its_message_is_stored_decides(eu: Speaker) -> None:
    operator = eu.token("operator@test", "operator")
    agent = eu.ask("POST", "/api/v1/agents", {"tenant_id": eu.tenant, "name": "x"}, token=operator).json()[
        "id"
    ]
    assert eu.send(eu.message(to_agent=agent)).status_code == 201
    # The server remembers the agent; nobody tells it that the agent was retired.
    eu.ask("PATCH", f"/api/v1/agents/{agent}", {"status": "retired"}, token=operator)
    assert problem(eu.send(eu.message(to_agent=agent))) == "denied-by-policy"


def test_a_weighty_message_is_held(eu: Speaker) -> None:
    answer = eu.send(eu.message(**PAYMENT))
    assert answer.status_code == 202, answer.text
    held = answer.json()
    assert (held["decision"], held["deliberation"]["approvals"]) == ("deliberate", 2)
    assert datetime.fromisoformat(held["deliberation"]["deadline"]) > datetime.now(UTC) + timedelta(minutes=4)


@pytest.mark.parametrize(
    ("changed", "status", "reference"),
    [
        ({"constitutional_hash": "0" * 16}, 409, "constitutional-hash-mismatch"),
        ({"to_agent": str(uuid4())}, 404, "agent-unknown"),
        ({"from_agent": str(uuid4())}, 404, "agent-unknown"),
        ({"tenant_id": str(uuid4())}, 404, "tenant-unknown"),
        ({"to_tenant_id": str(uuid4())}, 404, "agent-unknown"),
        ({"payload": {"a": "\x00"}}, 400, "nul-character"),
        ({"priority": 9}, 400, "invalid-value"),
        ({"unknown": 1}, 400, "invalid-value"),
        ({"payload": {"a": ["x" * 1000] * 290}}, 413, "record-too-large"),
        ({"payload": {"a": ["x" * 1000] * 310}}, 413, "body-too-large"),
    ],
)
def test_what_is_wrong_is_refused_and_not_stored(
    eu: Speaker, changed: dict[str, Any], status: int, reference: str
) -> None:
    message = eu.message(**changed)
    answer = eu.send(message)
    assert (answer.status_code, problem(answer)) == (status, reference), answer.text
    assert not stored(eu.cluster, WEST, message["message_id"])


def test_a_message_that_cannot_be_stored_does_not_fail_those_that_share_its_commit(eu: Speaker) -> None:
    big = {"payload": {"a": ["x" * 1000] * 290}}
    messages = [eu.message(**(big if n % 8 == 0 else {})) for n in range(64)]
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(eu.send, messages))
    assert [a.status_code for a in answers] == [413 if n % 8 == 0 else 201 for n in range(64)]


def test_who_speaks_is_who_the_token_says(eu: Speaker) -> None:
    mine, other = eu.agents[0], eu.agents[1]
    assert eu.send(eu.message(), token=eu.agent_token(mine)).status_code == 201
    attempts = {
        "another agent": (eu.agent_token(other), 403, "not-the-sender"),
        "another tenant": (eu.token(mine, "agent", str(uuid4())), 404, "tenant-unknown"),
        "an operator": (eu.token("operator@test", "operator"), 403, "role-not-allowed"),
        "an approver": (eu.token("ann@acgs2.example", "approver"), 403, "role-not-allowed"),
        "an auditor": (eu.token("eve", "auditor"), 403, "role-not-allowed"),
        "a platform service": (eu.token("svc", "service"), 403, "role-not-allowed"),
        "an expired token": (eu.token(mine, "agent", eu.tenant, lifetime_s=-10), 401, "token-invalid"),
        "no token": ("x", 401, "token-invalid"),
    }
    for who, (token, status, reference) in attempts.items():
        answer = eu.send(eu.message(), token=token)
        assert (answer.status_code, problem(answer)) == (status, reference), who


def test_an_agent_does_not_change_what_verdicts_about_it_rest_on(eu: Speaker) -> None:
    token = eu.agent_token(eu.agents[0])
    path = f"/api/v1/agents/{eu.agents[0]}"
    for body in ({"capabilities": ["payments"]}, {"status": "active"}, {"accepts": [str(uuid4())]}):
        answer = eu.ask("PATCH", path, body, token=token)
        assert (answer.status_code, problem(answer)) == (403, "role-not-allowed")


def test_a_message_is_taken_only_where_its_zone_may_be(eu: Speaker) -> None:
    answer = eu.send(eu.message(), region=EAST)
    assert (answer.status_code, problem(answer)) == (421, "residency-not-lawful-here")
    assert {e["region"] for e in answer.json()["endpoints"]} == {WEST, CENTRAL}
    answer = eu.send(eu.message(), x_data_sovereignty="us")
    assert (answer.status_code, problem(answer)) == (403, "zone-mismatch")
    assert eu.send(eu.message(), x_data_sovereignty="nowhere").status_code == 400


def test_one_tenant_cannot_fill_the_region(eu: Speaker) -> None:
    quiet = Speaker(eu.cluster, "eu", WEST, agents=2)
    stop = threading.Event()
    seen: list[int] = []

    def flood() -> None:
        while not stop.is_set():
            seen.append(eu.send(eu.message(priority=3)).status_code)

    threads = [threading.Thread(target=flood) for _ in range(24)]
    for thread in threads:
        thread.start()
    try:
        answers = [quiet.send(quiet.message(priority=0)) for _ in range(20)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {a.status_code for a in answers} == {201}
    assert set(seen) <= {201, 429}


def test_the_same_message_accepted_on_both_sides_of_a_cut_is_one_message(eu: Speaker) -> None:
    anywhere = Speaker(eu.cluster, "all", WEST)
    await_that(
        lambda: all(
            anywhere.ask("GET", f"/api/v1/agents/{a}", region=EAST).status_code == 200
            for a in anywhere.agents
        ),
        "the agents to be known in both regions",
    )
    message = anywhere.message()
    eu.cluster.link("cut", WEST, EAST)
    try:
        answers = [anywhere.send(message, region=region) for region in (WEST, EAST)]
        assert [a.status_code for a in answers] == [201, 201]
    finally:
        eu.cluster.link("restore", WEST, EAST)
    await_that(
        lambda: (
            len({tuple(map(tuple, stored(eu.cluster, r, message["message_id"]))) for r in (WEST, EAST)}) == 1
        ),
        "both regions to have one record",
    )
    with psycopg.connect(eu.cluster.state.dsn(WEST, "acgs_owner")) as conn:
        query = b"SELECT count(*) FROM acgs.conflict WHERE key = %s"
        assert conn.execute(query, (message["message_id"],)).fetchone() == (0,)


def test_what_was_acknowledged_survives_the_death_of_the_server(eu: Speaker) -> None:
    acknowledged: list[str] = []
    unknown: list[dict[str, Any]] = []
    stop = threading.Event()

    def speak() -> None:
        while not stop.is_set():
            message = eu.message()
            try:
                answer = eu.send(message)
            except httpx.HTTPError:
                unknown.append(message)
                return
            if answer.status_code == 201:
                acknowledged.append(message["message_id"])
            else:
                unknown.append(message)

    threads = [threading.Thread(target=speak) for _ in range(12)]
    for thread in threads:
        thread.start()
    await_that(lambda: len(acknowledged) > 50, "some messages")
    eu.cluster.ask("kill", region=WEST, component="server")
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    eu.cluster.ask("start", region=WEST, component="server")
    await_that(lambda: _serving(eu.cluster, WEST), "the region to govern again", timeout_s=60)
    for region in (WEST, CENTRAL):
        with psycopg.connect(eu.cluster.state.dsn(region, "acgs_owner")) as conn:
            query = b"SELECT count(*) FROM acgs.message WHERE key = ANY (%s::uuid[])"
            assert conn.execute(query, (acknowledged,)).fetchone() == (len(acknowledged),)
    for message in unknown:
        assert eu.send(message).status_code in (200, 201)


def test_garbage_is_refused_by_its_kind(eu: Speaker) -> None:
    for raw in (b"", b"{", b"[]", b"null", b"\xff", b"{" * 90_000, json.dumps({"message_id": 1}).encode()):
        answer = eu.ask("POST", "/api/v1/messages", raw)
        assert answer.status_code == 400, (raw[:20], answer.text)
        problem(answer)
