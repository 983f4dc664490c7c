"""What failed in a prototype, on real PostgreSQL: hot keys, deadlocks, doubled appends, unknown rows, clocks."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.cluster.conftest import Server, await_that

from acgs2.drill.checker import agreement, misplaced
from acgs2.errors import OutcomeUnknown
from acgs2.store import FlushWatcher
from acgs2.store.region import link_name

WEST, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"
LIVES = {WEST: "00000000", CENTRAL: "00000001", US: "00000002"}
Connections = Mapping[str, psycopg.Connection[Any]]


@pytest.fixture(scope="module")
def apps(server: Server, databases: Mapping[str, str]) -> Iterator[Connections]:
    """Connections as the application."""
    found = {region: server.connect(name, "acgs_app") for region, name in databases.items()}
    yield found
    for conn in found.values():
        conn.close()


@pytest.fixture(scope="module")
def owners(server: Server, databases: Mapping[str, str]) -> Iterator[Connections]:
    """Connections as the owner, for looking."""
    found = {region: server.connect(name, "acgs_owner") for region, name in databases.items()}
    yield found
    for conn in found.values():
        conn.close()


@pytest.fixture(scope="module")
def tenant(apps: Connections) -> UUID:
    key = uuid4()
    apps[WEST].execute(b"INSERT INTO acgs.tenant (key, zone, name) VALUES (%s, 'all', 'T')", (key,))
    for app in apps.values():
        await_that(
            lambda a=app: a.execute(b"SELECT 1 FROM acgs.tenant WHERE key = %s", (key,)).fetchone(),
            "the tenant",
        )
    return key


def user(conn: psycopg.Connection[Any], tenant: UUID, zone: str = "all") -> UUID:
    key = uuid4()
    conn.execute(
        b"INSERT INTO acgs.user_profile (key, zone, tenant_id, display_name) VALUES (%s, %s, %s, 'Ann')",
        (key, zone, tenant),
    )
    return key


def converged(owners: Connections) -> bool:
    return not agreement(owners)


def errors_of_links(owners: Connections) -> int:
    query = b"SELECT coalesce(sum(apply_error_count), 0) FROM pg_stat_subscription_stats"
    return sum(int(o.execute(query).fetchone()[0]) for o in [next(iter(owners.values()))])


def test_a_record_is_only_where_it_may_be(apps: Connections, owners: Connections) -> None:
    keys = {}
    for zone, region in (("eu", WEST), ("us", US)):
        keys[zone] = uuid4()
        apps[region].execute(
            b"INSERT INTO acgs.tenant (key, zone, name) VALUES (%s, %s, 'T')", (keys[zone], zone)
        )
    profile = user(apps[WEST], keys["eu"], "eu")
    await_that(lambda: converged(owners), "agreement")
    held = {
        r: {k for (k,) in c.execute(b"SELECT key FROM acgs.tenant").fetchall()} for r, c in owners.items()
    }
    assert keys["eu"] in held[CENTRAL]
    assert keys["eu"] not in held[US]
    assert keys["us"] in held[WEST]
    assert keys["us"] not in held[CENTRAL]
    await_that(
        lambda: owners[US].execute(b"SELECT 1 FROM acgs.user_profile WHERE key = %s", (profile,)).fetchone(),
        "the profile",
    )
    assert misplaced(owners) == []


@pytest.mark.parametrize(
    ("statement", "state"),
    [
        (b"INSERT INTO acgs.tenant (key, zone, name) VALUES (gen_random_uuid(), 'eu', 'x')", "AC001"),
        (b"INSERT INTO acgs.tenant (key, zone, name) VALUES (gen_random_uuid(), 'atlantis', 'x')", "AC001"),
        (b"INSERT INTO acgs.tenant (key, zone) VALUES (gen_random_uuid(), 'us')", "AC009"),
        (b"UPDATE acgs.tenant SET zone = 'us'", "AC008"),
        (b"DELETE FROM acgs.tenant", "42501"),
        (b"TRUNCATE acgs.tenant", "42501"),
        (b"INSERT INTO acgs.journal (source) VALUES ('me')", "42501"),
        (b"SELECT acgs.merge_directly('tenant', '[]', '{}')", "42501"),
    ],
)
def test_the_database_refuses(apps: Connections, tenant: UUID, statement: bytes, state: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        apps[US].execute(statement)
    assert caught.value.sqlstate == state


def test_a_record_cannot_be_put_into_another_zone_than_its_tenants(apps: Connections, tenant: UUID) -> None:
    with pytest.raises(psycopg.Error) as caught:
        user(apps[US], tenant, "us")
    assert caught.value.sqlstate == "AC006"


def test_a_record_over_256_kib_is_refused_and_a_large_statement_arrives_in_parts(
    apps: Connections, owners: Connections, tenant: UUID
) -> None:
    insert = b"INSERT INTO acgs.agent (key, zone, tenant_id, name, description) VALUES (gen_random_uuid(), 'all', %s, 'a', %s)"
    with pytest.raises(psycopg.Error) as caught:
        apps[WEST].execute(insert, (tenant, "x" * 270_000))
    assert caught.value.sqlstate == "AC005"
    many = b"""INSERT INTO acgs.agent (key, zone, tenant_id, name, description)
        SELECT gen_random_uuid(), 'all', %s, 'part', repeat(md5(n::text), 300) FROM generate_series(1, 400) AS n"""
    apps[WEST].execute(many, (tenant,))
    parts = (
        owners[WEST]
        .execute(
            b"SELECT count(*), max(octet_length(records::text)) FROM acgs.journal WHERE entity = 'agent'"
        )
        .fetchone()
    )
    assert parts is not None
    assert parts[0] >= 4
    assert parts[1] < 1_300_000
    await_that(
        lambda: (
            owners[US].execute(b"SELECT count(*) FROM acgs.agent WHERE name = 'part'").fetchone() == (400,)
        ),
        "all parts",
    )


def test_an_erasure_wins_over_a_concurrent_change_and_the_id_is_gone(
    apps: Connections, owners: Connections, tenant: UUID
) -> None:
    key = user(apps[WEST], tenant)
    await_that(
        lambda: owners[US].execute(b"SELECT 1 FROM acgs.user_profile WHERE key = %s", (key,)).fetchone(),
        "the profile",
    )
    with apps[US].transaction():
        apps[US].execute(b"UPDATE acgs.user_profile SET display_name = 'late' WHERE key = %s", (key,))
        apps[WEST].execute(b"UPDATE acgs.user_profile SET erased = true WHERE key = %s", (key,))
    await_that(
        lambda: all(
            o.execute(
                b"SELECT erased, display_name, meta FROM acgs.user_profile WHERE key = %s", (key,)
            ).fetchone()
            == (True, None, {})
            for o in owners.values()
        ),
        "the erasure everywhere",
    )
    with pytest.raises(psycopg.Error) as caught:
        apps[WEST].execute(
            b"UPDATE acgs.user_profile SET erased = false, display_name = 'back' WHERE key = %s", (key,)
        )
    assert caught.value.sqlstate == "AC002"
    for owner in owners.values():
        assert owner.execute(b"SELECT count(*) FROM acgs.conflict WHERE key = %s", (key,)).fetchone() == (0,)


def test_the_same_append_only_record_written_in_two_regions_is_one_record(
    apps: Connections, owners: Connections, tenant: UUID
) -> None:
    same, other = uuid4(), uuid4()
    insert = (
        b"INSERT INTO acgs.audit_event (key, zone, tenant_id, actor, action) VALUES (%s, 'all', %s, 'a', %s)"
    )
    for region, action in ((WEST, "one"), (US, "two")):
        apps[region].execute(b"BEGIN")
        apps[region].execute(insert, (same, tenant, "same"))
        apps[region].execute(insert, (other, tenant, action))
    for region in (WEST, US):
        apps[region].execute(b"COMMIT")
    await_that(lambda: converged(owners), "agreement")
    for owner in owners.values():
        assert owner.execute(b"SELECT count(*) FROM acgs.conflict WHERE key = %s", (same,)).fetchone() == (0,)
        await_that(
            lambda o=owner: (
                o.execute(
                    b"SELECT loser_value ->> 'action' FROM acgs.conflict WHERE key = %s", (other,)
                ).fetchone()
                == ("two",)
            ),
            "the conflict",
        )
        assert owner.execute(b"SELECT action FROM acgs.audit_event WHERE key = %s", (other,)).fetchone() == (
            "one",
        )


def test_an_induced_deadlock_between_a_writer_and_a_link_loses_nothing(
    apps: Connections, owners: Connections, tenant: UUID
) -> None:
    first, second = sorted((user(apps[WEST], tenant), user(apps[WEST], tenant)))
    await_that(lambda: converged(owners), "agreement")
    change = b"UPDATE acgs.user_profile SET login_count = coalesce(login_count, 0) + 1 WHERE key = %s"
    victims = 0
    # The link locks in the order first, second; the writer takes second, then first.
    apps[US].execute(b"BEGIN")
    apps[US].execute(change, (second,))
    with apps[WEST].transaction():
        apps[WEST].execute(change, (first,))
        apps[WEST].execute(change, (second,))
    await_that(
        lambda: owners[US].execute(b"SELECT 1 FROM pg_locks WHERE NOT granted").fetchone(),
        "the link to wait for the writer",
    )
    try:
        apps[US].execute(change, (first,))
        apps[US].execute(b"COMMIT")
    except psycopg.errors.DeadlockDetected:
        victims = 1
        apps[US].execute(b"ROLLBACK")
        with apps[US].transaction():
            apps[US].execute(change, (first,))
            apps[US].execute(change, (second,))
    await_that(lambda: converged(owners), "agreement after the deadlock")
    for owner in owners.values():
        counts = owner.execute(
            b"SELECT login_count FROM acgs.user_profile WHERE key = ANY (%s)", ([first, second],)
        ).fetchall()
        assert counts == [(2,), (2,)]
    assert victims == 1, "a local writer gives way, the link does not"


def test_two_regions_update_one_hot_key_without_a_stall(
    server: Server, databases: Mapping[str, str], apps: Connections, owners: Connections, tenant: UUID
) -> None:
    key = user(apps[WEST], tenant)
    await_that(lambda: converged(owners), "agreement")
    seconds, done, longest = 60.0, {WEST: 0, CENTRAL: 0}, {WEST: 0.0, CENTRAL: 0.0}

    def hammer(region: str, other: str) -> None:
        async def run() -> None:
            watcher = FlushWatcher(
                server.dsn(databases[region], "acgs_owner"), region, incarnation=LIVES[region]
            )
            await watcher.start()
            conn = await psycopg.AsyncConnection.connect(
                server.dsn(databases[region], "acgs_app"), autocommit=True
            )
            ends_s = time.monotonic() + seconds
            while time.monotonic() < ends_s:
                began_s = time.monotonic()
                try:
                    await conn.execute(
                        b"UPDATE acgs.user_profile SET login_count = coalesce(login_count, 0) + 1 WHERE key = %s",
                        (key,),
                    )
                except psycopg.errors.DeadlockDetected:
                    continue
                row = await (await conn.execute(b"SELECT pg_current_wal_flush_lsn()::text")).fetchone()
                assert row is not None
                await watcher.wait(row[0], [other], 10)
                done[region] += 1
                longest[region] = max(longest[region], time.monotonic() - began_s)
            await conn.close()
            await watcher.stop()

        asyncio.run(run())

    threads = [threading.Thread(target=hammer, args=pair) for pair in ((WEST, CENTRAL), (CENTRAL, WEST))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    await_that(lambda: converged(owners), "agreement")
    total = owners[US].execute(b"SELECT login_count FROM acgs.user_profile WHERE key = %s", (key,)).fetchone()
    assert total == (done[WEST] + done[CENTRAL],)
    assert min(done.values()) > 50
    assert max(longest.values()) < 5, "a stall"


def test_a_wait_that_is_cancelled_or_times_out_is_no_acknowledgement(
    server: Server, databases: Mapping[str, str]
) -> None:
    async def run() -> None:
        watcher = FlushWatcher(server.dsn(databases[WEST], "acgs_owner"), WEST, incarnation=LIVES[WEST])
        await watcher.start()
        with pytest.raises(OutcomeUnknown):
            await watcher.wait("FFFF/0", [CENTRAL], 0.1)
        waiting = asyncio.create_task(watcher.wait("FFFF/0", [CENTRAL], 10))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        stopped = asyncio.create_task(watcher.wait("FFFF/0", [CENTRAL], 10))
        await asyncio.sleep(0)
        await watcher.stop()
        with pytest.raises(OutcomeUnknown):
            await stopped
        assert not watcher.connected("nowhere-1")

    asyncio.run(run())


def test_who_waits_is_answered_once_the_zone_needs_no_peer(
    server: Server, databases: Mapping[str, str]
) -> None:
    async def run() -> None:
        watcher = FlushWatcher(server.dsn(databases[WEST], "acgs_owner"), WEST, incarnation=LIVES[WEST])
        await watcher.start()
        agreed = asyncio.create_task(watcher.wait("FFFF/0", [CENTRAL], 30, zone="eu"))
        other = asyncio.create_task(watcher.wait("FFFF/0", [CENTRAL], 30, zone="all"))
        await asyncio.sleep(0)
        watcher.go_alone("eu")
        await agreed
        await watcher.wait("FFFF/0", [CENTRAL], 30, zone="eu")
        assert not other.done()
        watcher.come_together("eu")
        with pytest.raises(OutcomeUnknown):
            await watcher.wait("FFFF/0", [CENTRAL], 0.1, zone="eu")
        await watcher.stop()
        with pytest.raises(OutcomeUnknown):
            await other

    asyncio.run(run())


def test_what_was_flushed_before_the_database_went_away_counts_for_nothing(
    server: Server, databases: Mapping[str, str], owners: Connections
) -> None:
    """A database that comes back from a backup has lower positions; old ones must not acknowledge its writes."""

    async def run() -> None:
        watcher = FlushWatcher(server.dsn(databases[WEST], "acgs_owner"), WEST, incarnation=LIVES[WEST])
        await watcher.start()
        await watcher.wait("0/1", [CENTRAL], 10)
        server_pids = b"SELECT pid FROM pg_stat_activity WHERE query LIKE %s AND usename = 'acgs_owner' AND datname = current_database()"
        with server.connect(databases[WEST]) as admin:
            admin.execute(b"ALTER ROLE acgs_owner NOLOGIN")
            try:
                for (pid,) in admin.execute(server_pids, ("%pg_stat_replication%",)).fetchall():
                    admin.execute(b"SELECT pg_terminate_backend(%s)", (pid,))
                for _ in range(200):
                    if not watcher.connected(CENTRAL):
                        break
                    await asyncio.sleep(0.02)
                with pytest.raises(OutcomeUnknown):
                    await watcher.wait("0/1", [CENTRAL], 0.2)
            finally:
                admin.execute(b"ALTER ROLE acgs_owner LOGIN")
        await watcher.wait("0/1", [CENTRAL], 10)
        await watcher.stop()

    asyncio.run(run())


def send_raw(conn: psycopg.Connection[Any], entity: str, hlc: int, record: dict[str, Any]) -> None:
    """Put a row into a region's journal as a broken or newer region would."""
    conn.execute(
        b"""INSERT INTO acgs.journal (source, entity, kind, zone, targets, residency, basis, register_version, hlc_max, records)
        VALUES ('us-east-1', %s, 'put', 'all', '{eu-west-1}', '{eu-west-1,us-east-1}', '{}', 0, %s, %s)""",
        (entity, hlc, json.dumps([record])),
    )


