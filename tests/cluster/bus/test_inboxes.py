"""Inboxes of a whole cluster, by way of the edge: long polls, streams, and the death of the region that serves them."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from acgs2 import Client
from acgs2.local.cluster import Cluster, up
from acgs2.local.loopback import health

from ..conftest import await_that, finish, folder
from ..front.stage import SMALL
from ..local.test_cluster import command
from .speaker import Speaker

WEST, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"
SOON = "failover: {interval_s: 0.5, failures: 3, successes: 2}\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with folder() as path:
        (path / "small.yaml").write_text(SMALL + SOON, encoding="utf-8")
        running = up(path / "small.yaml", path / "state")
        try:
            yield running
        finally:
            finish(running)


@pytest.fixture(scope="module")
def eu(cluster: Cluster) -> Iterator[Speaker]:
    def ready(region: str) -> bool:
        return bool(health(cluster.state.url(region)).get("governance", {}).get("serving"))

    await_that(lambda: all(ready(region) for region in (WEST, CENTRAL, US)), "all regions to govern")
    speaker = Speaker(cluster, "eu", WEST, agents=8)
    if await_that(lambda: serves(speaker), "the inboxes to be served") != WEST:
        told(speaker, "move", "eu", WEST)  # it was up first
    yield speaker
    speaker.http.close()


def serves(eu: Speaker) -> str | None:
    for region in (WEST, CENTRAL):
        try:
            answer = eu.ask("GET", "/api/v1/inboxes", region=region)
        except httpx.HTTPError:
            continue
        for zone in answer.json().get("zones", ()):
            if (zone["zone"], zone["region"]) == ("eu", region):
                return region
    return None


def told(eu: Speaker, *arguments: str) -> Any:
    """Return what `acgs2 inbox` says."""
    done = command("inbox", *arguments, "--json", state=eu.cluster.state.path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Edge:
    """An agent somewhere, who knows the edge and nothing else."""

    def __init__(self, eu: Speaker, agent: str, place: str = "frankfurt") -> None:
        self.eu = eu
        self.agent = agent
        self.url = eu.cluster.state.edge_url(place)
        self.context = ssl.create_default_context(cafile=str(eu.cluster.state.trust))
        self.http = httpx.Client(verify=self.context, timeout=40)
        self.headers = {"authorization": f"Bearer {eu.agent_token(agent)}", "x-data-sovereignty": "eu"}

    def post(self, act: str, body: Any, **headers: str) -> httpx.Response:
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(f"{self.url}/api/v1/inboxes/{self.agent}/{act}", json=body, headers=sent)

    def stream(self, query: str = "", **headers: str) -> ClientConnection:
        sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"wss{self.url.removeprefix('https')}/api/v1/inboxes/{self.agent}/stream{query}"
        return connect(url, ssl=self.context, additional_headers=sent, open_timeout=10)


def frame(socket: ClientConnection, *, skip: bool = True) -> dict[str, Any]:
    while True:
        found = json.loads(socket.recv(timeout=25))
        if not (skip and found["type"] == "alive"):
            return found


def test_a_claim_through_the_edge_waits_longer_than_other_requests_may_take(eu: Speaker) -> None:
    ann, bob = eu.agents[:2]
    edge = Edge(eu, bob)
    threading.Timer(12, lambda: eu.send(eu.message(from_agent=ann, to_agent=bob))).start()
    began_s = time.monotonic()
    answer = edge.post("claim", {"wait_s": 20})
    assert answer.status_code == 200, answer.text
    (claim,) = answer.json()["claims"]
    assert 11 < time.monotonic() - began_s < 15
    assert answer.headers["x-acgs2-region"] == WEST
    done = edge.post("acknowledge", {"claims": [claim["claim"]]}).json()
    assert done["claims"][0]["outcome"] == "done"
    elsewhere = edge.post("claim", {}, x_region_preference=CENTRAL)
    assert elsewhere.status_code == 421
    assert elsewhere.json()["endpoints"][0]["region"] == WEST


def test_server_sent_events_come_through_the_edge_one_window_at_a_time(eu: Speaker) -> None:
    ann, bob = eu.agents[:2]
    edge = Edge(eu, bob)
    sent = []
    for _ in range(3):
        message = eu.message(from_agent=ann, to_agent=bob)
        assert eu.send(message).status_code == 201
        sent.append(message["message_id"])
    url = f"{edge.url}/api/v1/inboxes/{bob}/events?credit=2"
    with edge.http.stream("GET", url, headers=edge.headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        first, second = event(lines), event(lines)
        assert [e["message"]["message_id"] for e in (first, second)] == sent[:2]
        assert next(line for line in lines if line) == ": alive", "the window is full"
        edge.post("acknowledge", {"claims": [first["claim"], second["claim"]]})
        third = event(lines)
        assert third["message"]["message_id"] == sent[2]
        edge.post("acknowledge", {"claims": [third["claim"]]})


def test_a_client_that_hangs_up_in_its_poll_takes_nothing(eu: Speaker) -> None:
    ann, bob = eu.agents[:2]
    edge = Edge(eu, bob)
    for url in (edge.url, eu.cluster.state.url(WEST)):
        edge.url = url
        for _ in range(3):
            with pytest.raises(httpx.ReadTimeout):
                edge.http.post(
                    f"{url}/api/v1/inboxes/{bob}/claim",
                    json={"wait_s": 20},
                    headers=edge.headers,
                    timeout=0.5,
                )
        time.sleep(1)  # the news of it travels as well
        message = eu.message(from_agent=ann, to_agent=bob)
        assert eu.send(message).status_code == 201
        (claim,) = edge.post("claim", {"wait_s": 3}).json()["claims"]
        assert (claim["message"]["message_id"], claim["attempt"]) == (message["message_id"], 1)
        edge.post("acknowledge", {"claims": [claim["claim"]]})


def test_a_stream_of_events_that_breaks_gives_back_what_it_held(eu: Speaker) -> None:
    ann, bob = eu.agents[:2]
    edge = Edge(eu, bob)
    sent = []
    for _ in range(3):
        message = eu.message(from_agent=ann, to_agent=bob)
        assert eu.send(message).status_code == 201
        sent.append(message["message_id"])
    url = f"{edge.url}/api/v1/inboxes/{bob}/events?hold_s=600"
    with edge.http.stream("GET", url, headers=edge.headers) as answer:
        lines = answer.iter_lines()
        first = [event(lines) for _ in sent]
        edge.post("acknowledge", {"claims": [first[0]["claim"]]})
    # Its connection is gone; what it had not acknowledged comes at once, whatever the last event was.
    broken = {"last-event-id": first[-1]["claim"]}
    with edge.http.stream("GET", url, headers=edge.headers | broken) as answer:
        lines = answer.iter_lines()
        again = [event(lines), event(lines)]
        assert [e["message"]["message_id"] for e in again] == sent[1:]
        assert [e["attempt"] for e in again] == [2, 2]
        # The connection stands, though the consumer has left it.
        left = {"last-event-id": again[-1]["claim"]}
        with edge.http.stream("GET", url, headers=edge.headers | left) as other:
            theirs = other.iter_lines()
            third = [event(theirs), event(theirs)]
            assert [e["message"]["message_id"] for e in third] == sent[1:]
            said = edge.post("acknowledge", {"claims": [e["claim"] for e in third]}).json()["claims"]
            assert [each["outcome"] for each in said] == ["done", "done"]
        assert not [line for line in lines if line.startswith("data:")], "it is over"


def event(lines: Iterator[str]) -> dict[str, Any]:
    """Return the next claim of a stream of events."""
    name = claim = ""
    for line in lines:
        if line.startswith("id: "):
            claim = line.removeprefix("id: ")
        elif line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            found = json.loads(line.removeprefix("data: "))
            assert (name, claim) == ("message", found["claim"])
            return found
    raise AssertionError("the stream has ended")


def test_a_websocket_through_the_edge_pushes_claims_and_takes_acknowledgements(eu: Speaker) -> None:
    ann, bob = eu.agents[:2]
    edge = Edge(eu, bob)
    with edge.stream("?credit=1") as socket:
        assert frame(socket)["type"] == "open"
        messages = [eu.message(from_agent=ann, to_agent=bob) for _ in range(3)]
        for message in messages:
            assert eu.send(message).status_code == 201
        first = frame(socket)
        assert (first["type"], first["message"]["message_id"]) == ("message", messages[0]["message_id"])
        socket.send(json.dumps({"type": "acknowledge", "claims": [first["claim"]]}))
        got = sorted((frame(socket), frame(socket)), key=lambda f: f["type"])
        assert [f["type"] for f in got] == ["message", "outcome"]
        assert got[1]["claims"] == [{"claim": first["claim"], "outcome": "done"}]
        socket.send(json.dumps({"type": "return", "claims": [got[0]["claim"]]}))
        again = sorted((frame(socket), frame(socket)), key=lambda f: f["type"])
        assert again[0]["message"]["message_id"] == messages[1]["message_id"]
        assert again[0]["attempt"] == 2
    # What it held when it went is there for the next at once.
    with edge.stream("?credit=10") as socket:
        frame(socket)
        left = [frame(socket), frame(socket)]
        assert [f["message"]["message_id"] for f in left] == [m["message_id"] for m in messages[1:]]
        assert left[0]["attempt"] == 3
        socket.send(json.dumps({"type": "acknowledge", "claims": [f["claim"] for f in left]}))
        assert frame(socket)["type"] == "outcome"


@pytest.mark.parametrize(
    "sent",
    [
        "{",
        "null",
        '{"type": "open"}',
        '{"type": "credit", "credit": 101}',
        '{"type": "acknowledge", "claims": ["x"]}',
        '{"type": "acknowledge", "claims": ["1.' + "0" * 32 + "." + "0" * 32 + '"], "more": 1}',
        '{"type": "return", "claims": ["\\u0000"], "delay_s": -1}',
        "[" * 50_000,
        "x" * 70_000,
    ],
)
def test_a_frame_that_makes_no_sense_ends_the_stream_with_a_problem(eu: Speaker, sent: str) -> None:
    with Edge(eu, eu.agents[2]).stream() as socket:
        assert frame(socket)["type"] == "open"
        socket.send(sent)
        assert frame(socket)["type"] == "problem"
        with pytest.raises(ConnectionClosed) as closed:
            frame(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code in (4400, 4413)


def test_a_stream_is_opened_only_by_who_may_and_where_it_is_served(eu: Speaker) -> None:
    edge = Edge(eu, eu.agents[3])
    own = edge.headers["authorization"]

    def told(status: int, **headers: str) -> dict[str, Any]:
        with edge.stream(**headers) as socket:
            found = frame(socket)
            assert (found["type"], found["status"]) == ("problem", status)
            return found

    told(401, authorization="Bearer nonsense")
    edge.headers["authorization"] = f"Bearer {eu.agent_token(eu.agents[4])}"
    told(403)
    edge.headers["authorization"] = own
    elsewhere = told(421, x_region_preference=CENTRAL)
    assert elsewhere["endpoints"][0]["region"] == WEST


def test_an_operator_sees_and_moves_inboxes_and_requeues_what_was_given_up(eu: Speaker) -> None:
    ann, bob = eu.agents[:2]

    message = eu.message(from_agent=ann, to_agent=bob)
    assert eu.send(message).status_code == 201
    edge = Edge(eu, bob)
    for _ in range(5):
        (claim,) = edge.post("claim", {"wait_s": 5}).json()["claims"]
        edge.post("return", {"claims": [claim["claim"]]})
    assert edge.post("claim", {}).json()["claims"] == []
    assert [d["message_id"] for d in told(eu, "dead", bob)] == [message["message_id"]]
    assert told(eu, "move", "eu", CENTRAL) == {"zone": "eu", "from": WEST, "to": CENTRAL}
    await_that(lambda: serves(eu) == CENTRAL, "the other region to serve", 10)
    assert {z["zone"]: z["region"] for z in told(eu, "show")}["eu"] == CENTRAL
    # It knows what was given up, and the edge finds it though it asks the first home region first.
    assert told(eu, "requeue", bob)["requeued"] == [message["message_id"]]
    assert told(eu, "show", bob)["ready"] == 1
    answer = edge.post("claim", {"wait_s": 5})
    assert answer.headers["x-acgs2-region"] == CENTRAL
    (claim,) = answer.json()["claims"]
    assert edge.post("acknowledge", {"claims": [claim["claim"]]}).status_code == 200
    told(eu, "move", "eu", WEST)
    await_that(lambda: serves(eu) == WEST, "the first region to serve", 10)
    wrong = command("inbox", "move", "eu", US, state=eu.cluster.state.path)
    assert (wrong.returncode, "may not serve" in wrong.stderr) == (2, True)


def test_the_sdk_talks_through_the_edge_wherever_the_inbox_is_served(eu: Speaker) -> None:
    ann, bob = eu.agents[:2]
    state = eu.cluster.state

    def client(agent: str, place: str) -> Client:
        return Client(state.edge_url(place), zone="eu", token=eu.agent_token(agent), ca=state.trust)

    async def act() -> list[tuple[int, str | None]]:
        seen: list[tuple[int, str | None]] = []
        async with client(ann, "dublin") as hers, client(bob, "frankfurt") as his, asyncio.timeout(60):

            async def say(number: int) -> None:
                await hers.send(from_agent=ann, to_agent=bob, message_type="note", payload={"number": number})

            await say(0)
            async for message in his.inbox(bob, wait_s=5):
                seen.append((message.payload["number"], await asyncio.to_thread(serves, eu)))
                assert await message.acknowledge()
                if len(seen) == 3:
                    break
                # The edge asks the first home region, and follows where that sends it.
                to = WEST if seen[-1][1] == CENTRAL else CENTRAL
                await asyncio.to_thread(told, eu, "move", "eu", to)
                await say(len(seen))
        return seen

    told(eu, "move", "eu", CENTRAL)
    try:
        assert asyncio.run(act()) == [(0, CENTRAL), (1, WEST), (2, CENTRAL)]
    finally:
        told(eu, "move", "eu", WEST)


@dataclass
class Crowd:
    """Senders and consumers, and what they saw: each kept by whom it is about, in order."""

    eu: Speaker
    accepted: dict[str, list[str]] = field(default_factory=dict)
    given: list[tuple[float, str, str]] = field(default_factory=list)
    acknowledged: dict[str, float] = field(default_factory=dict)
    old: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    errors: list[BaseException] = field(default_factory=list)

    def speak(self, talk: str, sender: str, to: str) -> None:
        """Say one thing after the other in one conversation, each until it was accepted."""
        http, accepted = Edge(self.eu, sender), self.accepted.setdefault(talk, [])
        while not self.stop.is_set():
            if len(accepted) >= 5 and accepted[-5] not in self.acknowledged:
                self.stop.wait(0.05)  # no further ahead of the receiver than that
                continue
            message = self.eu.message(conversation_id=talk, from_agent=sender, to_agent=to)
            while not self.stop.is_set():
                try:
                    answer = http.http.post(f"{http.url}/api/v1/messages", json=message, headers=http.headers)
                except httpx.HTTPError:
                    continue
                if answer.status_code in (200, 201):
                    accepted.append(message["message_id"])
                    break
                assert answer.status_code in (429, 503, 504), answer.text

    def consume(self, agent: str, done: Callable[[], bool]) -> None:
        """Claim and acknowledge what comes, now and then slowly."""
        edge, rng = Edge(self.eu, agent), random.Random(agent)
        while not done():
            try:
                answer = edge.post("claim", {"limit": 5, "wait_s": 1, "hold_s": 2})
                if answer.status_code != 200:
                    assert answer.status_code in (421, 502, 503, 504), answer.text
                    continue
                for claim in answer.json()["claims"]:
                    message = claim["message"]
                    self.given.append((time.monotonic(), message["conversation_id"], message["message_id"]))
                    if rng.random() < 0.02:
                        continue  # forgotten: comes again
                    said = edge.post("acknowledge", {"claims": [claim["claim"]]})
                    if said.status_code == 409:
                        self.old.append(said.json()["type"].rpartition("/")[2])
                    elif said.status_code == 200 and said.json()["claims"][0]["outcome"] in (
                        "done",
                        "already",
                    ):
                        self.acknowledged[message["message_id"]] = time.monotonic()
            except httpx.HTTPError:
                continue

    @contextmanager
    def running(self, *work: tuple[Any, ...]) -> Iterator[None]:
        def kept(act: Any, *arguments: Any) -> None:
            try:
                act(*arguments)
            except BaseException as error:  # noqa: BLE001 - the test fails with it
                self.errors.append(error)
                self.stop.set()

        threads = [threading.Thread(target=kept, args=each) for each in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
        assert not self.errors, self.errors


def test_when_the_serving_region_dies_another_goes_on_with_what_was_not_acknowledged(eu: Speaker) -> None:
    crowd = Crowd(eu)
    receivers = eu.agents[4:8]
    talks = [(str(uuid4()), eu.agents[n % 4], receivers[n % 4]) for n in range(8)]
    held = Edge(eu, receivers[0])
    eu.send(eu.message(from_agent=eu.agents[0], to_agent=receivers[0]))
    (before,) = await_that(lambda: held.post("claim", {"hold_s": 60}).json()["claims"], "a claim")
    given_up_s = time.monotonic() + 90

    def settled() -> bool:
        accepted = {m for talk in crowd.accepted.values() for m in talk}
        return time.monotonic() > given_up_s or (
            crowd.stop.is_set() and accepted <= crowd.acknowledged.keys()
        )

    work = [(crowd.speak, *talk) for talk in talks] + [(crowd.consume, a, settled) for a in receivers]
    with crowd.running(*work):
        await_that(lambda: len(crowd.acknowledged) > 100, "a hundred acknowledgements")
        killed_s = time.monotonic()
        eu.cluster.ask("kill", region=WEST)
        await_that(lambda: serves(eu) == CENTRAL, "the next region to serve", 20)
        took_s = time.monotonic() - killed_s
        old = held.post("acknowledge", {"claims": [before["claim"]]})
        assert (old.status_code, old.json()["type"].rpartition("/")[2]) == (409, "generation-old"), old.text
        many = len(crowd.acknowledged)
        await_that(lambda: len(crowd.acknowledged) > many + 100, "a hundred more")
    accepted = {m for talk in crowd.accepted.values() for m in talk}
    assert accepted <= crowd.acknowledged.keys(), "something accepted was not delivered"
    first: dict[str, list[str]] = {}
    for _, talk, message in crowd.given:
        if message not in first.setdefault(talk, []):
            first[talk].append(message)
    for talk, messages in crowd.accepted.items():
        delivered = [m for m in first[talk] if m in set(messages)]
        assert delivered == messages, "the order within the conversation"
        assert all(a < b for a, b in pairwise(messages))
    known_s = killed_s - 1.0  # told to the next region by then
    again = [m for at, _, m in crowd.given if at > killed_s and crowd.acknowledged.get(m, at) < known_s]
    assert again == [], "given again though its acknowledgement had been told"
    print(f"took over after {took_s:.1f} s; {len(accepted)} accepted, {len(crowd.given)} given")
