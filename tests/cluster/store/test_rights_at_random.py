"""Rights that begin and end at random while every region writes and links are cut: judged from the databases.

A seed replays: ACGS2_SEEDS=7 ACGS2_STEPS=200 pytest tests/cluster/store/test_rights_at_random.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random
from uuid import UUID

import psycopg
import pytest
from tests.cluster.conftest import Server
from tests.cluster.store.regions import CENTRAL, SG, US, WEST, Regions, regions_of

from acgs2.drill.checker import agreement, misplaced
from acgs2.residency import Consent, Register, TransferRecord, decide

SEEDS = [int(s) for s in os.environ.get("ACGS2_SEEDS", "1,2,3").split(",")]
STEPS = int(os.environ.get("ACGS2_STEPS", "60"))
HOMES = {"eu": (WEST, CENTRAL), "us": (US,), "sg": (SG,)}
KINDS = ["tenant", "user_profile", "consent", "agent"]


@pytest.fixture
def regions(server: Server) -> Iterator[Regions]:
    with regions_of(server) as found:
        yield found


class Walk:
    """Acts that people and regions may take, each refused or carried out; and what was erased."""

    def __init__(self, regions: Regions, seed: int) -> None:
        self.regions = regions
        self.rng = Random(seed)
        self.tenants: dict[UUID, str] = {}
        self.people: dict[UUID, UUID] = {}
        self.transfers: list[UUID] = []
        self.erased: set[UUID] = set()

    def step(self) -> None:
        acts: list[tuple[int, Callable[[], None]]] = [
            (1, self.begin),
            (6, self.create),
            (10, self.change),
            (4, self.consent),
            (4, self.withdraw),
            (2, self.erase),
            (2, self.register),
            (2, self.revoke),
            (1, self.move),
            (3, self.cut),
            (3, self.regions.heal),
            (6, lambda: self.regions.work(self.region()) and None),
        ]
        weights, choices = zip(*acts, strict=True)
        try:
            self.rng.choices(choices, weights)[0]()
        except psycopg.DatabaseError as error:
            # A region that may not hold it, does not know it (yet, or any more), or knows that it was erased.
            if error.sqlstate not in ("AC001", "AC002", "AC006", "AC008", "AC009"):
                raise

    def region(self) -> str:
        return self.rng.choice(list(self.regions.names))

    def person(self) -> UUID | None:
        return self.rng.choice(list(self.people)) if self.people else None

    def begin(self) -> None:
        zone = self.rng.choice(list(HOMES))
        self.tenants[self.regions.tenant(zone, self.rng.choice(HOMES[zone]))] = zone

    def create(self) -> None:
        if self.tenants:
            tenant = self.rng.choice(list(self.tenants))
            region = self.region()
            row = (
                self.regions.owner[region]
                .execute(b"SELECT zone FROM acgs.tenant WHERE key = %s AND NOT erased", (tenant,))
                .fetchone()
            )
            if row is not None:
                self.people[self.regions.user(region, tenant, row[0])] = tenant

    def change(self) -> None:
        self.regions.app[self.region()].execute(
            b"UPDATE acgs.user_profile SET locale = %s, login_count = coalesce(login_count, 0) + 1 WHERE key = %s AND NOT erased",
            (str(self.rng.randrange(1000)), self.person()),
        )

    def consent(self) -> None:
        self._about(
            lambda region, tenant, person, zone: self.regions.consent(region, tenant, person, SG, zone)
        )

    def withdraw(self) -> None:
        self._about(
            lambda region, tenant, person, zone: self.regions.withdraw(region, tenant, person, SG, zone)
        )

    def _about(self, act: Callable[[str, UUID, UUID, str], None]) -> None:
        person, region = self.person(), self.region()
        row = (
            self.regions.owner[region]
            .execute(
                b"SELECT u.tenant_id, u.zone FROM acgs.user_profile AS u JOIN acgs.tenant AS t ON t.key = u.tenant_id"
                b" WHERE u.key = %s AND NOT u.erased",
                (person,),
            )
            .fetchone()
        )
        if row is not None and person is not None:
            act(region, row[0], person, row[1])

    def erase(self) -> None:
        person, region = self.person(), self.region()
        done = self.regions.app[region].execute(
            b"UPDATE acgs.user_profile SET erased = true WHERE key = %s AND NOT erased", (person,)
        )
        if done.rowcount and person is not None:
            self.erased.add(person)

    def register(self) -> None:
        zone, to = self.rng.choice(list(HOMES)), self.region()
        instrument = self.rng.choice(["scc", "scc", "explicit_consent"])
        kinds = self.rng.sample(KINDS, self.rng.randint(1, len(KINDS)))
        self.transfers.append(self.regions.transfer(self.region(), zone, to, instrument, kinds))

    def revoke(self) -> None:
        if self.transfers:
            self.regions.revoke(self.region(), self.rng.choice(self.transfers))

    def move(self) -> None:
        if self.tenants:
            tenant, zone = self.rng.choice(list(self.tenants)), self.rng.choice(list(HOMES))
            self.regions.app[self.region()].execute(b"SELECT acgs.move_tenant(%s, %s)", (tenant, zone))

    def cut(self) -> None:
        source, target = self.rng.sample(list(self.regions.names), 2)
        self.regions.cut(source, target)


def lawful(conn: psycopg.Connection[object], names: list[str]) -> Register:
    """Return the register as one region has it, read without the database's own decision."""
    zones = conn.execute(b"SELECT name, regions FROM acgs.zone WHERE NOT erased").fetchall()
    columns = "from_zone, to_region, instrument, entities, begins, expires, revoked, importer_certified"
    rows = conn.execute(f"SELECT {columns} FROM acgs.transfer WHERE NOT erased".encode()).fetchall()
    found = tuple(
        TransferRecord(z, to, i, frozenset(e), b, x, r, bool(c)) for z, to, i, e, b, x, r, c in rows
    )
    return Register(frozenset(names), {n: tuple(r) for n, r in zones}, found)


