"""Held messages in real regions: named people let them go or not, in time, wherever they are and whoever dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Queue
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from acgs2.local.cluster import Cluster

from ..conftest import await_that
from ..local.test_cluster import command
from .speaker import APPROVERS, PAYMENT, Speaker, problem, serving

WEST, CENTRAL = "eu-west-1", "eu-central-1"
ANN, BO, CY = APPROVERS


@pytest.fixture(scope="module")
def eu(cluster: Cluster) -> Iterator[Speaker]:
    await_that(lambda: all(serving(cluster, r) for r in (WEST, CENTRAL)), "both regions to govern")
    speaker = Speaker(cluster, "eu", WEST)
    await_that(lambda: _served_in(speaker), "somebody to serve the zone's inboxes")
    yield speaker
    speaker.http.close()


def _served_in(eu: Speaker) -> str | None:
    for region in (WEST, CENTRAL):
        with psycopg.connect(eu.cluster.state.dsn(region, "acgs_owner")) as conn:
            row = conn.execute(b"SELECT zone FROM acgs.inbox WHERE serving AND zone = 'eu'").fetchone()
        if row is not None:
            return region
    return None


def hold(eu: Speaker, **changed: Any) -> str:
    message = eu.message(**(PAYMENT | changed))
    answer = eu.send(message)
    assert answer.status_code == 202, answer.text
    return str(message["message_id"])


def say(eu: Speaker, who: str, message: str, decision: str = "approve", **more: Any) -> httpx.Response:
    token = more.pop("token", None) or eu.token(who, "approver")
    path = f"/api/v1/deliberations/{message}/approvals"
    return eu.ask("POST", path, {"decision": decision, "reason": "I looked."}, token=token, **more)


def state(eu: Speaker, message: str, region: str = WEST) -> str:
    answer = eu.ask("GET", f"/api/v1/deliberations/{message}", region=region)
    return str(answer.json()["state"]) if answer.status_code == 200 else ""


def deliveries(eu: Speaker, message: str, region: str = WEST) -> int:
    with psycopg.connect(eu.cluster.state.dsn(region, "acgs_owner")) as conn:
        row = conn.execute(b"SELECT count(*) FROM acgs.delivery WHERE message_id = %s", (message,)).fetchone()
    assert row is not None
    return int(row[0])


def leaves(eu: Speaker, subject: str, region: str) -> list[str]:
    with psycopg.connect(eu.cluster.state.dsn(region, "acgs_owner")) as conn:
        query = b"SELECT kind FROM acgs.audit_leaf WHERE subject = %s ORDER BY xid, id"
        return [kind for (kind,) in conn.execute(query, (subject,)).fetchall()]


def pass_the_deadline(eu: Speaker, message: str) -> None:
    """Make it five minutes ago that a message was accepted, in both regions: its deadline comes from that."""
    for region in (WEST, CENTRAL):
        with psycopg.connect(eu.cluster.state.dsn(region, "postgres"), autocommit=True) as conn:
            conn.execute(b"SET session_replication_role = replica")
            conn.execute(b"UPDATE acgs.message SET hlc = hlc - 301000000 WHERE key = %s", (message,))


def test_two_of_three_let_a_message_go_and_the_log_says_who(eu: Speaker) -> None:
    message = hold(eu)
    first = say(eu, ANN, message)
    assert (first.status_code, first.json()["state"], first.json()["missing"]) == (201, "open", {"safety": 1})
    assert not deliveries(eu, message)
    assert say(eu, BO, message, region=CENTRAL).status_code == 201
    await_that(lambda: state(eu, message) == "approved", "the message to be approved")
    await_that(
        lambda: deliveries(eu, message) == 1 == deliveries(eu, message, CENTRAL), "it to be deliverable"
    )
    kinds = [*leaves(eu, message, WEST), *leaves(eu, message, CENTRAL)]
    assert sorted(kinds) == ["approval", "approval", "message", "verdict"]
    shown = eu.ask("GET", f"/api/v1/deliberations/{message}").json()
    assert [said["approver"] for said in shown["approvals"]] == [ANN, BO]


def test_one_denial_ends_it_and_nothing_is_delivered(eu: Speaker) -> None:
    message = hold(eu)
    assert say(eu, ANN, message).status_code == 201
    assert say(eu, CY, message, "deny").status_code == 201
    await_that(lambda: state(eu, message) == "denied", "the message to be denied")
    late = say(eu, BO, message)
    assert (late.status_code, problem(late)) == (409, "deliberation-closed")
    assert not deliveries(eu, message)
    assert state(eu, message, CENTRAL) in ("denied", "open")


def test_a_word_whose_answer_was_lost_is_answered_again_after_the_end(eu: Speaker) -> None:
    message = hold(eu)
    assert say(eu, ANN, message).status_code == 201
    assert say(eu, CY, message, "deny").status_code == 201
    await_that(lambda: state(eu, message) == state(eu, message, CENTRAL) == "denied", "it to be denied")
    for who, decision, region in ((ANN, "approve", WEST), (CY, "deny", WEST), (CY, "deny", CENTRAL)):
        again = say(eu, who, message, decision, region=region)
        assert (again.status_code, again.json()["state"]) == (201, "denied"), again.text
    for who, decision in ((ANN, "deny"), (CY, "approve"), (BO, "deny")):
        other = say(eu, who, message, decision)
        assert (other.status_code, problem(other)) == (409, "deliberation-closed")
    kinds = [*leaves(eu, message, WEST), *leaves(eu, message, CENTRAL)]
    assert sorted(kinds) == ["approval", "approval", "message", "verdict"]


def test_saying_the_same_again_is_one_word_and_saying_otherwise_is_refused(eu: Speaker) -> None:
    message = hold(eu)
    for _ in range(3):
        answer = say(eu, ANN, message)
        assert (answer.status_code, answer.json()["state"]) == (201, "open")
    other = say(eu, ANN, message, "deny")
    assert (other.status_code, problem(other)) == (409, "approval-given")
    assert state(eu, message) == "open"


def test_roles_are_separated(eu: Speaker) -> None:
    message = hold(eu)
    tenant = eu.tenant
    attempts = {
        "who was not named": (eu.token("eve@acgs2.example", "approver"), 404, "deliberation-unknown"),
        "the sending agent": (eu.agent_token(eu.agents[0]), 403, "role-not-allowed"),
        "the receiving agent": (eu.agent_token(eu.agents[1]), 403, "role-not-allowed"),
        "the service that sent it": (eu.service, 403, "role-not-allowed"),
        "an operator": (eu.token("operator@test", "operator"), 403, "role-not-allowed"),
        "an auditor": (eu.token("aud", "auditor"), 403, "role-not-allowed"),
        "an operator of an approver's name": (eu.token(ANN, "operator"), 403, "role-not-allowed"),
        "a tenant's own person of that name": (
            eu.token(ANN, "approver", tenant),
            404,
            "deliberation-unknown",
        ),
        "another tenant's": (eu.token(ANN, "approver", str(uuid4())), 404, "deliberation-unknown"),
        "an expired token": (eu.token(ANN, "approver", lifetime_s=-10), 401, "token-invalid"),
    }
    for who, (token, status, reference) in attempts.items():
        answer = say(eu, "", message, token=token)
        assert (answer.status_code, problem(answer)) == (status, reference), who
    assert state(eu, message) == "open"


def test_who_sends_a_message_does_not_approve_it_under_any_role(eu: Speaker) -> None:
    # The service that speaks for the agent has an approver's name.
    sender = eu.token(ANN, "service", eu.tenant)
    message = eu.message(**PAYMENT)
    assert eu.send(message, token=sender).status_code == 202
    answer = say(eu, ANN, message["message_id"])
    assert (answer.status_code, problem(answer)) == (403, "approver-is-proposer")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"decision": "allow"},
        {"decision": "approve", "by": "me"},
        {"decision": "deny", "reason": "\x00"},
        {"decision": "deny", "reason": "x" * 2001},
    ],
)
def test_a_word_that_is_none_is_refused(eu: Speaker, body: dict[str, Any]) -> None:
    message = hold(eu)
    answer = eu.ask(
        "POST", f"/api/v1/deliberations/{message}/approvals", body, token=eu.token(ANN, "approver")
    )
    assert answer.status_code == 400
    problem(answer)
    unknown = eu.ask(
        "POST",
        f"/api/v1/deliberations/{uuid4()}/approvals",
        {"decision": "deny"},
        token=eu.token(ANN, "approver"),
    )
    assert (unknown.status_code, problem(unknown)) == (404, "deliberation-unknown")


def test_what_nobody_approves_is_denied_when_its_time_is_over(eu: Speaker) -> None:
    message = hold(eu)
    pass_the_deadline(eu, message)
    answer = say(eu, ANN, message)
    assert (answer.status_code, problem(answer)) in (
        (409, "deliberation-expired"),
        (409, "deliberation-closed"),
    )
    await_that(lambda: state(eu, message) == "expired", "the message to be denied")
    assert not deliveries(eu, message)


@contextmanager
def watching(eu: Speaker, **headers: str) -> Iterator[Queue[dict[str, Any]]]:
    """Follow the events of held messages as a client does that reads lines."""
    found: Queue[dict[str, Any]] = Queue()
    sent = {"authorization": f"Bearer {eu.token(ANN, 'approver')}", **headers}
    url = f"{eu.cluster.state.url(WEST)}/api/v1/deliberations/events"

    def read(answer: httpx.Response) -> None:
        with suppress(httpx.HTTPError):
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    found.put(json.loads(line.removeprefix("data:")))

    with httpx.Client(timeout=30) as http, http.stream("GET", url, headers=sent) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        reader = threading.Thread(target=read, args=(answer,), daemon=True)
        reader.start()
        yield found


def next_of(events: Queue[dict[str, Any]], message: str) -> dict[str, Any]:
    while True:
        found = events.get(timeout=10)
        if found["message_id"] == message:
            return found


def test_events_tell_of_a_message_as_it_comes_changes_and_ends(eu: Speaker) -> None:
    with watching(eu) as events:
        message = hold(eu, content="a line\u2028and\u0085another\nof them")
        came = next_of(events, message)
        assert (came["state"], came["content"]) == ("open", "a line\u2028and\u0085another\nof them")
        say(eu, ANN, message)
        assert [said["approver"] for said in next_of(events, message)["approvals"]] == [ANN]
        say(eu, CY, message, "deny")
        while (told := next_of(events, message))["state"] == "open":
            assert len(told["approvals"]) == 2
        assert told["state"] == "denied"


def test_a_stream_of_events_on_which_nothing_happens_says_that_it_is_alive(eu: Speaker) -> None:
    url = f"{eu.cluster.state.url(WEST)}/api/v1/deliberations/events"
    headers = {"authorization": f"Bearer {eu.token('nobody@test', 'approver')}"}
    with eu.http.stream("GET", url, headers=headers, timeout=15) as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"retry: 1000\r\n\r\n", "who may see nothing is told that it is open"
        assert next(parts) == b": alive\r\n\r\n"


def test_the_command_line_watches_until_it_is_interrupted(eu: Speaker) -> None:
    words = ["deliberations", "watch", "--region", WEST, "--as", ANN, "--json"]
    watch = subprocess.Popen(
        [sys.executable, "-m", "acgs2.cli", "--state", str(eu.cluster.state.path), *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    lines: Queue[dict[str, Any]] = Queue()

    def read() -> None:
        assert watch.stdout is not None
        for line in watch.stdout:
            lines.put(json.loads(line))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        message = hold(eu)
        assert next_of(lines, message)["state"] == "open"
        say(eu, CY, message, "deny")
        while next_of(lines, message)["state"] == "open":
            pass
    finally:
        watch.send_signal(signal.SIGINT)
        watch.wait(timeout=10)
        reader.join()
        assert watch.stdout is not None
        watch.stdout.close()


LEGAL = """
@id("everything-else") permit (principal, action == Action::"send", resource);
@id("adverts-are-checked") @deliberate("legal")
forbid (principal, action == Action::"send", resource) when { context.message_type == "advert" };
"""


class Legal:
    """A tenant that has its adverts approved by two of a group of its own."""

    def __init__(self, cluster: Cluster) -> None:
        self.eu = Speaker(cluster, "eu", WEST)
        self.group = f"{self.eu.tenant}/legal"
        self._etag: dict[str, str] = {}

    def consists_of(self, *members: str) -> None:
        body = {"policies": LEGAL, "groups": {"legal": {"approvals": 2, "members": members}}}
        answer = self.eu.ask("PUT", f"/api/v1/policies/{self.eu.tenant}", body, **self._etag)
        assert answer.status_code in (200, 201), answer.text
        self._etag = {"if_match": answer.headers["etag"]}

    def hold(self) -> str:
        made: list[str] = []

        def held() -> bool:
            message = self.eu.message(message_type="advert")
            made.append(str(message["message_id"]))
            return self.eu.send(message).status_code == 202

        await_that(held, "adverts to be held")
        return made[-1]

    def say(self, who: str, message: str, decision: str = "approve") -> httpx.Response:
        return say(self.eu, "", message, decision, token=self.eu.token(who, "approver", self.eu.tenant))

    def told(self, message: str, what: str, expected: Any) -> None:
        """Wait until both regions show something of a message."""

        def shown() -> bool:
            path = f"/api/v1/deliberations/{message}"
            return all(self.eu.ask("GET", path, region=r).json()[what] == expected for r in (WEST, CENTRAL))

        await_that(shown, f"{what} to be {expected}")


@pytest.fixture
def legal(cluster: Cluster, eu: Speaker) -> Iterator[Legal]:
    made = Legal(cluster)
    yield made
    made.eu.http.close()


def test_who_has_left_the_group_does_not_count_and_who_came_later_gains_nothing(legal: Legal) -> None:
    legal.consists_of("lea", "max", "noa")
    message = legal.hold()
    assert legal.say("lea", message).status_code == 201
    legal.told(message, "missing", {legal.group: 1})
    legal.consists_of("max", "noa", "new")
    legal.told(message, "missing", {legal.group: 2})
    assert legal.say("max", message).json()["state"] == "open", "lea's word does not count any more"
    for who in ("lea", "new"):
        refused = legal.say(who, message)
        assert (refused.status_code, problem(refused)) == (404, "deliberation-unknown"), who
    assert not deliveries(legal.eu, message)
    assert legal.say("noa", message).status_code == 201
    legal.told(message, "state", "approved")
    said = legal.eu.ask("GET", f"/api/v1/deliberations/{message}").json()["approvals"]
    assert [(each["approver"].partition("\n")[2], each["counts"]) for each in said] == [
        ("lea", False),
        ("max", True),
        ("noa", True),
    ]


def test_a_group_that_has_become_too_small_denies_at_the_deadline_and_that_is_told(legal: Legal) -> None:
    legal.consists_of("lea", "max", "noa")
    message = legal.hold()
    assert legal.say("lea", message).status_code == 201
    legal.consists_of("max", "new")
    legal.told(message, "wanting", {legal.group: 1})
    shown = command(
        "deliberations", "show", message, "--region", WEST, state=legal.eu.cluster.state.path
    ).stdout
    assert "said approve, which does not count" in shown
    assert "has 1 too few members" in shown
    assert legal.say("max", message).json()["state"] == "open"
    pass_the_deadline(legal.eu, message)
    legal.told(message, "state", "expired")
    assert not deliveries(legal.eu, message)


def test_it_survives_the_death_of_the_region_that_would_decide(eu: Speaker) -> None:
    message = hold(eu)
    assert say(eu, ANN, message).status_code == 201
    deciding = _served_in(eu)
    assert deciding is not None
    other = CENTRAL if deciding == WEST else WEST
    await_that(
        lambda: eu.ask("GET", f"/api/v1/deliberations/{message}", region=other).json()["approvals"],
        "the word to be there",
    )
    eu.cluster.ask("kill", region=deciding)
    try:
        await_that(
            lambda: say(eu, BO, message, region=other).status_code == 201, "a word to be taken", timeout_s=40
        )
        began_s = time.monotonic()
        await_that(
            lambda: state(eu, message, other) == "approved", "the other region to decide", timeout_s=40
        )
        assert time.monotonic() - began_s < 40
        assert deliveries(eu, message, other) == 1
    finally:
        eu.cluster.ask("start", region=deciding)