def test_a_row_of_an_unknown_entity_is_kept_and_the_link_goes_on(
    apps: Connections, owners: Connections, tenant: UUID
) -> None:
    send_raw(owners[US], "spaceship", 1, {"key": str(uuid4()), "secret": "kept whole"})
    key = user(apps[US], tenant)
    await_that(
        lambda: owners[WEST].execute(b"SELECT 1 FROM acgs.user_profile WHERE key = %s", (key,)).fetchone(),
        "what came after it",
    )
    held = (
        owners[WEST]
        .execute(b"SELECT reason, records -> 0 ->> 'secret' FROM acgs.quarantine WHERE entity = 'spaceship'")
        .fetchone()
    )
    assert held == ("unknown-entity", "kept whole")
    incident = (
        owners[WEST]
        .execute(b"SELECT kind, detail::text FROM acgs.incident WHERE entity = 'spaceship'")
        .fetchone()
    )
    assert incident is not None
    assert incident[0] == "unknown-entity"
    assert "kept whole" not in incident[1]
    assert owners[WEST].execute(b"SELECT acgs.retry_quarantine()").fetchone() == (0,)


def test_a_change_from_the_future_waits_until_it_is_due(
    apps: Connections, owners: Connections, tenant: UUID
) -> None:
    key = uuid4()
    ahead = time.time_ns() // 1000 + 2_500_000
    send_raw(
        owners[US],
        "agent",
        ahead,
        {
            "key": str(key),
            "zone": "all",
            "sent_to": ["eu-west-1"],
            "hlc": ahead,
            "origin": "us-east-1#00000002",
            "vv": {"us-east-1#00000002": 1},
            "erased": False,
            "rights": {},
            "meta": {},
            "tenant_id": str(tenant),
            "name": "early",
            "status": "active",
        },
    )
    arrived = b"SELECT reason FROM acgs.quarantine WHERE reason = 'clock-ahead' UNION ALL SELECT 'merged' FROM acgs.agent WHERE key = %s"
    await_that(lambda: owners[WEST].execute(arrived, (key,)).fetchone(), "the change")
    assert owners[WEST].execute(b"SELECT 1 FROM acgs.agent WHERE key = %s", (key,)).fetchone() is None
    await_that(
        lambda: owners[WEST].execute(b"SELECT acgs.retry_quarantine()").fetchone() == (1,),
        "the clock to catch up",
    )
    assert owners[WEST].execute(b"SELECT name FROM acgs.agent WHERE key = %s", (key,)).fetchone() == (
        "early",
    )


