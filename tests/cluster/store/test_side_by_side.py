"""A field and an entity are added to regions one after the other while all of them write; nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.cluster.conftest import Server, await_that
from tests.cluster.store.regions import Regions, regions_of

from acgs2 import store
from acgs2.model import entities
from acgs2.model.entity import Entity, Field, FieldType, Residency, Rule, Scope, Strategy
from acgs2.store.compile import columns_of

TRIO = """
name: trio
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
  eu-central-1: {country: DE}
  eu-north-1: {country: SE}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1, eu-central-1, eu-north-1], pair: none}
"""
WEST, CENTRAL, NORTH = "eu-west-1", "eu-central-1", "eu-north-1"
ADDED = {
    "user_profile": (
        Field(name="nickname", type=FieldType.TEXT),
        Field(name="badges", type=FieldType.SET, rule=Rule.UNION),
    ),
    "tenant": (Field(name="colour", type=FieldType.TEXT),),
    "agent": (Field(name="vendor", type=FieldType.TEXT),),
}
DEVICE = Entity(
    name="device",
    path="devices",
    strategy=Strategy.LAST_WRITE_WINS,
    residency=Residency.ZONE,
    scope=Scope.TENANT,
    fields=(Field(name="serial", type=FieldType.TEXT),),
)


def newer() -> list[Entity]:
    """Return the entities of the next release: three with more fields, and a new one."""
    grown = [replace(e, fields=e.fields + ADDED.get(e.name, ())) for e in entities().values()]
    return [*grown, DEVICE]


@pytest.fixture
def regions(server: Server) -> Iterator[Regions]:
    with regions_of(server, TRIO) as found:
        yield found


def rows(regions: Regions, entity: Entity) -> list[Mapping[str, Any]]:
    columns = ", ".join(f"'{c}', {c}" for c in columns_of(entity) if c not in ("sent_to", "rights"))
    query = f"SELECT jsonb_object_agg(key, jsonb_build_object({columns})) FROM acgs.{entity.name}"
    return [(c.execute(query.encode()).fetchone() or (None,))[0] or {} for c in regions.owner.values()]


def differing(regions: Regions) -> list[str]:
    """Return the entities of the next release on which regions differ."""
    found = {e.name: rows(regions, e) for e in newer()}
    return [name for name, held in found.items() if any(h != held[0] for h in held)]


def migrate(regions: Regions, region: str) -> None:
    store.migrate(regions.admin[region], newer())
    regions.owner[region].execute(b"SELECT acgs.retry_quarantine()")


def count_everybody(conn: psycopg.Connection[Any]) -> bool:
    try:
        conn.execute(
            b"UPDATE acgs.user_profile SET login_count = coalesce(login_count, 0) + 1, locale = 'de'"
        )
    except psycopg.errors.DeadlockDetected:
        return False
    return True


class Writers:
    """Clients of every region that write what their region's release knows."""

    def __init__(self, regions: Regions) -> None:
        self.regions = regions
        self.tenant = regions.tenant("eu", WEST)
        self.filled: dict[UUID, dict[str, Any]] = {}
        self.grown: set[str] = set()
        self.devices: set[UUID] = set()

    def write(self) -> None:
        for region, conn in self.regions.app.items():
            await_that(lambda r=region: self.regions.holds(r, self.tenant, "tenant"), "the tenant")
            old = self.regions.user(region, self.tenant, "eu", f"of {region}")
            await_that(lambda c=conn: count_everybody(c), "a writer that gives way to links to get through")
            conn.execute(b"UPDATE acgs.tenant SET name = %s", (f"renamed in {region}",))
            if region in self.grown:
                self._write_new(conn, old)

    def _write_new(self, conn: psycopg.Connection[Any], user: UUID) -> None:
        conn.execute(
            b"UPDATE acgs.user_profile SET nickname = %s, badges = '{first}' WHERE key = %s",
            (str(user), user),
        )
        self.filled[user] = {"nickname": str(user), "badges": ["first"]}
        device = uuid4()
        conn.execute(
            b"INSERT INTO acgs.device (key, zone, tenant_id, serial) VALUES (%s, 'eu', %s, 'SN1')",
            (device, self.tenant),
        )
        self.devices.add(device)


def test_regions_of_two_releases_work_side_by_side_and_lose_nothing(regions: Regions) -> None:
    writers = Writers(regions)
    writers.write()
    for region in (CENTRAL, WEST, NORTH):
        migrate(regions, region)
        writers.grown.add(region)
        writers.write()
        writers.write()
        if region == CENTRAL:
            # What the others do not know yet waits there whole, and their links go on.
            regions.settled()
            query = b"SELECT DISTINCT reason FROM acgs.quarantine ORDER BY 1"
            assert regions.owner[WEST].execute(query).fetchall() == [("unknown-entity",), ("unknown-field",)]
            last = regions.user(CENTRAL, writers.tenant, "eu", "plain")
            await_that(lambda k=last: regions.holds(WEST, k), "a record without new fields")
    regions.settled()

    def caught_up() -> bool:
        left = [
            (
                c.execute(b"SELECT acgs.retry_quarantine()"),
                c.execute(b"SELECT 1 FROM acgs.quarantine").fetchone(),
            )[1]
            for c in regions.owner.values()
        ]
        return not any(left) and not differing(regions)

    await_that(caught_up, "regions to agree on old and new fields")
    for conn in regions.owner.values():
        for user, fields in writers.filled.items():
            row = conn.execute(
                b"SELECT nickname, badges FROM acgs.user_profile WHERE key = %s", (user,)
            ).fetchone()
            assert row == tuple(fields.values())
        held = conn.execute(b"SELECT key FROM acgs.device").fetchall()
        assert {key for (key,) in held} == writers.devices
        assert conn.execute(b"SELECT 1 FROM acgs.incident WHERE closed_at IS NULL").fetchone() is None


def test_an_older_release_refuses_nothing_that_has_no_new_field(regions: Regions) -> None:
    migrate(regions, WEST)
    tenant = regions.tenant("eu", WEST)
    user = regions.user(WEST, tenant, "eu")
    await_that(lambda: regions.holds(NORTH, user), "the record")
    assert regions.owner[NORTH].execute(b"SELECT count(*) FROM acgs.quarantine").fetchone() == (0,)
