"""No body ever reaches a region that may not have it: asked of whoever receives, not of whoever sends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

import pytest
from tests.cluster.conftest import await_that
from tests.cluster.front.stage import Answer, Mode, Stage, builtin, staged

from acgs2.model import entities
from acgs2.model.entity import Residency
from acgs2.residency import decide, register_of

WEST, CENTRAL, US, SG = "eu-west-1", "eu-central-1", "us-east-1", "ap-southeast-1"
OURS = {f"/api/v1/{e.path}": e for e in entities().values() if e.residency is Residency.ZONE}
ID = "018f0000-0000-7000-8000-000000000001"
PATHS = [
    *(path + end for path, end in zip(OURS, itertools.cycle(["", f"/{ID}", f"/{ID}/x?y=z"]), strict=False)),
    "/api/v1/agentsx",
    "/api/v1//users",
    "/api/v1/x/../users",
    "/api/other",
    "/",
]
METHODS = ["POST", "PUT", "PATCH", "DELETE"]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    # A region that falls silent, or comes back, is found out sooner than with the usual figures.
    text = builtin("local").replace(
        "interval_s: 1, failures: 3, successes: 5", "interval_s: 0.5, failures: 2, successes: 2"
    )
    with staged(f"{text}front: {{limits: {{per_try_s: 25}}}}\n") as running:
        yield running


@dataclass(frozen=True)
class Sent:
    zone: str
    path: str
    method: str
    preference: str
    place: str
    token: str
    answer: Answer


def lawful(stage: Stage, zone: str, path: str) -> frozenset[str]:
    """Return who may have a body: as the register says of the entity, or of all entities."""
    register, now = register_of(stage.topology), datetime.now(UTC)
    about = [e for begin, e in OURS.items() if path.replace("//", "/").replace("x/../", "").startswith(begin)]
    about = [] if path.startswith("/api/v1/agentsx") else about
    wanted = about or [e for e in OURS.values() if not e.managed]
    return frozenset.intersection(*(frozenset(decide(e.name, zone, register, now).residency) for e in wanted))


def send_all(stage: Stage, preferences: list[str], paths: list[str]) -> list[Sent]:
    """Send a body for every zone, path and preference from every place; the methods go round."""

    def from_place(number: int, place: str) -> list[Sent]:
        client, found = stage.client(place), []
        methods = itertools.cycle(METHODS[number % 4 :] + METHODS[: number % 4])
        for zone, path, preference in itertools.product(stage.topology.zones, paths, preferences):
            token, method = f"token-{uuid4().hex}", next(methods)
            headers = {"x-data-sovereignty": zone} | (
                {"x-region-preference": preference} if preference else {}
            )
            answer = client.send(method, path, headers, f'{{"name": "{token}"}}'.encode())
            found.append(Sent(zone, path, method, preference, place, token, answer))
        client.close()
        return found

    with ThreadPoolExecutor(len(stage.topology.places)) as pool:
        return [
            sent
            for several in pool.map(from_place, itertools.count(), stage.topology.places)
            for sent in several
        ]


def check(stage: Stage, sent: list[Sent]) -> None:
    """Nobody has seen what it may not hold; whoever was refused was told why."""
    seen = {region: recorder.tokens() for region, recorder in stage.recorders.items()}
    for one in sent:
        holders = {region for region, tokens in seen.items() if one.token in tokens}
        assert holders <= lawful(stage, one.zone, one.path), one
        if one.answer.status == 200:
            assert holders, one
        else:
            assert one.answer.problem in (
                "region-not-lawful",
                "region-unknown",
                "no-lawful-target",
                "region-away",
            ), one
            assert one.answer.status in (400, 403, 503), one


def test_no_body_reaches_a_region_outside_its_zone(stage: Stage) -> None:
    preferences = ["", "auto", *stage.topology.regions, "mars-east-1"]
    sent = send_all(stage, preferences, PATHS)
    check(stage, sent)
    seen = {region: recorder.tokens() for region, recorder in stage.recorders.items()}
    stacks = set(stage.topology.stacks())
    for one in sent:
        allowed = lawful(stage, one.zone, one.path) & stacks
        holders = {region for region, tokens in seen.items() if one.token in tokens}
        if one.preference in ("", "auto"):
            assert (one.answer.status, len(holders)) == (200, 1), one
        elif one.preference in allowed:
            assert (one.answer.status, holders) == (200, {one.preference}), one
        elif one.preference in stacks:
            assert (one.answer.status, one.answer.problem) == (403, "region-not-lawful"), one
        elif one.preference not in stage.topology.regions:
            assert (one.answer.status, one.answer.problem) == (400, "region-unknown"), one
        else:
            assert one.answer.status in (400, 403), one
    # The matrix says something only if everybody who may hold a zone's data had some of it.
    for zone in stage.topology.zones:
        had = {r for r, tokens in seen.items() for one in sent if one.zone == zone and one.token in tokens}
        assert had == {r for path in PATHS for r in lawful(stage, zone, path)} & stacks


def send(stage: Stage, place: str, method: str, path: str, **headers: str) -> tuple[Answer, set[str]]:
    """Send one body; return the answer, and who has seen it."""
    token = f"token-{uuid4().hex}"
    client = stage.client(place)
    named = {"x-data-sovereignty": "eu"} | {k.replace("_", "-"): v for k, v in headers.items()}
    answer = client.send(method, path, {k: v for k, v in named.items() if v}, token.encode())
    client.close()
    return answer, {r for r, recorder in stage.recorders.items() if token in recorder.tokens()}


@pytest.mark.parametrize(
    ("zone", "problem"),
    [("", "zone-missing"), ("EU", "zone-unknown"), ("us,eu", "zone-unknown"), ("mars", "zone-unknown")],
)
@pytest.mark.parametrize(
    "path", ["/api/v1/users", f"/api/v1/users/{ID}", "/api/v1//users", "/", "/api/users"]
)
@pytest.mark.parametrize("method", ["POST", "PATCH", "PROPPATCH"])
def test_a_body_without_a_zone_goes_nowhere(
    stage: Stage, zone: str, problem: str, path: str, method: str
) -> None:
    answer, seen = send(stage, "new-york", method, path, x_data_sovereignty=zone)
    assert seen == set()
    # Envoy itself knows no methods beyond the usual ones.
    assert answer.status == 400
    if method != "PROPPATCH":
        assert answer.problem == problem


def test_a_zone_that_is_named_twice_is_none(stage: Stage) -> None:
    connection = stage.client("new-york").connection
    connection.putrequest("POST", "/api/v1/users")
    for name, value in (("x-data-sovereignty", "us"), ("x-data-sovereignty", "eu"), ("content-length", "2")):
        connection.putheader(name, value)
    connection.endheaders(b"{}")
    answer = connection.getresponse()
    assert answer.status == 400
    assert b"zone-unknown" in answer.read()
    connection.close()


@contextmanager
def mode(stage: Stage, region: str, mode: Mode) -> Iterator[None]:
    stage.recorders[region].mode = mode
    try:
        yield
    finally:
        stage.recorders[region].release()


@pytest.mark.parametrize(
    ("how", "method", "path", "headers", "status", "seen"),
    [
        # What may be done twice is tried at the next lawful region, whatever became of it at the first.
        ("reset", "GET", "/api/v1/users", {}, 200, {WEST, CENTRAL}),
        ("reset", "POST", "/api/v1/users", {"idempotency_key": "k"}, 200, {WEST, CENTRAL}),
        ("reset", "DELETE", f"/api/v1/users/{ID}", {}, 200, {WEST, CENTRAL}),
        # What may not, is not.
        ("reset", "POST", "/api/v1/users", {}, 503, {WEST}),
        ("reset", "PATCH", f"/api/v1/users/{ID}", {}, 503, {WEST}),
        ("reset", "POST", "/api/v1/configs", {"idempotency_key": "k"}, 503, {WEST}),
        # Nor does it go to a region that was not asked for.
        (
            "reset",
            "POST",
            "/api/v1/users",
            {"idempotency_key": "k", "x_region_preference": WEST},
            503,
            {WEST},
        ),
        # A region that says that it stored nothing may be passed over by every write but a versioned one.
        ("nothing-stored", "POST", "/api/v1/users", {}, 200, {WEST, CENTRAL}),
        ("nothing-stored", "PATCH", f"/api/v1/users/{ID}", {}, 200, {WEST, CENTRAL}),
        ("nothing-stored", "POST", "/api/v1/configs", {}, 503, {WEST}),
    ],
)
def test_what_is_tried_again_stays_in_its_zone(
    stage: Stage, how: Mode, method: str, path: str, headers: dict[str, str], status: int, seen: set[str]
) -> None:
    with mode(stage, WEST, how):
        answer, saw = send(stage, "dublin", method, path, **headers)
    assert saw == seen
    assert answer.status == status
    if status == 503 and how == "reset":
        assert answer.problem == "outcome-unknown"


@pytest.mark.parametrize(("key", "status"), [("k", 200), ("", 503)])
def test_what_is_under_way_to_a_region_that_falls_silent_goes_to_the_next(
    stage: Stage, key: str, status: int
) -> None:
    with mode(stage, WEST, "hold"), ThreadPoolExecutor() as pool:
        sent = pool.submit(send, stage, "dublin", "POST", "/api/v1/users", idempotency_key=key)
        await_that(lambda: stage.recorders[WEST].under_way, "the request to arrive")
        stage.gateways[WEST].freeze()
        try:
            # Long before a try has taken its time: as soon as probes say so.
            answer, saw = sent.result(15)
        finally:
            stage.gateways[WEST].thaw()
    assert answer.status == status
    assert saw == ({WEST, CENTRAL} if key else {WEST})
    if not key:
        assert answer.problem == "outcome-unknown"
    await_that(lambda: send(stage, "dublin", "POST", "/api/v1/users")[1] == {WEST}, "the region to be back")


def test_no_body_reaches_a_region_outside_its_zone_while_others_are_down(stage: Stage) -> None:
    paths, preferences = ["/api/v1/users", "/api/v1/tenants", f"/api/v1/configs/{ID}", "/x"], ["", WEST, US]
    try:
        for region in (WEST, CENTRAL, US, SG):
            stage.kill(region)
            sent = send_all(stage, preferences, paths)
            check(stage, sent)
            # Other zones go on.
            answered = {one.zone for one in sent if one.answer.status == 200 and not one.preference}
            assert (
                answered == {WEST: {"eu", "us", "sg"}, CENTRAL: {"us", "sg"}, US: {"sg"}, SG: set()}[region]
            )
        # As soon as that is known.
        for zone in stage.topology.zones:
            ask = partial(send, stage, "dublin", "POST", "/api/v1/users", x_data_sovereignty=zone)
            await_that(lambda a=ask: a()[0].problem == "no-lawful-target", "the answer that nobody is well")
    finally:
        for region in stage.gateways:
            stage.open(region)
    for place, region in (("dublin", WEST), ("frankfurt", CENTRAL)):
        await_that(
            lambda p=place, r=region: send(stage, p, "POST", "/api/v1/users")[1] == {r},
            f"{region} to be back",
        )