def test_a_put_that_may_not_be_held_is_dropped_with_an_incident(owners: Connections) -> None:
    query = b"""INSERT INTO acgs.journal (source, entity, kind, zone, targets, residency, basis, register_version, hlc_max, records)
        VALUES ('eu-west-1', 'tenant', 'put', 'eu', '{us-east-1}', '{eu-west-1,us-east-1}', '{}', 0, 1, %s)"""
    key = uuid4()
    owners[WEST].execute(query, (json.dumps([{"key": str(key), "zone": "eu", "name": "leak"}]),))
    await_that(
        lambda: owners[US].execute(b"SELECT 1 FROM acgs.incident WHERE kind = 'put-refused'").fetchone(),
        "the incident",
    )
    assert owners[US].execute(b"SELECT 1 FROM acgs.tenant WHERE key = %s", (key,)).fetchone() is None


def test_partitions_of_the_journal_receive_as_well(
    apps: Connections, owners: Connections, tenant: UUID
) -> None:
    for owner in owners.values():
        owner.execute(b"SELECT acgs.maintain()")
        assert (
            owner.execute(
                b"SELECT count(*) FROM pg_inherits WHERE inhparent = 'acgs.journal'::regclass"
            ).fetchone()[0]
            >= 3
        )
    key = user(apps[WEST], tenant)
    await_that(
        lambda: owners[US].execute(b"SELECT 1 FROM acgs.user_profile WHERE key = %s", (key,)).fetchone(),
        "the profile",
    )
    assert owners[US].execute(
        b"SELECT count(*) FROM acgs.journal WHERE source <> 'us-east-1'"
    ).fetchone() == (0,)


