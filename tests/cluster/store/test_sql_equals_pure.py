"""The merge and the residency decision in SQL are those in Python, on thousands of cases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row
from tests.cluster.conftest import Server
from tests.strategies.records import EXTREMES, histories
from tests.strategies.transfers import NOW, REGIONS, transfers

from acgs2 import store
from acgs2.merge import merge
from acgs2.model import entities
from acgs2.model.entity import Entity, FieldType, Residency
from acgs2.model.record import Record
from acgs2.residency import Consent, Register, TransferRecord, decide
from acgs2.store.region import register_key

ENTITIES = [*entities().values(), EXTREMES]
HOLDERS = ["eu-west-1"]
quick = settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
    ],
)


@pytest.fixture(scope="module")
def database(server: Server) -> Iterator[psycopg.Connection[Any]]:
    with server.connect("postgres") as admin:
        admin.execute(b"CREATE DATABASE equality TEMPLATE migrated")
    with server.connect("equality") as conn:
        store.migrate(conn, ENTITIES)
        yield conn
    with server.connect("postgres") as admin:
        admin.execute(b"DROP DATABASE equality WITH (FORCE)")


def wire(record: Record, key: UUID, entity: Entity) -> dict[str, Any]:
    owner = {"tenant_id": str(UUID(int=1))} if entity.scope == "tenant" else {}
    return {
        "key": str(key),
        "zone": "eu",
        "sent_to": HOLDERS,
        "hlc": record.hlc,
        "origin": record.origin,
        "vv": record.vv,
        "erased": record.erased,
        "rights": {},
        "meta": record.meta,
        **owner,
        **record.data,
    }


def take_in(conn: psycopg.Connection[Any], entity: Entity, rows: list[dict[str, Any]]) -> None:
    body = json.dumps(rows, default=str)
    conn.execute(b"SELECT acgs.merge_directly(%s, %s, %s)", (entity.name, body, HOLDERS))


def read(conn: psycopg.Connection[Any], entity: Entity) -> dict[UUID, Record]:
    rows = conn.cursor(row_factory=dict_row).execute(f"SELECT * FROM acgs.{entity.name}".encode()).fetchall()
    return {
        row["key"]: Record(
            key=row["key"],
            vv=row["vv"],
            hlc=row["hlc"],
            origin=row["origin"],
            erased=row["erased"],
            data={f.name: row[f.name] for f in entity.fields},
            meta=row["meta"],
        )
        for row in rows
    }


def normal(record: Record, entity: Entity, key: UUID) -> Record:
    """As the database shows it: an unset set is empty, an unset map is empty, an unset counter is 0."""
    empty = {FieldType.SET: [], FieldType.MAP: {}, FieldType.COUNTER: 0}
    data = {
        f.name: empty.get(f.type)
        if record.data[f.name] is None and not record.erased
        else record.data[f.name]
        for f in entity.fields
    }
    return Record(
        key=key,
        vv=dict(record.vv),
        hlc=record.hlc,
        origin=record.origin,
        erased=record.erased,
        data=data,
        meta=record.meta,
    )


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda e: e.name)
@quick
@given(data=st.data())
def test_merging_in_sql_is_merging_in_python(
    database: psycopg.Connection[Any], entity: Entity, data: st.DataObject
) -> None:
    cases = data.draw(st.lists(histories(entity), min_size=20, max_size=25))
    database.execute(f"TRUNCATE acgs.{entity.name}, acgs.conflict".encode())
    keys = [uuid4() for _ in cases]
    expected: dict[UUID, Record] = {}
    conflicts: set[tuple[Any, ...]] = set()
    for step in range(max(map(len, cases))):
        batch: list[dict[str, Any]] = []
        for key, versions in zip(keys, cases, strict=True):
            if step >= len(versions):
                continue
            incoming = versions[step]
            batch.append(wire(incoming, key, entity))
            merged = merge(entity, expected.get(key), incoming)
            expected[key] = merged.record
            if merged.record.erased:
                conflicts = {c for c in conflicts if c[0] != key}
            conflicts |= {(key, c.field, *c.loser) for c in merged.conflicts}
        take_in(database, entity, batch)
    have = read(database, entity)
    for key, record in expected.items():
        assert normal(have[key], entity, key) == normal(record, entity, key)
    query = b"SELECT key, field, loser_hlc, loser_origin FROM acgs.conflict"
    assert set(database.execute(query).fetchall()) == conflicts


@settings(quick, max_examples=150)
@given(
    found=st.lists(transfers, max_size=6),
    zones=st.dictionaries(
        st.sampled_from(["eu", "us"]),
        st.lists(st.sampled_from((*REGIONS, "mars-west-1")), min_size=1, unique=True),
    ),
)
def test_deciding_in_sql_is_deciding_in_python(
    database: psycopg.Connection[Any], found: list[TransferRecord], zones: dict[str, list[str]]
) -> None:
    database.execute(b"TRUNCATE acgs.zone, acgs.transfer, acgs.region")
    for region in REGIONS:
        database.execute(b"INSERT INTO acgs.region VALUES (%s, 'primary', 'aws')", (region,))
    stamp = {
        "zone": "*",
        "sent_to": [],
        "hlc": 1,
        "origin": "g#0",
        "vv": {"g#0": 1},
        "erased": False,
        "rights": {},
        "meta": {},
    }
    take_in(
        database,
        entities()["zone"],
        [
            {
                **stamp,
                "key": str(register_key("zone", n)),
                "name": n,
                "regulation": "gdpr",
                "regions": r,
                "pair": [],
            }
            for n, r in zones.items()
        ],
    )
    take_in(
        database,
        entities()["transfer"],
        [
            {
                **stamp,
                "key": str(uuid4()),
                "from_zone": t.zone,
                "to_region": t.to,
                "instrument": t.instrument,
                "entities": sorted(t.entities),
                "begins": t.begins,
                "expires": t.expires,
                "revoked": t.revoked,
                "importer_certified": t.importer_certified,
            }
            for t in found
        ],
    )
    register = Register(frozenset(REGIONS), {n: tuple(r) for n, r in zones.items()}, tuple(found))
    kinds = [e.name for e in entities().values() if e.residency is Residency.ZONE] + ["zone"]
    for entity in kinds:
        for zone in ("eu", "us") if entity != "zone" else ("*",):
            decision = decide(entity, zone, register, NOW)
            row = database.execute(
                b"SELECT residency, basis, to_timestamp(valid_until_us / 1000000.0), by_consent FROM acgs.decide(%s, %s, %s)",
                (entity, zone, int(NOW.timestamp() * 1_000_000)),
            ).fetchone()
            assert row is not None
            assert (tuple(row[0]), row[1]) == (decision.residency, dict(decision.basis))
            assert tuple(row[3]) == decision.by_consent
            if zone in zones:
                assert row[2] == decision.valid_until


vectors = st.dictionaries(st.sampled_from(["a#1", "b#2"]), st.integers(1, 3), max_size=2)


@settings(quick, max_examples=100)
@given(withdrawals=vectors, grants=st.dictionaries(st.sampled_from(["a#1", "b#2"]), vectors, max_size=2))
def test_consent_in_sql_is_consent_in_python(
    database: psycopg.Connection[Any], withdrawals: dict[str, int], grants: dict[str, dict[str, int]]
) -> None:
    row = database.execute(
        b"SELECT acgs.consent_given(%s, %s)", (json.dumps(withdrawals), json.dumps(grants))
    ).fetchone()
    assert row == (Consent(withdrawals, grants).given,)
