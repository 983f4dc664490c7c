"""Bad input at the edge and at a gateway: it is refused with words, nothing is stored, others are answered."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cluster.conftest import finish, folder
from tests.cluster.front.beside import NAME, Beside
from tests.cluster.front.forged import tokens
from tests.cluster.front.malformed import BODIES, CHUNKS, HARMLESS, HEADS, NAMES, PATHS, Case
from tests.cluster.front.raw import CLOSED, Caller, Door, answer_on, bearer, post, request
from tests.cluster.front.wire import HTTP2, NO_TLS, goes_on, hello_of, rest_of

from acgs2.api.tokens import mint
from acgs2.local.cluster import Cluster, up

WEST, US, WITNESS = "eu-west-1", "us-east-1", "ca-central-1"
#: Clients are near, and those that are slow are slow soon.
TOPOLOGY = """
name: doors
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
  us-east-1: {country: US}
  ca-central-1: {country: CA, role: witness}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1]}
  us: {regulation: ccpa, regions: [us-east-1]}
places:
  near: {location: [53.35, -6.26], access_ms: 0}
links:
  - {a: near, b: eu-west-1, rtt_ms: 0}
  - {a: eu-west-1, b: us-east-1, rtt_ms: 1}
front:
  limits: {per_try_s: 3, timeout_s: 4}
  clients: {handshake_s: 1.5, headers_s: 1.5, request_s: 2, silence_s: 4.5}