def test_a_partition_dropped_before_it_was_decoded_still_arrives(
    server: Server, databases: Mapping[str, str], apps: Connections, owners: Connections, tenant: UUID
) -> None:
    owner = owners[WEST]
    owner.execute(b"""CREATE TABLE acgs.journal_2099010100 PARTITION OF acgs.journal
        FOR VALUES FROM ('2099-01-01 00:00Z') TO ('2099-01-01 01:00Z')""")
    key = str(uuid4())
    record = {
        "key": key,
        "zone": "all",
        "sent_to": [WEST, US],
        "hlc": 1,
        "origin": "x#0",
        "vv": {"x#0": 1},
        "erased": False,
        "rights": {},
        "meta": {},
        "tenant_id": str(tenant),
        "name": "from a dropped partition",
        "status": "active",
    }
    link = link_name(WEST, US)
    with server.connect(databases[US]) as admin:
        admin.execute(f"ALTER SUBSCRIPTION {link} DISABLE".encode())
        owner.execute(
            b"""INSERT INTO acgs.journal (at, source, entity, kind, zone, targets, residency, basis, register_version,
            hlc_max, records) VALUES ('2099-01-01 00:30Z', 'eu-west-1', 'agent', 'put', 'all', '{us-east-1}',
            '{eu-west-1,us-east-1}', '{}', 0, 1, %s)""",
            (json.dumps([record]),),
        )
        owner.execute(b"DROP TABLE acgs.journal_2099010100")
        admin.execute(f"ALTER SUBSCRIPTION {link} ENABLE".encode())
    await_that(
        lambda: owners[US].execute(b"SELECT 1 FROM acgs.agent WHERE key = %s", (key,)).fetchone(),
        "the dropped row",
    )


def test_publications_filter_by_target(owners: Connections) -> None:
    for region, owner in owners.items():
        rows = dict(owner.execute(b"SELECT pubname, rowfilter FROM pg_publication_tables").fetchall())
        assert set(rows) == {link_name(region, peer) for peer in owners if peer != region}
        for peer in owners:
            if peer != region:
                assert f"'{peer}'" in rows[link_name(region, peer)]
