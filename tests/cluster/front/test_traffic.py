"""The edge obeys what it is told while requests run, and nobody's data is in a log."""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from uuid import uuid4

import pytest
from tests.cluster.conftest import await_that
from tests.cluster.front.stage import SMALL, Caller, Stage, staged

from acgs2.drivers.envoy import Traffic
from acgs2.plan import Rights

WEST, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged(SMALL) as running:
        yield running


@dataclass
class Load:
    """Asks for a zone's records all the time, and keeps which region answered, and what went wrong."""

    stage: Stage
    regions: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def _run(self, place: str) -> None:
        client = self.stage.client(place)
        for number in itertools.count():
            if self._stop.is_set():
                break
            method, body = ("GET", None) if number % 2 else ("POST", b"{}")
            answer = client.send(method, "/api/v1/users", {"x-data-sovereignty": "all"}, body)
            if answer.status == 200:
                self.regions.append(answer.headers["x-acgs2-region"])
            else:
                self.failures.append(f"{answer.status} {answer.body!r}")
        client.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._run, args=("dublin",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def settled(self, regions: set[str], count: int = 30) -> bool:
        """Return whether the latest answers came from these regions, and from all of them."""
        return len(self.regions) >= count and set(self.regions[-count:]) == regions

    def share(self, region: str, count: int) -> float:
        """Return a region's share of the next answers."""
        begin = len(self.regions)
        await_that(lambda: len(self.regions) >= begin + count, "answers")
        return self.regions[begin : begin + count].count(region) / count


def without(rights: Rights, zone: str, region: str) -> Rights:
    return Rights(
        {(z, e): (held - {region} if z == zone else held) for (z, e), held in rights.holders.items()}
    )


def test_changes_are_obeyed_without_a_restart_and_no_request_fails(stage: Stage) -> None:
    before, pid = stage.traffic, stage.edge and stage.edge.pid
    load = Load(stage)
    with load.running():
        await_that(lambda: load.settled({WEST}), "answers of the nearest")
        assert stage.proxies.tell_edge(replace(before, weights={WEST: 25}))
        await_that(lambda: load.settled({WEST, CENTRAL}), "answers of the next")
        # Of 600, 150 are expected; six standard deviations are 64.
        assert 0.14 < load.share(WEST, 600) < 0.36
        steps: list[tuple[Traffic, set[str]]] = [
            (replace(before, rights=without(before.rights, "all", WEST)), {CENTRAL}),
            (replace(before, health={WEST: False, CENTRAL: False}), {US}),
            (replace(before, weights={WEST: 0, CENTRAL: 50}), {CENTRAL, US}),
            (before, {WEST}),
        ]
        for traffic, regions in steps:
            stage.proxies.tell_edge(traffic)
            await_that(lambda r=regions: load.settled(r), f"answers of {regions}")
        assert stage.proxies.tell_edge(before) == ["clusters.json"], "what only earlier routes needed is gone"
        assert stage.proxies.tell_edge(before) == []
        load.share(WEST, 50)
    assert load.failures == []
    assert stage.edge is not None
    assert (stage.edge.pid, stage.edge.starts) == (pid, 1)


def test_many_at_once_find_their_region_and_when_it_dies_the_next(stage: Stage) -> None:
    # Ten wait for connections in each region; whoever is one too many goes on to the next one.
    first = Caller(stage, stage.state.ports["edge/dublin"], "POST")
    first.send(30, "x-data-sovereignty: all\r\ncontent-length: 0\r\n")
    await_that(lambda: len(first.answers) == 30, "answers")
    assert first.count(200) == 30, first.problems()
    stage.kill(WEST)
    try:
        then = Caller(stage, stage.state.ports["edge/dublin"], "POST")
        then.send(20, "x-data-sovereignty: all\r\nidempotency-key: k\r\ncontent-length: 0\r\n")
        await_that(lambda: len(then.answers) == 20, "answers")
        assert then.count(200) == 20, then.problems()
    finally:
        stage.open(WEST)


CANARY = "anna-schmidt"
ADDRESS = "203.0.113.77"
HEADERS = [
    "user-agent", "referer", "cookie", "authorization", "from", "x-forwarded-for", "x-real-ip", "forwarded",
    "x-request-id", "x-client-trace-id", "x-data-sovereignty", "x-region-preference", "idempotency-key", "if-match",
    "traceparent", "tracestate", "baggage", "content-type", "x-acgs2-region", "x-envoy-original-path",
    "x-forwarded-host", "x-forwarded-client-cert", "x-anything",
]  # fmt: skip


#: What Envoy's spans would have, and cannot be without being well-formed.
LOOKS = {
    "tracestate": f"a={CANARY}",
    "user-agent": CANARY,
    "x-client-trace-id": CANARY,
    "x-forwarded-for": ADDRESS,
}


@pytest.mark.parametrize("where", ["edge", "gateway"])
def test_no_personal_data_is_in_a_log(stage: Stage, where: str) -> None:
    client = stage.client("dublin") if where == "edge" else stage.near(WEST)
    found = {"x-data-sovereignty": "eu", "x-region-preference": WEST}
    await_that(lambda: client.send("GET", "/api/v1/users", found).status == 200, "the region to be well")
    zone = {"x-data-sovereignty": "eu"}
    sent: list[tuple[str, str, Mapping[str, str]]] = [
        ("POST", "/api/v1/users", zone),
        ("GET", f"/api/v1/users/{CANARY}?email={CANARY}", zone),
        ("POST", f"/{CANARY}/{CANARY}", {}),
        ("GET", f"/a%2F{CANARY}", {}),
        ("GET", f"/health?{CANARY}", {"x-data-sovereignty": CANARY}),
        ("GET", f"/health/{CANARY}", {}),
        ("GET", "/api/v1/users", {f"x_{CANARY}": CANARY}),
        *(("GET", "/api/v1/users", zone | {h: f"{CANARY}, {ADDRESS}"}) for h in HEADERS),
        ("GET", "/api/v1/users", found | {"x-forwarded-for": ADDRESS, "x-request-id": CANARY}),
    ]
    port = stage.state.ports["edge/dublin" if where == "edge" else f"gateway/{WEST}"]
    nonsense = [f"{CANARY} /{CANARY} HTTP/9.9\r\n\r\n", f"GET /{CANARY} HTTP/1.1\r\n{CANARY}\r\n\r\n"]
    nonsense += [f"GET http://{CANARY}@{CANARY}/ HTTP/1.1\r\nhost: {CANARY}\r\n\r\n"]
    for text in nonsense:
        context = ssl.create_default_context(cafile=str(stage.state.trust))
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            secured.sendall(text.encode())
            assert secured.recv(4096).startswith(b"HTTP/1.1 ")
    answers = [client.send(m, path, headers, f"{CANARY} {ADDRESS}".encode()) for m, path, headers in sent]
    trace = uuid4()
    for _ in range(10):  # spans are sent in fives
        client.send(
            "GET", f"/{CANARY}", found | {"traceparent": f"00-{trace.hex}-b7ad6b7169203331-01"} | LOOKS
        )
    client.close()
    log = stage.state.logs / ("edge.dublin.access.log" if where == "edge" else f"{WEST}.access.log")
    last = answers[-1].headers["x-request-id"]
    await_that(lambda: last in log.read_text(), "the requests to be logged")
    # By the edge's id a request is found in both logs.
    await_that(lambda: last in (stage.state.logs / f"{WEST}.access.log").read_text(), "the region's log")
    logged = stage.logged().lower()
    for personal in (CANARY, ADDRESS, "127.0.0.1"):
        assert personal not in logged
    spans = stage.collector.seen
    await_that(lambda: trace.bytes in spans, "spans of these requests")
    assert CANARY.encode() not in spans
    assert ADDRESS.encode() not in spans
    assert all(json.loads(line)["at"] for line in log.read_text().splitlines())