def misheld(regions: Regions) -> list[str]:
    """Return what is held where the law and the consents do not allow it, or lacking where they do."""
    register = lawful(regions.owner[WEST], list(regions.names))
    consents: dict[UUID, dict[str, Consent]] = {}
    for conn in regions.owner.values():
        for subject, to, meta, grants in conn.execute(
            b"SELECT subject_id, to_region, meta, grants FROM acgs.consent WHERE NOT erased"
        ).fetchall():
            withdrawals = {o: s[1] for o, s in (meta.get("withdrawals") or {}).items()}
            state = Consent(withdrawals, grants or {})
            mine = consents.setdefault(subject, {})
            mine[to] = mine[to].merge(state) if to in mine else state
    held: dict[UUID, tuple[str, set[str]]] = {}
    for region, conn in regions.owner.items():
        for key, zone in conn.execute(b"SELECT key, zone FROM acgs.user_profile WHERE NOT erased").fetchall():
            held.setdefault(key, (zone, set()))[1].add(region)
    wrong = []
    for key, (zone, where) in held.items():
        given = {to for to, state in consents.get(key, {}).items() if state.given}
        holders = set(decide("user_profile", zone, register, datetime.now(UTC)).holders(given))
        if where != holders:
            wrong.append(f"{key} of {zone}: held in {sorted(where)}, may be held in {sorted(holders)}")
    return wrong


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_done_in_whatever_order_nobody_holds_what_they_may_not(
    regions: Regions, seed: int
) -> None:
    walk = Walk(regions, seed)
    walk.begin()
    for _ in range(STEPS):
        walk.step()
    regions.heal()
    regions.settled()
    assert misheld(regions) == []
    assert misplaced(regions.admin) == []
    assert agreement(regions.admin) == []
    for person in walk.erased:
        for region in regions.names:
            assert not regions.holds(region, person), (person, region)
