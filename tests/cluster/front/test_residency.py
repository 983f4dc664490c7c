"""No body ever reaches a region that may not have it: asked of whoever receives, not of whoever sends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from tests.cluster.front.stage import Answer, Stage, builtin, staged

from acgs2.model import entities
from acgs2.model.entity import Residency
from acgs2.residency import decide, register_of

WEST, CENTRAL, US, SG = "eu-west-1", "eu-central-1", "us-east-1", "ap-southeast-1"
OURS = {f"/api/v1/{e.path}": e for e in entities().values() if e.residency is Residency.ZONE}
ID = uuid4()
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
    # Probed so often that a region that comes back is used again soon.
    with staged(builtin("local").replace("interval_s: 1,", "interval_s: 0.2,")) as running:
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
    about = [
        e for begin, e in OURS.items() if path.replace("//", "/").replace("x/../", "").startswith(begin)
    ]
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
            headers = {"x-data-sovereignty": zone} | ({"x-region-preference": preference} if preference else {})
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
            assert one.answer.problem in ("region-not-lawful", "region-unknown", "no-lawful-target", "region-away"), one
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
