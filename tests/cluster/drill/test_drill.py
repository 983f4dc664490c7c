"""A drill on a real cluster is passed; the same on one that was broken on purpose is not, and says why."""

from __future__ import annotations

import asyncio
import http.server
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
import yaml
from tests.cluster.conftest import TRIO, await_that, folder
from tests.cluster.local.test_away import amended, unable_to_note, version_of
from tests.cluster.torture.test_torture import processes_in
from typer.testing import CliRunner

from acgs2.cli import app
from acgs2.drill.faults import Injection, Kill
from acgs2.drill.history import History
from acgs2.drill.outages import OUTAGES, Kind
from acgs2.drill.report import Event, Report
from acgs2.drill.run import Settings, run_drill
from acgs2.drill.world import World
from acgs2.local.cluster import Cluster, up
from acgs2.topology import locate

WEST, CENTRAL, SG, WITNESS = "eu-west-1", "eu-central-1", "ap-southeast-1", "ca-central-1"
SHORT = Settings(rate_per_s=20, steady_s=2, hold_s=5, limit_s=40, after_s=1)


@pytest.fixture(scope="module")
def local() -> Iterator[Cluster]:
    """The built-in topology, with short dwells; how fast a shared machine is, is not what is tested here."""
    with folder() as path:
        body = yaml.safe_load(locate("local").read_text(encoding="utf-8"))
        body["failover"] |= {"dwell_s": 1, "gate": {"p99_ms": 10_000}}
        body["objectives"] |= {"p99_ms": 10_000, "lag_s": 5}
        (path / "topology.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
        running = up(path / "topology.yaml", path / "state")
        try:
            yield running
        finally:
            running.down()
        await_that(lambda: not processes_in(path), "every process to be gone")


def drilled(
    cluster: Cluster, fault: str, region: str = WEST, at: Callable[[str], None] = lambda phase: None
) -> Report:
    """Run a short drill; `at` is told every phase as it begins."""

    def say(event: Event) -> None:
        print(f"{event.at_s:7.1f} s  {event.what}")
        if event.kind == "phase":
            at(event.what)

    return asyncio.run(run_drill(cluster, fault, region, SHORT, say, lambda line: None))


def ask(cluster: Cluster, region: str, *statements: str) -> list[Any]:
    """Carry statements out as the superuser, past all triggers; returns the rows of the last."""
    with psycopg.connect(cluster.state.dsn(region, "postgres"), autocommit=True) as conn:
        conn.execute(b"SET session_replication_role = replica")
        cursor = None
        for statement in statements:
            cursor = conn.execute(statement.encode())
        return cursor.fetchall() if cursor is not None and cursor.description else []


def test_a_region_is_killed_and_nothing_is_lost(local: Cluster) -> None:
    report = drilled(local, "kill")
    assert report.missed == []
    assert report.bitten
    assert report.failover_s is not None
    assert report.failover_s < 30
    assert report.acknowledged_writes > 50
    assert report.acknowledged_messages > 20
    assert report.canaries_found > 50, "the search sees what there is"
    eu = next(zone for zone in report.zones if zone.zone == "eu")
    assert set(eu.regions["after"]) == {CENTRAL}
    assert [phase.name for phase in report.phases] == [
        "preparing",
        "steady state",
        "fault",
        "detection",
        "failover",
        "verification",
        "recovery",
        "failback",
        "draining",
        "judgement",
    ]
    assert any("failover inboxes eu eu-central-1: served by eu-central-1" in e.what for e in report.events)


def test_the_command_says_the_same_and_leaves_what_it_found_running(local: Cluster, tmp_path: Path) -> None:
    page = tmp_path / "drill.html"
    command = [sys.executable, "-m", "acgs2.cli", "--state", str(local.state.path), "drill"]
    command += ["--fault", "witness", "--rate", "20", "--html", str(page), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    report = json.loads(done.stdout)
    assert (done.returncode, report["missed"]) == (0, []), done.stderr
    assert report["passed"]
    assert (report["expected"], report["happened"]) == ("stays", "stays")
    assert "<svg" in page.read_text(encoding="utf-8")
    assert local.running()


def test_a_drill_and_a_demo_remove_only_what_they_have_made() -> None:
    with folder() as path:
        (path / "trio.yaml").write_text(TRIO, encoding="utf-8")
        made = up(path / "trio.yaml", path / "state")
        made.down()

        def said(*command: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "acgs2.cli", "--state", str(path / "state"), *command, "--json"],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 2, done.stdout + done.stderr
            return str(json.loads(done.stderr)["error"])

        # The topology of the cluster that was there counts, and nobody is outside of that one.
        assert said("drill", "--topology", "local") == "no-places"
        assert said("demo") == "cluster-there"
        assert not made.running()
        assert (path / "state" / "regions" / "eu-west-1" / "data" / "PG_VERSION").exists()


def test_a_filter_that_was_dropped_is_found(local: Cluster) -> None:
    name = "acgs_eu_west_1_to_ap_southeast_1"
    ask(local, WEST, f"ALTER PUBLICATION {name} SET TABLE acgs.journal")
    try:
        report = drilled(local, "witness")
    finally:
        ask(local, WEST, f"ALTER PUBLICATION {name} SET TABLE acgs.journal WHERE ('{SG}' = ANY (targets))")
    assert not report.passed
    assert any(f"{SG}: user_profile of eu was sent to it by {WEST}" in what for what in report.misplaced)
    assert not next(number for number in report.numbers if number.name == "residency").kept


def test_a_canary_that_lies_where_it_may_not_is_found(local: Cluster) -> None:
    """A row of a table that no rule of replication knows of, and what its writing leaves in the log."""

    def carry(phase: str) -> None:
        if phase == "recovery":
            ((text,),) = ask(
                local, WEST, "SELECT content FROM acgs.message WHERE zone = 'eu' ORDER BY hlc DESC LIMIT 1"
            )
            ask(local, SG, "CREATE TABLE acgs.aside (told text)", f"INSERT INTO acgs.aside VALUES ('{text}')")

    try:
        report = drilled(local, "witness", at=carry)
    finally:
        ask(local, SG, "DROP TABLE IF EXISTS acgs.aside")
    assert any("table acgs.aside" in what for what in report.misplaced)
    assert any("pg_wal" in what for what in report.misplaced)


def test_an_acknowledgement_that_was_lost_is_found(local: Cluster) -> None:
    gone: list[str] = []

    def lose(phase: str) -> None:
        if phase == "recovery":
            newest = "SELECT key::text FROM acgs.user_profile WHERE zone = 'eu' ORDER BY hlc DESC OFFSET 20 LIMIT 1"
            ((key,),) = ask(local, WEST, newest)
            gone.append(key)
            for region in local.state.topology.stacks():
                ask(local, region, f"DELETE FROM acgs.user_profile WHERE key = '{key}'")

    report = drilled(local, "witness", at=lose)
    assert not report.passed
    assert any(gone[0] in what for what in report.lost), report.missed


def test_a_message_that_was_lost_before_it_was_taken_is_found(local: Cluster) -> None:
    """What was acknowledged and is in no inbox: its delivery is gone, in whichever region it is served."""

    def lose(phase: str) -> None:
        if phase == "recovery":
            for region in (WEST, CENTRAL):
                ask(
                    local,
                    region,
                    "CREATE FUNCTION acgs.lose() RETURNS trigger LANGUAGE plpgsql AS"
                    " 'BEGIN IF random() < 0.3 THEN RETURN NULL; END IF; RETURN NEW; END'",
                    "CREATE TRIGGER lose BEFORE INSERT ON acgs.delivery FOR EACH ROW EXECUTE FUNCTION acgs.lose()",
                    "ALTER TABLE acgs.delivery ENABLE ALWAYS TRIGGER lose",
                )

    try:
        report = drilled(local, "witness", at=lose)
    finally:
        for region in (WEST, CENTRAL):
            ask(local, region, "DROP FUNCTION IF EXISTS acgs.lose() CASCADE")
    assert not report.passed
    assert report.undelivered


class _Liar(http.server.BaseHTTPRequestHandler):
    """Says that it is ready, and serves nothing."""

    def do_GET(self) -> None:
        well = self.path.startswith("/health")
        body = b'{"status": "ready"}' if well else b"{}"
        self.send_response(200 if well else 503)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PATCH = do_GET  # noqa: N815 - as the class that it is of names them

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class _Lying(Injection):
    """A region's server is dead, and its health check says that it is well."""

    region: str
    liars: list[http.server.ThreadingHTTPServer]
    name = "lying"

    @property
    def target(self) -> str:
        return self.region

    def begin(self, world: World) -> str | None:
        return self.lie(world, _Liar)

    def lie(self, world: World, how: type[http.server.BaseHTTPRequestHandler]) -> str | None:
        """Kill the server, and have somebody else answer in its place."""
        bitten = Kill((self.region,), "server").begin(world)
        liar = http.server.ThreadingHTTPServer(("127.0.0.1", world.state.ports[f"api/{self.region}"]), how)
        threading.Thread(target=liar.serve_forever, daemon=True).start()
        self.liars.append(liar)
        return bitten

    def end(self, world: World) -> str | None:
        for liar in self.liars:
            liar.shutdown()
            liar.server_close()
        return Kill((self.region,), "server").end(world)


def test_a_health_check_that_lies_is_found(local: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody leaves a region that says that it is well: that service does not come back shows it."""
    lying = Kind(lambda topology, regions: _Lying(regions[0], []), "fails over", "it serves nothing")
    monkeypatch.setitem(OUTAGES, "lying", lying)  # type: ignore[misc]
    report = drilled(local, "lying")
    assert report.bitten
    assert not report.passed
    assert report.as_expected is False, report.happened


def test_a_region_that_goes_by_an_older_constitution_is_found(local: Cluster, tmp_path: Path) -> None:
    old = version_of(local, SG)

    def amend(phase: str) -> None:
        if phase == "judgement":
            amended(local, tmp_path)

    with unable_to_note(local, SG):
        report = drilled(local, "witness", at=amend)
    assert not report.passed
    (found,) = report.broken
    own, _, others = found.partition(", others by ")
    assert own.startswith(f"governance: {SG} goes by ")
    assert f"'constitution': {old}" in own
    assert f"'constitution': {old + 1}" in others
    regions = local.state.topology.regions
    await_that(lambda: {version_of(local, r) for r in regions} == {old + 1}, "all to go by the new one")


class _Usurper(_Liar):
    """Says all that a region said before, and that it leads, whoever else does."""

    said: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        asked = self.path == "/health"
        body = json.dumps(self.said if asked else {}).encode()
        self.send_response(200 if asked else 503)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass(frozen=True)
class _Leading(_Lying):
    """A region that only votes says that it leads, under a term that nobody has agreed on."""

    def begin(self, world: World) -> str | None:
        said = world.health(self.region)
        term = said["leader"]["term"] + 100
        _Usurper.said = said | {"leader": {"region": self.region, "term": term, "held_here": True}}
        return self.lie(world, _Usurper)


def test_two_regions_that_lead_are_found(local: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    leading = Kind(
        lambda topology, regions: _Leading(regions[0], []),
        "stays",
        "it serves nobody",
        lambda topology, region, leader: (WITNESS,),
    )
    monkeypatch.setitem(OUTAGES, "leading", leading)  # type: ignore[misc]
    report = drilled(local, "leading")
    assert report.bitten
    assert not report.passed
    assert report.as_expected, report.happened
    assert report.broken
    assert all(what.startswith("leaders: ") for what in report.broken), report.broken
    assert all(f"{WITNESS} led, term " in what or f"while {WITNESS} did" in what for what in report.broken)


@dataclass(frozen=True)
class _Raising(Injection):
    """A fault that cannot be begun, in a way that nobody thought of."""

    region: str
    name = "raising"

    @property
    def target(self) -> str:
        return self.region

    def begin(self, world: World) -> str | None:
        raise RuntimeError("nobody thought of it")

    def end(self, world: World) -> str | None:
        return None


def test_a_suite_goes_on_when_a_drill_breaks_off(
    local: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raising = Kind(lambda topology, regions: _Raising(regions[0]), "fails over", "it serves nothing")
    monkeypatch.setattr("acgs2.drill.outages.OUTAGES", {"raising": raising, "witness": OUTAGES["witness"]})
    monkeypatch.setenv("ACGS2_STATE", str(local.state.path))
    numbers = (signal.SIGTERM, signal.SIGINT)
    before, page = [signal.getsignal(number) for number in numbers], tmp_path / "suite.html"
    try:
        done = CliRunner().invoke(app, ["drill", "--suite", "--rate", "20", "--json", "--html", str(page)])
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert done.exit_code == 1, done.output
    broke, witness = json.loads(done.stdout)
    assert broke["missed"] == ["not carried out: RuntimeError: nobody thought of it"]
    assert witness["missed"] == []
    assert "nobody thought of it" in page.read_text(encoding="utf-8")


def test_a_drill_goes_by_the_transfers_in_force_and_not_by_the_topology_file(local: Cluster) -> None:
    world = World(local, History(), "operator@drill", lifetime_s=600)
    assert "us-east-1" not in world.rights().lawful("eu", "agent")
    asked = {"zone": "eu", "to": "us-east-1", "instrument": "scc", "entities": ["agent"]}
    made = world.ask("eu-west-1", "POST", "/api/v1/transfers", json=asked)
    assert made is not None
    assert made.status_code == 201, made.text
    await_that(lambda: "us-east-1" in world.rights().lawful("eu", "agent"), "all regions to know of it")
    assert world.ask("eu-west-1", "POST", f"/api/v1/transfers/{made.json()['id']}/revoke") is not None
    await_that(
        lambda: "us-east-1" not in world.rights().lawful("eu", "agent"), "one region to know that it is over"
    )
