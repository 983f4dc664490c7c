"""Inboxes over HTTP: who may take what, what waits, and what is refused."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.cluster.api.conftest import Api
from tests.cluster.conftest import Server, await_that

from acgs2.local.loopback import loopback
from acgs2.model.ids import uuid7

WEST, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"


@dataclass
class Talk:
    """A tenant with a service and agents, spoken to through the region that serves its zone."""

    api: Api
    tenant: str
    service: str
    at: str

    def agent(self) -> str:
        made = self.api.call(
            WEST, "POST", "/api/v1/agents", "eu", json={"tenant_id": self.tenant, "name": "a"}
        )
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def token(self, agent: str) -> str:
        return self.api.token(agent, "agent", self.tenant)

    def send(self, sender: str, to: str, **fields: Any) -> str:
        message = {
            "message_id": str(uuid7(time.time_ns() // 1_000_000, os.urandom(10))),
            "conversation_id": str(uuid4()),
            "tenant_id": self.tenant,
            "from_agent": sender,
            "to_agent": to,
            "message_type": "note",
            "content": "hello",
            "constitutional_hash": "cdd01ef066bc6cf2",
        } | fields
        made = self.api.call(self.at, "POST", "/api/v1/messages", "eu", token=self.service, json=message)
        assert made.status_code == 201, made.text
        return str(message["message_id"])

    def ask(self, agent: str, act: str, body: Any, *, token: str = "", region: str = "") -> httpx.Response:
        path = f"/api/v1/inboxes/{agent}/{act}"
        return self.api.call(
            region or self.at, "POST", path, "eu", token=token or self.token(agent), json=body
        )

    def claim(self, agent: str, **asked: Any) -> list[dict[str, Any]]:
        answer = self.ask(agent, "claim", asked)
        assert answer.status_code == 200, answer.text
        return answer.json()["claims"]


def serving(api: Api, zone: str = "eu") -> str | None:
    """Return the region that says that it serves a zone."""
    for region in (WEST, CENTRAL):
        answer = api.call(region, "GET", "/api/v1/inboxes")
        if any(z["zone"] == zone and z["region"] == region for z in answer.json().get("zones", ())):
            return region
    return None


@pytest.fixture(scope="module")
def talk(api: Api) -> Talk:
    at = await_that(lambda: serving(api), "a region to serve the inboxes")
    tenant = api.tenant()
    return Talk(api, tenant, api.token("service", "service", tenant), at)


def test_the_first_home_region_serves(talk: Talk) -> None:
    assert talk.at == WEST


def test_what_a_halted_agent_sent_before_comes_after_its_resume(talk: Talk) -> None:
    ann, bob, cyd = talk.agent(), talk.agent(), talk.agent()
    held, given = talk.send(ann, bob, priority=3), talk.send(cyd, bob)
    body = {"scope": "agent", "target": ann, "reason": "a drill", "wait": True}
    halt = talk.api.call(WEST, "POST", "/api/v1/halts", json=body).json()["halt"]["id"]
    assert [claim["message"]["message_id"] for claim in talk.claim(bob)] == [given]

    def resume() -> None:
        for by in ("first", "second"):
            path = f"/api/v1/halts/{halt}/resume"
            talk.api.call(WEST, "POST", path, token=talk.api.token(by), json={"wait": True})

    resuming = threading.Timer(1, resume)
    resuming.start()
    began_s = time.monotonic()
    (late,) = talk.claim(bob, wait_s=15)
    assert (late["message"]["message_id"], late["attempt"]) == (held, 1)
    assert time.monotonic() - began_s < 4, "it is woken, and does not only look now and then"
    resuming.join()


def test_what_is_sent_is_claimed_with_its_contents_and_acknowledged(talk: Talk) -> None:
    ann, bob = talk.agent(), talk.agent()
    sent = talk.send(ann, bob, payload={"n": 1}, metadata={"k": "v"}, content="grüße")
    ((claim),) = talk.claim(bob)
    message = claim["message"]
    assert claim["attempt"] == 1
    assert message["message_id"] == sent
    assert (message["from_agent"], message["to_agent"], message["tenant_id"]) == (ann, bob, talk.tenant)
    assert (message["content"], message["payload"], message["metadata"]) == ("grüße", {"n": 1}, {"k": "v"})
    assert talk.claim(bob) == []
    for outcome in ("done", "already"):
        answer = talk.ask(bob, "acknowledge", {"claims": [claim["claim"]]})
        assert answer.json()["claims"] == [{"claim": claim["claim"], "outcome": outcome}]

    def known(region: str) -> list[dict[str, Any]]:
        path = f"/api/v1/deliveries?message_id={sent}"
        return talk.api.call(region, "GET", path, "eu", token=talk.service).json()["items"]

    for region in (WEST, CENTRAL):
        (found,) = await_that(
            lambda r=region: [d for d in known(r) if d["state"] == "done"], f"{region} to know"
        )
        assert (found["agent"], found["attempts"], found["region"]) == (bob, 1, WEST)


def test_what_became_of_a_message_is_for_its_sender_its_receiver_and_their_tenant(talk: Talk) -> None:
    ann, bob, cy = (talk.agent() for _ in range(3))
    sent = talk.send(ann, bob)

    def seen(token: str) -> list[str]:
        answer = talk.api.call(WEST, "GET", f"/api/v1/deliveries?message_id={sent}", "eu", token=token)
        return [d["state"] for d in answer.json()["items"]]

    for token in (talk.token(ann), talk.token(bob), talk.service, talk.api.token()):
        assert seen(token) == ["ready"]
    stranger = talk.api.token("service", "service", talk.api.tenant())
    assert seen(talk.token(cy)) == seen(stranger) == []


def test_a_claim_that_waits_is_woken_by_a_message_and_holds_no_connection(talk: Talk) -> None:
    ann, bob = talk.agent(), talk.agent()
    crowd = [talk.agent() for _ in range(40)]  # more than the pool has connections
    found: list[Any] = []
    waiting = [
        threading.Thread(target=lambda a=agent: found.append((a, talk.claim(a, wait_s=15))))
        for agent in crowd
    ]
    for thread in waiting:
        thread.start()
    began_s = time.monotonic()
    talk.send(ann, bob)
    assert len(talk.claim(bob)) == 1
    for agent in crowd:
        talk.send(ann, agent)
    for thread in waiting:
        thread.join()
    assert time.monotonic() - began_s < 10
    assert sorted(agent for agent, claims in found if len(claims) == 1) == sorted(crowd)


@pytest.mark.parametrize(("method", "act"), [("POST", "claim"), ("GET", "events?hold_s=600")])
def test_what_is_claimed_for_a_client_that_hung_up_meanwhile_is_given_back(
    talk: Talk, server: Server, databases: Mapping[str, str], method: str, act: str
) -> None:
    ann, bob = talk.agent(), talk.agent()
    talk.send(ann, bob)
    url = f"{talk.api.urls[WEST]}/api/v1/inboxes/{bob}/{act}"
    sent = {"authorization": f"Bearer {talk.token(bob)}", "x-data-sovereignty": "eu"}
    body = {"hold_s": 600} if method == "POST" else None
    with server.connect(databases[WEST]) as conn, conn.transaction():
        conn.execute(b"LOCK TABLE acgs.delivery IN SHARE MODE")
        with pytest.raises(httpx.ReadTimeout):
            loopback().request(method, url, json=body, headers=sent, timeout=1)
    (claim,) = talk.claim(bob, wait_s=5)
    assert claim["attempt"] == 2


def test_a_returned_message_comes_again_to_who_waits(talk: Talk) -> None:
    ann, bob = talk.agent(), talk.agent()
    talk.send(ann, bob)
    (claim,) = talk.claim(bob)
    answer = talk.ask(bob, "return", {"claims": [claim["claim"]], "delay_s": 0.5})
    assert answer.json()["claims"][0]["outcome"] == "returned"
    began_s = time.monotonic()
    (again,) = talk.claim(bob, wait_s=10)
    assert 0.3 < time.monotonic() - began_s < 4
    assert again["attempt"] == 2
    old = talk.ask(bob, "acknowledge", {"claims": [claim["claim"]]})
    assert old.json()["claims"][0]["outcome"] == "lapsed"


def test_a_hold_that_ends_gives_the_message_to_who_waits(talk: Talk) -> None:
    ann, bob = talk.agent(), talk.agent()
    talk.send(ann, bob)
    assert len(talk.claim(bob, hold_s=1)) == 1
    (again,) = talk.claim(bob, wait_s=10)
    assert again["attempt"] == 2


def test_dead_letters_are_listed_and_requeued(
    talk: Talk, server: Server, databases: Mapping[str, str]
) -> None:
    ann, bob = talk.agent(), talk.agent()
    sent = talk.send(ann, bob)
    for _ in range(5):
        (claim,) = talk.claim(bob)
        talk.ask(bob, "return", {"claims": [claim["claim"]]})
    assert talk.claim(bob) == []
    path = f"/api/v1/inboxes/{bob}"
    (dead,) = talk.api.call(WEST, "GET", f"{path}/dead", "eu", token=talk.token(bob)).json()["items"]
    assert (dead["message_id"], dead["reason"], dead["attempts"]) == (sent, "attempts", 5)
    assert talk.ask(bob, "dead/requeue", {"messages": [str(uuid4())]}).json()["requeued"] == []
    assert talk.ask(bob, "dead/requeue", {}).json()["requeued"] == [sent]
    shown = talk.api.call(WEST, "GET", path, "eu").json()
    assert (shown["ready"], shown["claimed"], shown["served_by"]) == (1, 0, WEST)
    assert [c["attempt"] for c in talk.claim(bob)] == [1]


def test_only_the_agent_and_its_tenants_services_take_its_messages(talk: Talk) -> None:
    ann, bob = talk.agent(), talk.agent()
    talk.send(ann, bob)
    other = talk.api.tenant()
    api = talk.api
    for token, status, reference in (
        (talk.token(ann), 403, "other-agents-inbox"),
        (api.token("op"), 403, "other-agents-inbox"),
        (api.token("platform", "service"), 403, "other-agents-inbox"),
        (api.token("x@y", "approver", talk.tenant), 403, "other-agents-inbox"),
        (api.token(bob, "agent", other), 404, "agent-unknown"),
        (api.token("service", "service", other), 404, "agent-unknown"),
    ):
        for act, body in (("claim", {}), ("acknowledge", {"claims": ["x"]}), ("return", {"claims": ["x"]})):
            answer = talk.ask(bob, act, body, token=token)
            assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (status, reference)
    assert talk.ask(str(uuid4()), "claim", {}, token=talk.service).status_code == 404
    assert len(talk.ask(bob, "claim", {}, token=talk.service).json()["claims"]) == 1


def test_claims_of_another_agent_and_made_up_ones_are_not_honoured(talk: Talk) -> None:
    ann, bob = talk.agent(), talk.agent()
    talk.send(ann, bob)
    (claim,) = talk.claim(bob)
    name = claim["claim"]
    stolen = talk.ask(ann, "acknowledge", {"claims": [name]})
    assert stolen.json()["claims"][0]["outcome"] == "lapsed"
    generation, message, nonce = name.split(".")
    forged = [f"{generation}.{message}.{uuid4().hex}", f"{generation}.{uuid4().hex}.{nonce}"]
    assert {c["outcome"] for c in talk.ask(bob, "acknowledge", {"claims": forged}).json()["claims"]} == {
        "lapsed"
    }
    old = talk.ask(bob, "acknowledge", {"claims": [name, f"{int(generation) + 1}.{message}.{nonce}"]})
    assert (old.status_code, old.json()["type"].rpartition("/")[2]) == (409, "generation-old")
    assert talk.ask(bob, "acknowledge", {"claims": [name]}).json()["claims"][0]["outcome"] == "done"


@pytest.mark.parametrize(
    ("act", "body"),
    [
        ("claim", {"limit": 0}),
        ("claim", {"limit": 10**9}),
        ("claim", {"limit": "many"}),
        ("claim", {"wait_s": 21}),
        ("claim", {"wait_s": -1}),
        ("claim", {"hold_s": 0}),
        ("claim", {"hold_s": 1e9}),
        ("claim", {"unknown": 1}),
        ("claim", []),
        ("acknowledge", {}),
        ("acknowledge", {"claims": []}),
        ("acknowledge", {"claims": ["1.2.3"]}),
        ("acknowledge", {"claims": ["1." + "0" * 32 + "." + "0" * 31 + "\x00"]}),
        ("acknowledge", {"claims": ["-1." + "0" * 32 + "." + "0" * 32]}),
        ("acknowledge", {"claims": ["9" * 30 + "." + "0" * 32 + "." + "0" * 32]}),
        ("acknowledge", {"claims": ["1." + "A" * 32 + "." + "0" * 32]}),
        ("acknowledge", {"claims": ["1.{" + "0" * 31 + "." + "0" * 32]}),
        ("acknowledge", {"claims": ["x" * 101]}),
        ("acknowledge", {"claims": ["x"] * 501}),
        ("acknowledge", {"claims": [1]}),
        ("return", {"claims": ["x"], "delay_s": -1}),
        ("return", {"claims": ["x"], "delay_s": 1e300}),
        ("dead/requeue", {"messages": ["x"]}),
        ("dead/requeue", {"messages": [str(uuid4())] * 501}),
    ],
)
def test_what_makes_no_sense_is_refused(talk: Talk, act: str, body: Any) -> None:
    if not hasattr(talk, "bob"):
        talk.bob = talk.agent()  # type: ignore[attr-defined]
    answer = talk.ask(talk.bob, act, body)  # type: ignore[attr-defined]
    assert answer.status_code == 400, answer.text


def test_another_region_says_who_serves(talk: Talk) -> None:
    bob = talk.agent()

    def asked() -> httpx.Response:
        return talk.ask(bob, "claim", {}, region=CENTRAL)

    # Once it has heard of the agent.
    answer = await_that(lambda: a if (a := asked()).status_code != 404 else None, "the agent")
    problem = answer.json()
    assert (answer.status_code, problem["type"].rpartition("/")[2]) == (421, "inbox-served-elsewhere")
    assert problem["endpoints"] == [{"region": WEST, "url": talk.api.urls[WEST]}]
    assert talk.ask(bob, "claim", {}, region=US).status_code == 421


def test_inboxes_are_handed_over_with_what_was_acknowledged(talk: Talk) -> None:
    ann, bob = talk.agent(), talk.agent()
    sent = [talk.send(ann, bob) for _ in range(6)]
    claims = talk.claim(bob, limit=4)
    done = talk.ask(bob, "acknowledge", {"claims": [c["claim"] for c in claims[:3]]})
    assert done.status_code == 200
    move = lambda to, at, **more: talk.api.call(  # noqa: E731
        at, "POST", "/api/v1/inboxes/eu/move", json={"to": to}, **more
    )
    assert move(CENTRAL, WEST, token=talk.service).status_code == 403
    assert move(US, WEST).status_code == 400
    assert move("nowhere", WEST).status_code == 400
    assert move(WEST, CENTRAL).status_code == 421
    answer = move(CENTRAL, WEST)
    assert (answer.status_code, answer.json()) == (200, {"zone": "eu", "from": WEST, "to": CENTRAL})
    await_that(lambda: serving(talk.api) == CENTRAL, "the other region to serve", 10)
    try:
        assert talk.ask(bob, "claim", {}).status_code in (421, 503)
        got = talk.ask(bob, "claim", {}, region=CENTRAL).json()
        assert [c["message"]["message_id"] for c in got["claims"]] == sent[3:]
        old = talk.ask(bob, "acknowledge", {"claims": [claims[3]["claim"]]}, region=CENTRAL)
        assert (old.status_code, old.json()["type"].rpartition("/")[2]) == (409, "generation-old")
        assert old.json()["generation"] == got["generation"]
    finally:
        assert move(WEST, CENTRAL).status_code == 200
        await_that(lambda: serving(talk.api) == WEST, "the first region to serve", 10)
