"""A whole cluster seen from where its clients are: deaths, certificates, links, and who sends traffic where."""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from tests.cluster.collector import Collector, collecting
from tests.cluster.conftest import await_that, finish, folder, free_port
from tests.cluster.front.stage import SMALL, Answer, Client, Loop, Relay
from tests.cluster.local.test_cluster import command, has

from acgs2 import SyncClient
from acgs2.api.tokens import mint
from acgs2.cli import main
from acgs2.local.cluster import Cluster, up
from acgs2.local.proxies import Proxies

WEST, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"
SOON = "failover: {interval_s: 0.5, failures: 3, successes: 2}\n"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def cluster(collector: Collector) -> Iterator[Cluster]:
    with folder() as path:
        observed = f"observability: {{otlp: '{collector.url}'}}\n"
        (path / "small.yaml").write_text(SMALL + SOON + observed, encoding="utf-8")
        running = up(path / "small.yaml", path / "state")
        try:
            yield running
        finally:
            finish(running)


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


def test_the_edge_follows_what_becomes_lawful_and_what_no_longer_is(cluster: Cluster, dublin: Caller) -> None:
    def asked() -> Answer:
        return dublin.call("GET", "tenants?limit=1", "eu", x_region_preference=US)

    assert asked().problem == "region-not-lawful"
    body = {"zone": "eu", "to": US, "instrument": "scc", "entities": ["tenant"]}
    made = dublin.call("POST", "transfers", "eu", body)
    assert made.status == 201, made.body
    await_that(lambda: asked().status == 200, "the edge to know of the transfer")
    revoked = dublin.call("POST", f"transfers/{json.loads(made.body)['id']}/revoke", "eu")
    assert revoked.status == 200, revoked.body
    await_that(lambda: asked().status == 403, "the edge to know that it was revoked")


