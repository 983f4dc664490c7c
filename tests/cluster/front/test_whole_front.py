"""A whole cluster seen from where its clients are: deaths, certificates, links, and who sends traffic where."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from tests.cluster.conftest import await_that, folder
from tests.cluster.front.stage import SMALL, Answer, Client
from tests.cluster.local.test_cluster import command, has

from acgs2.api.tokens import mint
from acgs2.local.cluster import Cluster, up

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
            running.down()


class Caller:
    """Clients at a place, by way of the edge."""

    def __init__(self, cluster: Cluster, place: str) -> None:
        self._state = cluster.state
        self._port = cluster.state.ports[f"client/{place}"]
        key = cluster.state.path / "secrets" / "signing.json"
        self._token = mint(key, "test", "operator", cluster.state.topology.name, int(time.time()))

    def call(self, method: str, path: str, zone: str, body: Any = None, **headers: str) -> Answer:
        """Ask once, on a connection of its own that goes by the authorities of the moment."""
        context = ssl.create_default_context(cafile=str(self._state.trust))
        client = Client(self._port, context)
        try:
            return client.send(
                method,
                f"/api/v1/{path}",
                {
                    "authorization": f"Bearer {self._token}",
                    "x-data-sovereignty": zone,
                    "content-type": "application/json",
                }
                | {k.replace("_", "-"): v for k, v in headers.items()},
                None if body is None else json.dumps(body).encode(),
            )
        finally:
            client.close()

    def read(self, zone: str) -> Answer:
        return self.call("GET", "tenants?limit=1", zone)

    def create(self, zone: str, name: str = "Acme") -> Answer:
        return self.call("POST", "tenants", zone, {"name": name}, idempotency_key=uuid4().hex)


@dataclass
class Load:
    """Reads, and creates that may be repeated, until told to stop."""

    caller: Caller
    zone: str
    answers: list[tuple[str, Answer]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def _run(self, kind: str) -> None:
        try:
            while not self._stop.is_set():
                ask = self.caller.read if kind == "read" else self.caller.create
                self.answers.append((kind, ask(self.zone)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test fails with it
            self.errors.append(error)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._run, args=(k,)) for k in ("read", "create")]
        for thread in threads:
            thread.start()
        try:
            self.more(5)
            yield
            self.more(5)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def more(self, count: int) -> None:
        """Wait for so many answers of each kind."""
        begin = len(self.answers)

        def enough() -> bool:
            kinds = [kind for kind, _ in self.answers[begin:]]
            return bool(self.errors) or min(kinds.count("read"), kinds.count("create")) >= count

        await_that(enough, "answers")

    def failures(self, kind: str = "") -> list[Answer]:
        assert self.errors == []
        return [a for k, a in self.answers if k.startswith(kind) and a.status not in (200, 201)]

    def regions(self, count: int) -> set[str]:
        """Return who gave the last answers."""
        return {a.headers.get("x-acgs2-region", "") for _, a in self.answers[-count:]}


@pytest.fixture(scope="module")
def dublin(cluster: Cluster) -> Caller:
    caller = Caller(cluster, "dublin")
    await_that(lambda: caller.create("eu").status == 201, "the first write of a pair")
    return caller


def arrives(cluster: Cluster, key: str, *regions: str) -> None:
    for region in regions:
        await_that(lambda r=region: has(cluster, r, key), f"the tenant in {region}")


@pytest.mark.parametrize("what", [["rotate"], ["rotate", "--authority"]])
def test_certificates_change_and_nobody_notices(cluster: Cluster, dublin: Caller, what: list[str]) -> None:
    load = Load(dublin, "all")
    with load.running():
        done = command("certificates", *what, "--json", state=cluster.state.path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["not_listening"] == []
    assert load.failures() == []
    made = dublin.create("all")
    arrives(cluster, json.loads(made.body)["id"], CENTRAL, US)


def test_operators_send_traffic_elsewhere(cluster: Cluster, dublin: Caller) -> None:
    def traffic(*words: str) -> Any:
        done = command("traffic", *words, "--json", state=cluster.state.path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def routes(zone: str) -> list[list[tuple[str, float]]]:
        shown = traffic("show", "--zone", zone)["routes"]
        return [
            [(t["region"], t["share"]) for t in row["targets"]] for row in shown if row["place"] == "dublin"
        ]

    load = Load(dublin, "all")
    with load.running():
        assert routes("all") == [[(WEST, 1.0), (CENTRAL, 0.0), (US, 0.0)]]
        assert traffic("drain", WEST) == {"down": [WEST], "weights": {}}
        assert routes("all") == [[(CENTRAL, 1.0), (US, 0.0)]]
        await_that(lambda: load.regions(20) == {CENTRAL}, "the next region to take all")
        traffic("drain", CENTRAL)
        await_that(lambda: load.regions(20) == {US}, "the last region to take all")
        refused = await_that(lambda: (a := dublin.read("eu")).status == 503 and a, "the zone eu to stop")
        assert refused.problem == "no-lawful-target"
        traffic("restore", CENTRAL)
        traffic("restore", WEST)
        assert traffic("weight", WEST, "50") == {"down": [], "weights": {WEST: 50}}
        assert routes("all") == [[(WEST, 0.5), (CENTRAL, 0.5), (US, 0.0)]]
        await_that(lambda: load.regions(40) == {WEST, CENTRAL}, "both to take their share")
        traffic("restore", WEST)
        await_that(lambda: load.regions(20) == {WEST}, "the nearest to take all again")
    assert load.failures() == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["drain", "mars-east-1"], 2, "unknown-region"),
        (["restore", "mars-east-1"], 2, "unknown-region"),
        (["weight", "mars-east-1", "50"], 2, "unknown-region"),
        (["weight", WEST, "101"], 2, ""),
        (["weight", WEST, "-1"], 2, ""),
        (["weight", WEST, "half"], 2, ""),
        (["weight", WEST], 2, ""),
        (["drain"], 2, ""),
        (["show", "--zone", "mars"], 2, "zone-unknown"),
        (["show", "--entity", "martian"], 2, "entity-unknown"),
    ],
)
def test_nonsense_changes_nothing(cluster: Cluster, words: list[str], status: int, said: str) -> None:
    done = command("traffic", *words, "--json", state=cluster.state.path)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert not done.stdout
    if said:
        assert json.loads(done.stderr)["error"] == said
    shown = json.loads(command("traffic", "show", "--json", state=cluster.state.path).stdout)
    assert (shown["down"], shown["weights"]) == ([], {})


def test_a_region_dies_and_its_clients_go_to_the_next(cluster: Cluster, dublin: Caller) -> None:
    load = Load(dublin, "all")
    with load.running():
        assert load.regions(5) == {WEST}
        cluster.ask("kill", region=WEST)
        await_that(lambda: load.regions(20) == {CENTRAL}, "the next region to take all", 60)
        cluster.ask("kill", region=CENTRAL)
        await_that(lambda: load.regions(20) == {US}, "the last region to take all", 60)
        refused = await_that(
            lambda: (a := dublin.read("eu")).status == 503 and a.problem == "no-lawful-target" and a,
            "the zone eu to stop",
        )
        assert refused.headers["retry-after"]
        assert dublin.read("us").status == 200
        load.more(20)
    print([(k, a) for k, a in load.answers if a.status not in (200, 201)])
    assert load.failures("read") == []
    assert load.failures("create") == []
