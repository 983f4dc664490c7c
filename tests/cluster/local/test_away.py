"""Regions that flap, a zone that loses all its regions, and one that comes back with an old constitution."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from tests.cluster.conftest import await_that, folder
from tests.cluster.local.test_cluster import CENTRAL, US, WEST, command
from tests.cluster.local.test_failover import over, state, whole
from tests.cluster.local.test_governance import governs
from tests.cluster.local.test_return import health
from tests.cluster.local.test_standing import reference

from acgs2.api.tokens import mint
from acgs2.local.cluster import Cluster, up
from acgs2.topology import locate

SG = "ap-southeast-1"
#: For how long a region comes and goes, and how long it is there, and not, each time.
FLAPPING_S, EACH_S = 60.0, 2.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The built-in topology, with short dwells; how fast a shared machine is, is not what is tested here."""
    with folder() as path:
        body = yaml.safe_load(locate("local").read_text(encoding="utf-8"))
        body["failover"] |= {"dwell_s": 0.5, "gate": {"p99_ms": 10_000}}
        body["objectives"] |= {"p99_ms": 10_000, "lag_s": 5}
        (path / "topology.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
        running = up(path / "topology.yaml", path / "state")
        try:
            stacks = {*running.state.topology.stacks()}
            await_that(lambda: all(governs(running, r) for r in stacks), "all regions to govern", 60)
            await_that(lambda: {*state(running)["agreed"]["served"]} == stacks, "all to have served", 60)
            yield running
        finally:
            running.down()


def plans(cluster: Cluster, region: str, since_us: int) -> dict[str, dict[str, Any]]:
    """Return the plans of a region that were begun after a moment, open ones too, by their ids."""
    agreed = state(cluster)["agreed"]
    found = [*agreed["closed"], *agreed["plans"].values()]
    return {p["id"]: p for p in found if p["region"] == region and p["begun_us"] >= since_us}


def begun(cluster: Cluster, kind: str, region: str, since_us: int) -> dict[str, Any] | None:
    """Return the first plan of a kind, open or over, that was begun after a moment."""
    found = [p for p in plans(cluster, region, since_us).values() if p["kind"] == kind]
    return found[0] if found else None


def shares(plan: dict[str, Any]) -> list[int]:
    """Return the shares that a failback has given so far."""
    return [s.get("value", 0) for s in plan["steps"][: plan["at"] + 1] if s["kind"] == "weight"]


def test_a_region_that_comes_and_goes_is_left_once_at_most(cluster: Cluster) -> None:
    whole(cluster)
    began_us = time.time_ns() // 1000
    seen: dict[str, dict[str, Any]] = {}
    try:
        until_s = time.monotonic() + FLAPPING_S
        while time.monotonic() < until_s:
            cluster.ask("kill", region=CENTRAL, component="server")
            time.sleep(EACH_S)
            cluster.ask("start", region=CENTRAL, component="server")
            time.sleep(EACH_S)
            seen |= plans(cluster, CENTRAL, began_us)
    finally:
        cluster.ask("start", region=CENTRAL, component="server")
    for plan in seen.values():
        print(plan["kind"], plan["state"], plan["cause"], [n["said"] for n in plan["notes"]])
    failovers = [p for p in seen.values() if p["kind"] == "failover"]
    assert len(failovers) <= 1, "traffic does not go to and fro"
    assert not any(shares(p) for p in seen.values() if p["kind"] == "failback"), "it is let in once it stays"
    whole(cluster)
    if failovers:
        back = over(cluster, "failback", CENTRAL, began_us)
        assert back is not None
        assert back["state"] == "closed", back["why"]


@dataclass
class Asking:
    """Clients of a place that read and write records of a zone all the time, through the edge."""

    cluster: Cluster
    place: str
    zone: str
    regions: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def _run(self, method: str) -> None:
        with client(self.cluster, self.place, self.zone) as http:
            while not self._stop.is_set():
                body = {"json": {"name": "Acme"}} if method == "POST" else {}
                try:
                    answer = http.request(method, "/api/v1/tenants", **body)
                except httpx.HTTPError as error:
                    self.failures.append(f"{method}: {error!r}")
                else:
                    if answer.is_success:
                        self.regions.append(answer.headers["x-acgs2-region"])
                    else:
                        self.failures.append(f"{method}: {answer.status_code} {reference(answer)}")
                self._stop.wait(0.1)

    @contextmanager
    def running(self) -> Iterator[Asking]:
        threads = [threading.Thread(target=self._run, args=(method,)) for method in ("GET", "POST")]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()


@contextmanager
def client(cluster: Cluster, place: str, zone: str) -> Iterator[httpx.Client]:
    """Give a client that is in a place and asks about a zone."""
    found = cluster.state
    key, now_s = found.path / "secrets" / "signing.json", int(time.time())
    token = mint(key, "test", "operator", found.topology.name, now_s)
    headers = {"authorization": f"Bearer {token}", "x-data-sovereignty": zone}
    trust = ssl.create_default_context(cafile=found.trust)
    url = found.edge_url(place)
    with httpx.Client(base_url=url, verify=trust, trust_env=False, headers=headers, timeout=20) as http:
        yield http


def answers(http: httpx.Client) -> list[str]:
    """Return what a read and a write of a zone are answered: by which region, or which problem."""
    found = [http.get("/api/v1/tenants"), http.post("/api/v1/tenants", json={"name": "Acme"})]
    return [a.headers["x-acgs2-region"] if a.is_success else f"{a.status_code} {reference(a)}" for a in found]


def test_a_zone_whose_regions_are_all_dead_stops_and_no_other_does(cluster: Cluster) -> None:
    whole(cluster)
    nowhere = ["503 no-lawful-target"] * 2
    began_us = time.time_ns() // 1000
    with (
        Asking(cluster, "new-york", "us").running() as us,
        Asking(cluster, "singapore", "sg").running() as sg,
        client(cluster, "dublin", "eu") as dublin,
        client(cluster, "frankfurt", "eu") as frankfurt,
    ):
        await_that(lambda: len(us.regions) > 20 and len(sg.regions) > 20, "answers")
        assert answers(dublin) == [WEST, WEST]
        for region in (WEST, CENTRAL):
            cluster.ask("kill", region=region, component="all")
        try:
            await_that(
                lambda: answers(dublin) == nowhere, "the edge to say that there is no lawful target", 30
            )
            await_that(lambda: answers(frankfurt) == nowhere, "the edge to say the same there", 5)
            left = [
                await_that(lambda r=r: over(cluster, "failover", r, began_us), f"{r} to be left", 120)
                for r in (WEST, CENTRAL)
            ]
            for plan in left:
                assert plan["state"] == "closed", plan["why"]
                said = [n["said"] for n in plan["notes"] if plan["steps"][n["step"]]["kind"] == "verify"]
                assert said == ["503 no-lawful-target"]
            before = len(us.regions), len(sg.regions)
            for _ in range(10):
                assert answers(dublin) == answers(frankfurt) == nowhere
                assert governs(cluster, US), "three of five voters are a majority"
                assert governs(cluster, SG)
            await_that(lambda: len(us.regions) > before[0] and len(sg.regions) > before[1], "answers")
            for region in (WEST, CENTRAL):
                found = [
                    p["why"] for p in plans(cluster, region, began_us).values() if p["kind"] == "failover"
                ]
                assert len(found) == 1, f"{region} is dead all the time: {found}"
        finally:
            for region in (WEST, CENTRAL):
                cluster.ask("start", region=region, component="all")
        eu = await_that(lambda: (a := answers(dublin)) and {*a} <= {WEST, CENTRAL} and a, "the eu again", 90)
        print(f"the eu is served again by {eu}")
        whole(cluster)
    assert (us.failures, sg.failures) == ([], [])
    assert ({*us.regions}, {*sg.regions}) == ({US}, {SG})


def amended(cluster: Cluster, path: Path) -> int:
    """Amend the constitution by the command line; return the version that is in force then."""

    def run(*arguments: str) -> str:
        done = command("constitution", *arguments, state=cluster.state.path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    document = yaml.safe_load(run("show", "--yaml"))
    wanted, paper, version = path / "next.yaml", str(path / "amendment.json"), document["version"] + 1
    changed = {**document, "preamble": f"As amended, version {version}.", "version": version}
    wanted.write_text(yaml.safe_dump(changed), encoding="utf-8")
    run("propose", str(wanted), "--out", paper)
    for signer in document["amendment"]["amenders"][: document["amendment"]["approvals"]]:
        run("sign", paper, "--as", signer["name"], "--yes")
    run("submit", paper)
    return int(version)


@contextmanager
def unable_to_note(cluster: Cluster, region: str) -> Iterator[None]:
    """Have a region go on by the constitution that it has: it cannot note another one, so it takes none over."""
    with psycopg.connect(cluster.state.dsn(region, "postgres")) as conn:
        conn.execute(b"LOCK TABLE acgs.in_force IN EXCLUSIVE MODE")
        yield


def version_of(cluster: Cluster, region: str) -> int:
    return int(health(cluster, region)["governance"]["versions"].get("constitution", 0))


def test_a_region_with_an_older_constitution_is_not_let_in_before_it_has_the_one_in_force(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Whoever leads is behind as well: what is in force is not what it goes by itself."""
    whole(cluster)
    leader = state(cluster)["leader"]
    region = next(r for r in (CENTRAL, WEST) if r != leader)
    old, began_us = version_of(cluster, region), time.time_ns() // 1000
    cluster.ask("kill", region=region, component="gateway")
    try:
        with unable_to_note(cluster, region), unable_to_note(cluster, leader):
            await_that(lambda: over(cluster, "failover", region, began_us), "it to be left", 60)
            new = amended(cluster, tmp_path)
            assert new == old + 1
            cluster.ask("start", region=region, component="gateway")
            says = f"it goes by version {old} of constitution; {new} is in force"
            # All else that it waits for comes about, and it is not let in all the same.
            await_that(lambda: state(cluster)["waits_for"].get(region) == says, "it to lack no more", 60)
            assert version_of(cluster, region) == old
            plan = begun(cluster, "failback", region, began_us)
            assert plan is not None
            assert plan["state"] == "open"
            assert plan["steps"][plan["at"]]["kind"] == "readmit"
            assert region in state(cluster)["agreed"]["traffic"]["down"]
    finally:
        cluster.ask("start", region=region, component="gateway")
    back = await_that(lambda: over(cluster, "failback", region, began_us), "it to be let in", 60)
    assert back["state"] == "closed", back["why"]
    assert version_of(cluster, region) == new
    whole(cluster)