def traced(collector: Collector, work: Callable[[], Any], *services: str, of: str) -> list[tuple[str, Any]]:
    """Return service and span of all that one piece of work leads to, once these services and a span `of` are said."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
    with trace.get_tracer("tests").start_as_current_span("work") as span:
        trace_id = f"{span.get_span_context().trace_id:032x}"
        work()

    def found() -> list[tuple[str, Any]] | None:
        spans = [(by["service.name"], s) for by, s in collector.all_spans(trace_id)]
        said = {*services} <= {service for service, _ in spans} and of in {span.name for _, span in spans}
        return spans if said else None

    return await_that(found, f"spans of {services}")


def test_a_trace_leads_from_the_caller_to_the_database(cluster: Cluster, collector: Collector) -> None:
    state = cluster.state
    token = mint(
        state.path / "secrets" / "signing.json", "test", "operator", state.topology.name, int(time.time())
    )

    def create() -> None:
        url = state.edge_url("dublin")
        with SyncClient(url, zone="eu", token=token, ca=str(state.trust)) as client:
            client.tenants.create(name="Traced")

    way = ("acgs2-edge", f"acgs2-gateway {WEST}", "acgs2-region")
    spans = traced(collector, create, *way, of="POST /api/v1/tenants")
    ids = {span.span_id for _, span in spans}
    assert {"INSERT tenant", "wait for pair"} <= {span.name for service, span in spans if service == way[2]}
    # Each has its parent in the one before it on the way; the first in the caller's.
    first = {
        service: [s for of, s in spans if of == service and s.parent_span_id not in ids] for service in way
    }
    assert [len(first[service]) for service in way] == [1, 0, 0]


def test_a_trace_goes_on_in_the_region_that_another_points_to(cluster: Cluster, collector: Collector) -> None:
    state = cluster.state
    token = mint(
        state.path / "secrets" / "signing.json", "test", "operator", state.topology.name, int(time.time())
    )

    def create() -> None:
        with SyncClient(state.gateway_url(US), zone="eu", token=token, ca=str(state.trust)) as client:
            assert client.tenants.create(name="Traced").updated_in == CENTRAL

    # The region that points says a span as well, and may say it first.
    ways = (f"acgs2-gateway {US}", f"acgs2-gateway {CENTRAL}")
    spans = traced(collector, create, *ways, of="INSERT tenant")
    assert "acgs2-region" in {service for service, _ in spans}


def test_nothing_crosses_a_link_in_the_clear(cluster: Cluster, dublin: Caller) -> None:
    loop, state = Loop(), cluster.state
    # One before the way from the United States to the west; one, to know what there is to see, before the database.
    link = Relay(loop, free_port(), state.ports[f"route/{US}/{WEST}"])
    inside = Relay(loop, free_port(), state.ports[f"postgres/{WEST}"])
    told = Proxies(replace(state, ports=state.ports | {f"route/{US}/{WEST}": link.port}))
    there = Proxies(replace(state, ports=state.ports | {f"postgres/{WEST}": inside.port}))
    try:
        assert told.tell_gateway(US) == ["clusters.json"]
        assert there.tell_gateway(WEST) == ["clusters.json"]
        with psycopg.connect(state.dsn(WEST, "postgres"), autocommit=True) as conn:

            def through() -> bool:
                # Who was connected before goes on as it was.
                conn.execute(b"SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
                return bool(link.seen and inside.seen)

            await_that(through, "connections by the new way")
        canary = f"anna-schmidt-{uuid4().hex}"
        arrives(cluster, json.loads(dublin.create("all", canary).body)["id"], US, CENTRAL)
        assert canary.encode() in inside.seen
        assert canary.encode() not in link.seen
        assert b"acgs" not in link.seen
        assert b"acgs" in inside.seen
    finally:
        Proxies(state).tell_gateway(US)
        Proxies(state).tell_gateway(WEST)
        loop.run(link.close())
        loop.run(inside.close())
        loop.close()


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def traffic(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`acgs2 traffic ... --json` in this process: exit status, output, and what went wrong."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["acgs2", "traffic", *words, "--json"])
        monkeypatch.setenv("ACGS2_STATE", str(cluster.state.path))
        with pytest.raises(SystemExit) as ended:
            main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


def test_operators_send_traffic_elsewhere(cluster: Cluster, dublin: Caller, traffic: Command) -> None:
    def told(*words: str) -> Any:
        status, shown, said = traffic(*words)
        assert status == 0, said
        return json.loads(shown)

    def routes(zone: str) -> list[list[tuple[str, float]]]:
        shown = told("show", "--zone", zone)["routes"]
        return [
            [(t["region"], t["share"]) for t in row["targets"]] for row in shown if row["place"] == "dublin"
        ]

    load = Load(dublin, "all")
    with load.running():
        assert routes("all") == [[(WEST, 1.0), (CENTRAL, 0.0), (US, 0.0)]]
        drained = told("drain", WEST)
        assert (drained["down"], drained["weights"], drained["operator"]["down"]) == ([WEST], {}, [WEST])
        assert routes("all") == [[(CENTRAL, 1.0), (US, 0.0)]]
        await_that(lambda: load.regions(20) == {CENTRAL}, "the next region to take all")
        told("drain", CENTRAL)
        await_that(lambda: load.regions(20) == {US}, "the last region to take all")
        refused = await_that(lambda: (a := dublin.read("eu")).status == 503 and a, "the zone eu to stop")
        assert refused.problem == "no-lawful-target"
        told("restore", CENTRAL)
        told("restore", WEST)
        half = told("weight", WEST, "50")
        assert (half["down"], half["weights"]) == ([], {WEST: 50})
        assert half["version"] > drained["version"]
        assert routes("all") == [[(WEST, 0.5), (CENTRAL, 0.5), (US, 0.0)]]
        await_that(lambda: load.regions(40) == {WEST, CENTRAL}, "both to take their share")
        told("restore", WEST)
        await_that(lambda: load.regions(20) == {WEST}, "the nearest to take all again")
    assert load.failures() == []


@pytest.mark.parametrize(
    ("words", "reference"),
    [
        (["drain", "mars-east-1"], "unknown-region"),
        (["restore", "mars-east-1"], "unknown-region"),
        (["weight", "mars-east-1", "50"], "unknown-region"),
        (["weight", WEST, "101"], ""),
        (["weight", WEST, "-1"], ""),
        (["weight", WEST, "half"], ""),
        (["weight", WEST], ""),
        (["drain"], ""),
        (["show", "--zone", "mars"], "zone-unknown"),
        (["show", "--entity", "martian"], "entity-unknown"),
    ],
)
def test_nonsense_changes_nothing(traffic: Command, words: list[str], reference: str) -> None:
    status, shown, said = traffic(*words)
    assert (status, shown) == (2, "")
    if reference:
        assert json.loads(said)["error"] == reference
    after = json.loads(traffic("show")[1])
    assert (after["down"], after["weights"]) == ([], {})


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
    assert load.failures("read") == []
    assert load.failures("create") == []
