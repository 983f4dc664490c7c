"""A database that grew is the database made from scratch; one that is newer is left alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from tests.cluster.conftest import PASSWORDS, Server, await_that

from acgs2 import store
from acgs2.errors import RuntimeFault
from acgs2.model import entities
from acgs2.topology import Topology

SHAPE = b"""
SELECT 'column', table_name || '.' || column_name, coalesce(domain_name, udt_name), is_nullable FROM information_schema.columns
WHERE table_schema = 'acgs'
UNION ALL SELECT 'function', p.oid::regprocedure::text, md5(p.prosrc), p.prosecdef::text FROM pg_proc AS p WHERE p.pronamespace = 'acgs'::regnamespace
UNION ALL SELECT 'trigger', t.tgrelid::regclass || '.' || t.tgname, t.tgenabled::text, '' FROM pg_trigger AS t
    JOIN pg_class AS c ON c.oid = t.tgrelid WHERE c.relnamespace = 'acgs'::regnamespace AND NOT t.tgisinternal
UNION ALL SELECT 'index', indexname, indexdef, '' FROM pg_indexes WHERE schemaname = 'acgs'
UNION ALL SELECT 'grant', table_name || ' ' || grantee, privilege_type, '' FROM information_schema.role_table_grants WHERE table_schema = 'acgs'
ORDER BY 1, 2, 3, 4
"""


def empty(server: Server, name: str) -> psycopg.Connection[Any]:
    with server.connect("postgres") as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        admin.execute(f"CREATE DATABASE {name}".encode())
    return server.connect(name)


def test_a_grown_schema_is_the_schema_from_scratch(server: Server) -> None:
    def older(entity: Any) -> Any:
        return replace(
            entity, fields=tuple(f for f in entity.fields if f.required or f.name == entity.version_field)
        )

    with empty(server, "grown") as grown, empty(server, "scratch") as scratch:
        store.migrate(grown, [older(e) for e in entities().values()])
        assert grown.execute(SHAPE).fetchall() != []
        store.migrate(grown)
        store.migrate(grown)
        store.migrate(scratch)
        assert grown.execute(SHAPE).fetchall() == scratch.execute(SHAPE).fetchall()


def test_a_newer_schema_is_left_alone(server: Server) -> None:
    with empty(server, "newer") as conn:
        store.migrate(conn)
        conn.execute(b"INSERT INTO acgs.migration (number, name) VALUES (99, 'from the future')")
        with pytest.raises(RuntimeFault, match="schema 99"):
            store.migrate(conn)


def test_a_deadlock_with_a_writer_does_not_end_a_migration(server: Server) -> None:
    with empty(server, "busy") as conn, server.connect("busy") as writer, ThreadPoolExecutor(1) as pool:
        store.migrate(conn)
        writer.execute(b"SET deadlock_timeout = '60s'")  # the other one is the victim
        with writer.transaction():
            writer.execute(b"LOCK TABLE acgs.verdict IN ROW EXCLUSIVE MODE")
            migrated = pool.submit(store.migrate, conn)
            waits = b"SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'acgs.verdict'::regclass"
            await_that(lambda: writer.execute(waits).fetchone(), "the migration to wait for the writer")
            writer.execute(b"LOCK TABLE acgs.tenant IN ROW EXCLUSIVE MODE")
        assert migrated.result(timeout=30) > 0


def test_a_copied_database_is_not_mistaken_for_another_region(server: Server, trio: Topology) -> None:
    with (
        server.regions(trio, linked=False) as names,
        server.connect(names["eu-west-1"]) as conn,
        pytest.raises(RuntimeFault, match="This database is eu-west-1, not us-east-1"),
    ):
        store.found(conn, trio, "us-east-1", "00000000", PASSWORDS)


def test_a_personal_field_holds_text_or_a_well_formed_envelope(server: Server, trio: Topology) -> None:
    with server.regions(trio, linked=False) as names, server.connect(names["eu-west-1"], "acgs_app") as conn:
        tenant = conn.execute(
            b"INSERT INTO acgs.tenant (key, zone, name) VALUES (gen_random_uuid(), 'eu', 'T') RETURNING key"
        ).fetchone()
        assert tenant is not None
        insert = b"INSERT INTO acgs.user_profile (key, zone, tenant_id, display_name) VALUES (gen_random_uuid(), 'eu', %s, %s)"
        conn.execute(insert, (tenant[0], f"sealed.v1.{tenant[0]}.{'A' * 16}.{'B' * 22}"))
        with pytest.raises(psycopg.errors.CheckViolation):
            conn.execute(insert, (tenant[0], "sealed.v1.nonsense"))
