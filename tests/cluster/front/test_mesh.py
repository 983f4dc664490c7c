"""Who knows whom: between regions, and between the edge and a region, only by the right certificate."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from tests.cluster.conftest import await_that, folder
from tests.cluster.front.stage import SMALL, Recorder, Stage, staged

from acgs2.local import pki
from acgs2.local.pki.files import names_in
from acgs2.local.proxies import Proxies

WEST, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged(SMALL + "failover: {interval_s: 0.5, failures: 2, successes: 2}\n") as running:
        yield running


@pytest.fixture(scope="module")
def database(stage: Stage) -> Iterator[Recorder]:
    """What stands where a region's database would."""
    made = Recorder(stage.loop, stage.state.ports[f"postgres/{WEST}"])
    made.listen()
    yield made
    made.drop()


def of(folder: Path) -> tuple[Path, Path]:
    files = names_in((folder / "secret.json").read_bytes())
    return folder / files["certificate_chain"], folder / files["private_key"]


@pytest.fixture(scope="module")
def identities(stage: Stage) -> Iterator[dict[str, tuple[Path, Path] | None]]:
    tls, domain, now = stage.state.tls, stage.topology.domain, datetime.now(UTC)
    with folder() as path:
        other = path / "other"
        pki.ensure(other, domain, stage.topology.regions, now)
        long_ago = now - timedelta(days=30)
        old = pki.probe(tls, domain, US, long_ago, 1, life=timedelta(days=10))
        (path / "old.pem").write_bytes(old.certificate_pem())
        (path / "old.key").write_bytes(old.key_pem())
        yield {
            "a region": of(tls / US),
            "the edge": of(tls / "edge"),
            "nobody": None,
            "another authority's region": of(other / US),
            "another authority's edge": of(other / "edge"),
            "an expired region": (path / "old.pem", path / "old.key"),
        }


def says(port: int, server_name: str, identity: tuple[Path, Path] | None, text: str) -> None:
    """Say something to who listens there, and wait until it answers, or ends the connection."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if identity is not None:
        context.load_cert_chain(*identity)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=server_name) as secured,
        ):
            secured.sendall(text.encode())
            secured.recv(1)
    except (ssl.SSLError, ConnectionError):
        pass  # refused in the middle of a word


@pytest.mark.parametrize(
    ("name", "who", "accepted"),
    [
        ("database", "a region", True),
        ("database", "the edge", False),
        ("database", "nobody", False),
        ("database", "another authority's region", False),
        ("database", "another authority's edge", False),
        ("database", "an expired region", False),
        ("api", "a region", False),  # a name that the mesh does not go by
    ],
)
def test_only_regions_get_to_a_database(
    stage: Stage,
    database: Recorder,
    identities: dict[str, tuple[Path, Path] | None],
    name: str,
    who: str,
    accepted: bool,
) -> None:
    token = f"token-{uuid4().hex}"
    # The recorder answers what looks like a request of HTTP.
    text = f"GET /{token} HTTP/1.1\r\n\r\n"
    says(stage.state.ports[f"mesh/{WEST}"], f"{name}.{WEST}", identities[who], text)
    assert (token in database.tokens()) is accepted


@pytest.mark.parametrize(
    ("who", "path", "accepted"),
    [
        ("a region", "/health/", True),
        ("a region", "/api/v1/", False),
        ("the edge", "/health/", False),
        ("nobody", "/health/", False),
        ("another authority's region", "/health/", False),
        ("an expired region", "/health/", False),
    ],
)
def test_only_regions_are_told_of_a_region_s_health_and_nothing_else(
    stage: Stage, identities: dict[str, tuple[Path, Path] | None], who: str, path: str, accepted: bool
) -> None:
    token = f"token-{uuid4().hex}"
    text = f"GET {path}{token} HTTP/1.1\r\nhost: localhost\r\n\r\n"
    says(stage.state.ports[f"mesh/{WEST}"], f"gateway.{WEST}", identities[who], text)
    assert (token in stage.recorders[WEST].tokens()) is accepted


def test_nothing_in_the_clear_gets_to_a_database(stage: Stage, database: Recorder) -> None:
    token = f"token-{uuid4().hex}"
    with socket.create_connection(("127.0.0.1", stage.state.ports[f"mesh/{WEST}"]), timeout=10) as plain:
        plain.sendall(f"GET /{token} HTTP/1.1\r\n\r\n".encode())
        with suppress(ConnectionError):
            assert plain.recv(100) == b""
    assert token not in database.tokens()


@pytest.mark.parametrize(
    ("name", "who", "accepted"),
    [
        ("edge", "the edge", True),
        ("edge", "a region", False),
        ("edge", "nobody", False),
        ("edge", "another authority's edge", False),
        ("api", "nobody", True),
    ],
)
def test_nobody_else_is_taken_for_the_edge(
    stage: Stage, identities: dict[str, tuple[Path, Path] | None], name: str, who: str, accepted: bool
) -> None:
    token = f"token-{uuid4().hex}"
    text = f"GET /{token} HTTP/1.1\r\nhost: localhost\r\n\r\n"
    says(stage.state.ports[f"gateway/{WEST}"], f"{name}.{WEST}", identities[who], text)
    assert (token in stage.recorders[WEST].tokens()) is accepted


def test_the_edge_does_not_take_one_region_for_another(stage: Stage) -> None:
    ports = stage.state.ports | {f"route/dublin/{WEST}": stage.state.ports[f"gateway/{US}"]}
    Proxies(replace(stage.state, ports=ports)).tell_edge(stage.traffic)
    client = stage.client("dublin")
    token = f"token-{uuid4().hex}"

    def by_west() -> int:
        asked = {"x-data-sovereignty": "eu", "x-region-preference": WEST, "idempotency-key": "k"}
        return client.send("POST", "/api/v1/users", asked, token.encode()).status

    await_that(lambda: by_west() == 503, "the edge to find another region there")
    token = f"token-{uuid4().hex}"
    for _ in range(5):
        assert by_west() == 503
    next_one = client.send("POST", "/api/v1/users", {"x-data-sovereignty": "eu"}, b"{}")
    assert next_one.headers["x-acgs2-region"] == CENTRAL
    assert not any(token in recorder.tokens() for recorder in stage.recorders.values())
    client.close()