"""


@dataclass
class Place:
    """A cluster, its ways in, and who behaves well."""

    cluster: Cluster
    doors: list[Door]
    beside: Beside = field(init=False)

    def token(self, subject: str = "op", role: str = "operator", tenant: str | None = None) -> str:
        state = self.cluster.state
        key = state.path / "secrets" / "signing.json"
        return mint(key, subject, role, state.topology.name, int(time.time()), tenant=tenant, lifetime_s=600)

    def processes(self) -> dict[tuple[str, str], Any]:
        regions = self.cluster.ask("status")["regions"]
        return {
            (r, c["component"]): (c["pid"], c["phase"], c["restarts"])
            for r, cs in regions.items()
            for c in cs
        }

    def stored(self) -> dict[str, int]:
        """Return how many records there are in each region, without those of who behaves well."""
        query = b"SELECT count(*) FROM acgs.tenant WHERE name IS DISTINCT FROM %s"
        found: dict[str, int] = {}
        for region in (WEST, US):
            with psycopg.connect(self.cluster.state.dsn(region, "postgres")) as conn:
                (found[region],) = conn.execute(query, (NAME,)).fetchone() or (0,)
        return found


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with folder() as path:
        (path / "doors.yaml").write_text(TOPOLOGY, encoding="utf-8")
        cluster = up(path / "doors.yaml", path / "state")
        try:
            state = cluster.state
            ports = {"edge": state.ports["client/near"], "gateway": state.ports[f"gateway/{WEST}"]}
            made = Place(cluster, [Door(name, port, state.trust) for name, port in ports.items()])
            with Beside(made.doors, made.token) as made.beside:
                yield made
        finally:
            finish(cluster)


@pytest.fixture(params=["edge", "gateway"])
def door(place: Place, request: pytest.FixtureRequest) -> Door:
    return next(d for d in place.doors if d.name == request.param)


@pytest.fixture(autouse=True)
def others(place: Place) -> Iterator[None]:
    """Nobody else notices anything, nothing is stored, and no process ended."""
    processes, stored = place.processes(), place.stored()
    yield
    place.beside.judge()
    assert place.processes() == processes
    assert place.stored() == stored


def refused(door: Door, token: str, cases: Mapping[str, Case], method: str = "POST") -> dict[str, str]:
    """Return what was not refused as it has to be, by case."""
    wrong: dict[str, str] = {}
    for name, case in cases.items():
        answer = door.say(case(token), method)
        try:
            answer.refused()
            assert token.encode() not in answer.body
        except AssertionError as error:
            wrong[name] = str(error)
    return wrong


@pytest.mark.parametrize("cases", [HEADS, CHUNKS, BODIES, NAMES], ids=["head", "chunks", "body", "names"])
def test_what_is_no_request_is_refused_with_words(
    place: Place, door: Door, cases: Mapping[str, Case]
) -> None:
    assert refused(door, place.token(), cases) == {}


def test_paths_that_are_none_lead_nowhere(place: Place, door: Door) -> None:
    def asked(path: bytes) -> Case:
        return lambda token: request(path, [(b"Authorization", b"Bearer " + token.encode())])

    assert refused(door, place.token(), {n: asked(p) for n, p in PATHS.items()}, "GET") == {}


def test_metrics_are_nowhere_however_they_are_written(place: Place, door: Door) -> None:
    for path in (
        b"/metrics",
        b"//metrics",
        b"/metrics/",
        b"/metrics/x",
        b"/%6detrics",
        b"/./metrics?x",
        b"/a/../metrics",
    ):
        answer = door.say(request(path, [bearer(place.token())]), "GET")
        assert answer.status == 404, (path, answer)
        assert "openapi" not in answer.problem["hint"], f"{path!r} reached the server"


def test_what_may_be_overlooked_is_read_in_one_way(place: Place, door: Door) -> None:
    for name, case in HARMLESS.items():
        data = case(place.token()).replace(b"evil", b"good").replace(b'"good"', f'"{NAME}"'.encode())
        data = data.replace(b"Content-Length: 16", f"Content-Length: {12 + len(NAME)}".encode())
        answer = door.say(data)
        assert answer.status == 201, (name, answer)
        assert b'"zone":"eu"' in answer.body


SMUGGLING = ("length and chunks", "two lengths", "a list of lengths", "coding twice", "chunk size overflows")


def test_what_comes_after_a_refused_request_is_not_taken_for_another(place: Place, door: Door) -> None:
    token = place.token()
    with ExitStack() as stack:
        socks = [stack.enter_context(door.tls("http/1.1")) for _ in SMUGGLING]
        for sock, name in zip(socks, SMUGGLING, strict=True):
            sock.sendall((HEADS | CHUNKS)[name](token) + post(token))
        for sock in socks:
            assert answer_on(sock).refused()
            assert answer_on(sock).status == 0, "the connection is closed after what cannot be delimited"


def test_the_edge_answers_before_it_reads_a_body(place: Place) -> None:
    edge = place.doors[0]
    for zone, reference in ((b"atlantis", "zone-unknown"), (None, "zone-missing")):
        with edge.tls("http/1.1") as sock:
            sock.sendall(post(place.token(), zone=zone, body=b"", length=b"1000"))
            assert answer_on(sock).refused() == reference


@pytest.mark.parametrize("what", ["head", "body"])
def test_who_is_slow_is_let_go_and_holds_up_nobody(place: Place, door: Door, what: str) -> None:
    # More than may be under way to a region at once.
    head, body = post(place.token(), length=b"16", body=b""), b'{"name": "evil"}'
    began_s = time.monotonic()
    with ExitStack() as stack:
        socks = [stack.enter_context(door.tls("http/1.1")) for _ in range(150)]
        for sock in socks:
            sock.sendall(head[:60] if what == "head" else head + body[:1])
        for n in range(60, 63):
            place.beside.judge()
            for sock in socks:
                sock.sendall(head[n : n + 1] if what == "head" else body[n - 59 : n - 58])
        for sock in socks:
            assert answer_on(sock).refused(closed=True) in ("too-slow", "closed")
    clients = place.cluster.state.topology.front.clients
    assert time.monotonic() - began_s < max(clients.headers_s, clients.request_s) + 8


def test_who_never_reads_is_let_go(place: Place) -> None:
    # Not over the link, which takes in 16 MiB for who is far away.
    state = place.cluster.state
    near = [Door("edge", state.ports["edge/near"], state.trust), place.doors[1]]
    ask = request(b"/openapi.json", []) * 100
    with ExitStack() as stack:
        socks = [stack.enter_context(door.tls("http/1.1")) for door in near for _ in range(10)]
        for sock in socks:
            sock.setblocking(False)
        until_s = time.monotonic() + state.topology.front.clients.silence_s + 10
        while socks:
            assert time.monotonic() < until_s, f"{len(socks)} connections are still open"
            socks = [sock for sock in socks if goes_on(sock, ask)]
            time.sleep(0.02)


def test_what_is_no_handshake_is_closed(place: Place, door: Door) -> None:
    with ExitStack() as stack:
        socks = {name: stack.enter_context(door.tcp()) for name in NO_TLS}
        for name, data in NO_TLS.items():
            socks[name].sendall(data)
        for name, sock in socks.items():
            said = rest_of(sock)
            # An alert, if anything: nothing in clear.
            assert not said or said[:1] == b"\x15", (name, said)


def test_old_tls_and_other_names_and_protocols(place: Place, door: Door) -> None:
    old = door.context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.warns(DeprecationWarning, match="TLS"):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, version
        with pytest.raises((ssl.SSLError, ConnectionError)):
            door.tls(context=old)
    with pytest.raises(ssl.SSLCertVerificationError):
        door.tls(name="bank.example")
    anyone = door.context("acme/9", "http/0.9")
    anyone.check_hostname = False
    for name in ("bank.example", "xn--", "a" * 63 + ".example"):
        # Whatever it is called here, it shows no other certificate and answers as always.
        with door.tls(name=name, context=anyone) as sock:
            sock.sendall(request(b"/api/v1/tenants"))
            assert answer_on(sock, "GET").refused() == "token-missing"


def test_who_comes_again_and_again_and_goes_in_the_middle(place: Place, door: Door) -> None:
    hello, linger = hello_of(door), struct.pack("ii", 1, 0)
    for n in range(200):
        with door.tcp() as sock:
            sock.sendall(hello[: 1 + n * len(hello) // 200])
            if n % 2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    for _ in range(30):
        with door.tls("h2", "http/1.1"):
            pass


def test_http2_that_is_none_ends_the_connection(place: Place, door: Door) -> None:
    with ExitStack() as stack:
        socks = {name: stack.enter_context(door.tls("h2")) for name in HTTP2}
        for name, sock in socks.items():
            with suppress(CLOSED):
                sock.sendall(HTTP2[name])
        for sock in socks.values():
            rest_of(sock)  # It comes to an end: GOAWAY, or none.


def test_tokens_that_say_nothing_are_not_accepted_nor_repeated(place: Place, door: Door) -> None:
    state = place.cluster.state
    wrong = tokens(state.path / "secrets" / "signing.json", state.topology.name, str(uuid4()))
    for name, token in wrong.items():
        for data, method in ((request(b"/api/v1/tenants", [bearer(token)]), "GET"), (post(token), "POST")):
            answer = door.say(data, method)
            assert answer.status == 401, (name, answer)
            assert answer.refused() == ("token-missing" if not token else "token-invalid"), name
            assert answer.headers["www-authenticate"] == "Bearer"
            assert len(token) < 20 or token[-20:].encode() not in answer.body, name
    good = place.token()
    twice = [bearer(good), bearer(good)]
    assert door.say(request(b"/api/v1/tenants", twice), "GET").refused() in (
        "header-repeated",
        "token-invalid",
    )
    logged = b"".join(path.read_bytes() for path in state.logs.iterdir())
    for token in (*wrong.values(), good):
        assert len(token) < 60 or token[20:60].encode() not in logged
        assert len(token) < 60 or token[-40:].encode() not in logged


def test_what_is_another_tenants_is_not_there(place: Place, door: Door) -> None:
    operator = Caller(door, place.token())
    ours, theirs = (operator.ask("POST", "tenants", f'{{"name": "{NAME}"}}').json["id"] for _ in range(2))
    we, they = (Caller(door, place.token("bot", "agent", tenant)) for tenant in (ours, theirs))
    about = f'{{"tenant_id": "{theirs}", "display_name": "Ann"}}'
    user = they.ask("POST", "users", about, idempotency_key="1").json["id"]
    own = f'{{"tenant_id": "{ours}", "display_name": "Bob"}}'
    for answer in (
        we.ask("GET", f"users/{user}"),
        we.ask("PATCH", f"users/{user}", '{"display_name": "Eve"}'),
        we.ask("PATCH", f"users/{user}", '{"display_name": "Eve"}', idempotency_key="2"),
        we.ask("PATCH", f"users/{user}", '{"display_name": "Eve"}', if_match="*"),
        we.ask("DELETE", f"users/{user}"),
        we.ask("DELETE", f"subjects/{user}"),
        we.ask("POST", "users", about),
        we.ask("POST", "users", about, idempotency_key="1"),
        we.ask("POST", "users", about, idempotency_key="3"),
        we.ask("POST", "agents", f'{{"tenant_id": "{theirs}", "name": "spy"}}'),
        we.ask("GET", f"tenants/{theirs}"),
        we.ask(
            "POST",
            "consents",
            f'{{"tenant_id": "{theirs}", "subject_id": "{user}", "to_region": "{US}", "evidence": "x"}}',
        ),
    ):
        assert answer.refused()
        assert answer.status == 404, answer
        assert b"Ann" not in answer.body
    for answer in (
        we.ask("DELETE", f"tenants/{theirs}"),
        we.ask("PATCH", f"tenants/{ours}", '{"name": "x"}'),
    ):
        assert answer.refused() == "operators-only"
    assert we.ask("GET", f"users?tenant={theirs}").json["items"] == []
    assert [t["id"] for t in we.ask("GET", f"tenants?tenant={theirs}").json["items"]] == [ours]
    # A key is its tenant's, although both call their agent the same.
    mine = we.ask("POST", "users", own, idempotency_key="1")
    assert (mine.status, mine.json["tenant_id"]) == (201, ours)
    assert they.ask("GET", f"users/{user}").json["display_name"] == "Ann"


IDLE = 5000


def test_thousands_of_idle_connections_hold_up_nobody(place: Place) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    each = min(IDLE, (hard - 1000) // 2)
    if each < 1000:
        pytest.skip(f"the hard limit of {hard} descriptors is too low")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        asyncio.run(_idle(place, each))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _idle(place: Place, each: int) -> None:
    loop = asyncio.get_running_loop()
    socks: list[socket.socket] = []
    try:
        for door in place.doors:
            for _ in range(each):
                sock = socket.socket()
                socks.append(sock)
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", door.port))
        await asyncio.to_thread(place.beside.judge)
        for door in place.doors:
            answer = await asyncio.to_thread(door.say, request(b"/health/live"), "GET")
            assert answer.status == 200, (door.name, answer)
    finally:
        for sock in socks:
            sock.close()


few = settings(
    max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUE = st.binary(max_size=60).filter(lambda b: not set(b) & {0, 10, 13})


def test_bytes_at_random(place: Place, door: Door) -> None:
    @few
    @given(st.binary(min_size=1, max_size=400))
    def attack(data: bytes) -> None:
        door.say(data + b"\r\n\r\n").refused(closed=True)

    attack()


def test_values_at_random(place: Place, door: Door) -> None:
    token = place.token()
    names = (b"x-data-sovereignty", b"x-region-preference", b"idempotency-key", b"if-match", b"x-request-id")

    @few
    @given(
        st.dictionaries(st.sampled_from(names), VALUE, max_size=3), st.sampled_from((b"tenants", b"users"))
    )
    def attack(values: dict[bytes, bytes], path: bytes) -> None:
        # The body lacks what is required.
        door.say(post(token, values.items(), b"{}", target=b"/api/v1/" + path, zone=None)).refused()
        query = b"?limit=x&" + b"&".join(n + b"=" + v.hex().encode() for n, v in values.items())
        door.say(request(b"/api/v1/" + path + query, [bearer(token), *values.items()]), "GET").refused()

    attack()
