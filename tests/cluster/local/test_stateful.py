"""Random writes and erasures in three regions under random faults; then everything is judged from outside."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
import psycopg
import pytest
from tests.cluster.conftest import await_that

from acgs2.api.tokens import mint
from acgs2.drill.checker import agreement, misplaced
from acgs2.local.cluster import Cluster

STEPS = int(os.environ.get("ACGS2_STEPS", "120"))
SEEDS = [int(s) for s in os.environ.get("ACGS2_SEEDS", "1,2").split(",")]
REGIONS = ("eu-west-1", "eu-central-1", "us-east-1")
WRITERS = {"all": REGIONS, "eu": REGIONS[:2], "us": ("us-east-1", "eu-west-1")}


@dataclass
class Model:
    """What the clients were told; `maybe` counts what had no answer and may have been done."""

    tenants: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    maybe_erased: set[str] = field(default_factory=set)
    counted: dict[str, int] = field(default_factory=dict)
    maybe: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    refused: int = 0


class World:
    """The cluster under test, with what was done to it."""

    def __init__(self, cluster: Cluster, rng: Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.model = Model()
        self.dead: set[str] = set()
        self.cut: set[tuple[str, str]] = set()
        self.done: list[str] = []
        token = mint(
            cluster.state.path / "secrets" / "signing.json", "state", "operator", "trio", int(time.time())
        )
        self.http = httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=8)

    def send(self, method: str, region: str, zone: str, path: str, body: Any = None) -> httpx.Response | None:
        try:
            answer = self.http.request(
                method,
                f"{self.cluster.state.url(region)}/api/v1/{path}",
                json=body,
                headers={"x-data-sovereignty": zone},
            )
        except httpx.HTTPError:
            return None
        assert answer.status_code not in (400, 500), answer.text
        if answer.status_code < 300:
            self.model.acknowledged += 1
        else:
            self.model.refused += 1
        return answer

    def create(self) -> None:
        zone = self.rng.choice(sorted(self.model.tenants))
        answer = self.send(
            "POST",
            self.rng.choice(WRITERS[zone]),
            zone,
            "users",
            {"tenant_id": self.model.tenants[zone], "display_name": f"P{self.rng.random()}"},
        )
        if answer is not None and answer.status_code == 201:
            self.model.users[answer.json()["id"]] = zone

    def change(self) -> None:
        if not self.model.users:
            return
        user, zone = self.rng.choice(sorted(self.model.users.items()))
        answer = self.send(
            "PATCH",
            self.rng.choice(WRITERS[zone]),
            zone,
            f"users/{user}",
            {"login_count": {"increment": 1}, "display_name": f"N{self.rng.random()}"},
        )
        if answer is not None and answer.status_code == 200:
            self.model.counted[user] = self.model.counted.get(user, 0) + 1
        elif answer is None or answer.status_code == 503:
            self.model.maybe[user] = self.model.maybe.get(user, 0) + 1

    def erase(self) -> None:
        if not self.model.users:
            return
        user, zone = self.rng.choice(sorted(self.model.users.items()))
        answer = self.send("DELETE", self.rng.choice(WRITERS[zone]), zone, f"users/{user}")
        if answer is not None and answer.status_code == 204:
            self.model.erased.add(user)
        elif answer is None or answer.status_code == 503:
            self.model.maybe_erased.add(user)

    def cut_link(self) -> None:
        a, b = self.rng.sample(REGIONS, 2)
        one_way = self.rng.random() < 0.3
        self.cluster.link("cut", a, b, one_way=one_way)
        self.cut.add((a, b))
        self.done.append(f"cut {a} {b} one_way={one_way}")

    def restore_link(self) -> None:
        if self.cut:
            a, b = self.cut.pop()
            self.cluster.link("restore", a, b, reset=self.rng.random() < 0.5)
            self.done.append(f"restore {a} {b}")

    def kill(self) -> None:
        if len(self.dead) < 2:
            region = self.rng.choice([r for r in REGIONS if r not in self.dead])
            self.cluster.ask("kill", region=region)
            self.dead.add(region)
            self.done.append(f"kill {region}")

    def start(self) -> None:
        if self.dead:
            region = self.dead.pop()
            self.cluster.ask("start", region=region)
            self.done.append(f"start {region}")

    def heal(self) -> None:
        while self.dead:
            self.start()
        for a, b in (
            ("eu-west-1", "eu-central-1"),
            ("eu-west-1", "us-east-1"),
            ("eu-central-1", "us-east-1"),
        ):
            self.cluster.link("restore", a, b)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken_under_random_faults(cluster: Cluster, seed: int) -> None:
    world = World(cluster, Random(seed))
    print(f"replay with ACGS2_SEEDS={seed} ACGS2_STEPS={STEPS}")
    for zone in WRITERS:
        made = await_that(
            lambda z=zone: (
                (a := world.send("POST", WRITERS[z][0], z, "tenants", {"name": z})) is not None
                and a.status_code == 201
                and a
            ),
            "a tenant",
        )
        world.model.tenants[zone] = made.json()["id"]
    steps = (
        [world.create] * 8
        + [world.change] * 10
        + [world.erase, world.cut_link, world.restore_link, world.kill, world.start, world.start]
    )
    for _ in range(STEPS):
        world.rng.choice(steps)()
    world.heal()
    databases = {r: psycopg.connect(cluster.state.dsn(r, "acgs_owner"), autocommit=True) for r in REGIONS}
    try:
        await_that(lambda: not agreement(databases), f"agreement after {world.done}", timeout_s=60)
        judge(world.model, databases)
    finally:
        for conn in databases.values():
            conn.close()
    assert world.model.acknowledged > STEPS / 4, "too little got through to mean anything"
    assert any(step.startswith(("kill", "cut")) for step in world.done)


def judge(model: Model, databases: dict[str, psycopg.Connection[Any]]) -> None:
    """Compare what every region holds with what clients were told."""
    assert misplaced(databases) == []
    for user, zone in model.users.items():
        for region in WRITERS[zone]:
            row = (
                databases[region]
                .execute(b"SELECT erased, login_count FROM acgs.user_profile WHERE key = %s", (user,))
                .fetchone()
            )
            assert row is not None, f"{user} was acknowledged and is not in {region}"
            if user in model.erased:
                assert row[0], f"{user} was erased and is back in {region}"
            elif user not in model.maybe_erased:
                assert not row[0]
                counted = model.counted.get(user, 0)
                assert counted <= row[1] <= counted + model.maybe.get(user, 0)
