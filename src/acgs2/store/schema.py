"""Brings a database to the newest schema: roles, numbered migrations once, functions and entities each time.

There is one way to a schema: a new database runs all migrations, an old one those it lacks. What may be
replaced in place (functions, triggers) is replaced on every run; tables of entities grow by columns, and what
is done about some of them beside (triggers) comes after all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from acgs2.errors import RuntimeFault
from acgs2.model.entity import Entity, entities
from acgs2.store.compile import compile_dispatch, compile_entity
from acgs2.store.templates import read, scripts

__all__ = ["OWNER", "migrate", "schema_version"]

#: The role that owns the schema; no superuser.
OWNER = "acgs_owner"
_LOCK = 0x61636773  # "acgs": one migration at a time
_TRIES = 5


def schema_version(conn: psycopg.Connection) -> int:
    """Return the number of the newest migration that the database has, 0 if it has none."""
    row = conn.execute(b"SELECT to_regclass('acgs.migration') IS NOT NULL").fetchone()
    if row is None or not row[0]:
        return 0
    row = conn.execute(b"SELECT coalesce(max(number), 0) FROM acgs.migration").fetchone()
    return int(row[0]) if row else 0


def migrate(conn: psycopg.Connection, declared: Iterable[Entity] | None = None) -> int:
    """Bring the database to the newest schema; run by a superuser, safe to repeat.

    Returns:
        The number of the newest migration.

    Raises:
        RuntimeFault: the database is newer than this program (`schema-newer`) or PostgreSQL is too old.
    """
    if conn.info.server_version < 160000:
        raise RuntimeFault(
            "postgres-too-old",
            f"PostgreSQL {conn.info.server_version // 10000} cannot run this schema.",
            hint="Use PostgreSQL 16 or later.",
        )
    # It locks one table after another while others write: as a deadlock's victim it was rolled back whole.
    for attempt in range(_TRIES):
        try:
            return _migrate(conn, declared)
        except psycopg.errors.DeadlockDetected:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _migrate(conn: psycopg.Connection, declared: Iterable[Entity] | None) -> int:
    kinds = tuple(entities().values() if declared is None else declared)
    known = scripts("migrations")
    with conn.transaction():
        conn.execute(b"SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        conn.execute(read("roles.sql").encode())
        have = schema_version(conn)
        if have > len(known):
            raise RuntimeFault(
                "schema-newer",
                f"The database has schema {have}; this program knows {len(known)}.",
                hint="Use the release that made it, or a newer one.",
                database=have,
                program=len(known),
            )
        for number, (name, text) in enumerate(known[have:], start=have + 1):
            conn.execute(text.encode())
            _record(conn, number, name)
        conn.execute(f"SET LOCAL ROLE {OWNER}".encode())
        for _, text in scripts("functions"):
            conn.execute(text.encode())
        for kind in kinds:
            conn.execute(compile_entity(kind).encode())
        conn.execute(compile_dispatch(kinds).encode())
        for _, text in scripts("triggers") if declared is None else ():
            conn.execute(text.encode())
        conn.execute(b"SELECT acgs.refresh_rules()")
        conn.execute(b"SELECT acgs.know_more()")
    return len(known)


def _record(conn: psycopg.Connection, number: int, name: str) -> None:
    conn.execute(read("migration.sql").encode())
    conn.execute(b"INSERT INTO acgs.migration (number, name) VALUES (%s, %s)", (number, name))
