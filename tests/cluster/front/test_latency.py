"""`acgs2 latency` as its user sees it: what clients wait, what is beside it, and when it says no."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cluster.conftest import await_that, finish, folder

from acgs2.api.tokens import mint
from acgs2.local.cluster import Cluster, up
from acgs2.local.loopback import loopback

WEST = "eu-west-1"
#: One region is a whole topology too.
TOPOLOGY = """
name: waiting
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1]}
places:
  dublin: {location: [53.35, -6.26], zone: eu, access_ms: 10}
  new-york: {location: [40.71, -74.01], access_ms: 10}
links:
  - {a: dublin, b: eu-west-1, rtt_ms: 4}
  - {a: new-york, b: eu-west-1, rtt_ms: 70}
objectives: {p99_ms: 1000}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with folder() as path:
        (path / "waiting.yaml").write_text(TOPOLOGY, encoding="utf-8")
        running = up(path / "waiting.yaml", path / "state")
        try:
            yield running
        finally:
            finish(running)


def latency(state: Path, *arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "acgs2.cli", "latency", "--requests", "5", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "ACGS2_STATE": str(state)},
    )
    return done.returncode, json.loads(done.stdout or done.stderr)


def call(cluster: Cluster, region: str, method: str, path: str, body: Any = None) -> httpx.Response:
    key = cluster.state.path / "secrets" / "signing.json"
    token = mint(key, "test", "operator", "waiting", int(time.time()))
    headers = {"authorization": f"Bearer {token}"}
    return loopback().request(method, cluster.state.url(region) + path, headers=headers, json=body)


def tenants(cluster: Cluster, region: str) -> list[Any]:
    return call(cluster, region, "GET", "/api/v1/tenants").json()["items"]  # type: ignore[no-any-return]


def test_no_answer_is_faster_than_its_distance(cluster: Cluster) -> None:
    status, found = latency(cluster.state.path)
    assert (status, found["well"], found["objective_p99_ms"]) == (0, True, 1000), found
    assert [(p["place"], p["zone"], p["regions"]) for p in found["pairs"]] == [
        ("dublin", "eu", {WEST: 5}),
        ("new-york", "eu", {WEST: 5}),
    ]
    own, other = found["pairs"]
    assert (own["link_ms"], other["link_ms"]) == (14, 80)
    # The links' own jitter is a tenth of their length.
    assert own["link_ms"] * 0.8 < own["p50_ms"] <= own["p99_ms"] <= own["max_ms"]
    assert other["link_ms"] * 0.8 < other["p50_ms"]
    assert (own["kept"], other["kept"]) == (True, None)


def test_what_is_written_is_erased(cluster: Cluster) -> None:
    status, found = latency(cluster.state.path, "--writes", "--place", "dublin")
    assert (status, found["writes"], [p["answered"] for p in found["pairs"]]) == (0, True, [5]), found
    assert [p["left"] for p in found["pairs"]] == [0]
    assert tenants(cluster, WEST) == []


def test_a_zone_without_a_region_and_a_cluster_that_is_not_there_are_said(cluster: Cluster) -> None:
    assert latency(cluster.state.path, "--zone", "mars")[0] == 2
    drained = call(cluster, WEST, "POST", "/api/v1/traffic", {"region": WEST, "down": True})
    assert (drained.status_code, drained.json()["down"]) == (200, [WEST]), drained.text
    trust = ssl.create_default_context(cafile=cluster.state.trust)
    with httpx.Client(base_url=cluster.state.edge_url("dublin"), verify=trust, trust_env=False) as http:
        asked = {"x-data-sovereignty": "eu"}
        empty = lambda: http.get("/api/v1/tenants", headers=asked).status_code == 503  # noqa: E731
        await_that(empty, "the edge to send the region nothing")
    status, found = latency(cluster.state.path, "--place", "dublin")
    [own] = found["pairs"]
    assert (status, found["well"], own["kept"], own["answered"]) == (1, False, False, 0)
    assert own["failures"] == {"503 no-lawful-target": 5}
    cluster.down()
    assert latency(cluster.state.path)[0] == 5
    assert latency(cluster.state.path / "nothing")[0] == 5
