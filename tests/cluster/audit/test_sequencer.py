"""The order of leaves, on a real PostgreSQL: none lost, none twice, no place ever taken back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from tests.cluster.conftest import Server

from acgs2.audit.checkpoint import Checkpoint
from acgs2.audit.keys import Trusted
from acgs2.audit.leaf import Leaf
from acgs2.audit.note import ED25519, Signer
from acgs2.audit.reader import LogReader
from acgs2.audit.sequencer import Before, Sequencer
from acgs2.audit.tree import is_included, leaf_hash, root_of
from acgs2.errors import RuntimeFault
from acgs2.topology import Topology

SIGNER = Signer.from_seed("acgs2.example/trio/eu-west-1", ED25519, b"L" * 32)
LEAVES = b"SELECT convert_to(acgs.audit_entry(l.leaf), 'UTF8') FROM acgs.audit_leaves(%s, 0, %s) AS l ORDER BY l.index"
INSERT = b"INSERT INTO acgs.audit_leaf (kind, subject, body) SELECT 'test', gen_random_uuid(), '{\"n\":' || n || '}' FROM generate_series(1, %s) AS n"


@pytest.fixture
def database(server: Server, trio: Topology) -> Iterator[str]:
    with server.regions(trio, linked=False) as names:
        yield names["eu-west-1"]


async def connected(server: Server, database: str, role: str = "acgs_owner") -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(server.dsn(database, role), autocommit=True)


async def entries(conn: psycopg.AsyncConnection[Any], log: int, size: int) -> list[bytes]:
    return [bytes(e) for (e,) in await (await conn.execute(LEAVES, (log, size))).fetchall()]


async def write(server: Server, database: str, writer: int, rng: random.Random) -> list[str]:
    """Insert leaves in transactions that overlap; return what was committed."""
    committed = []
    async with await connected(server, database, "acgs_app") as conn:
        for number in range(40):
            name = f"{writer}-{number}"
            try:
                async with conn.transaction():
                    for part in range(rng.randint(1, 3)):
                        body = rfc8785.dumps({"name": name, "part": part}).decode()
                        await conn.execute(b"SELECT acgs.audit('test', NULL, %s)", (body,))
                        await asyncio.sleep(rng.random() / 200)
                    if rng.random() < 0.2:
                        raise psycopg.errors.RaiseException
            except psycopg.errors.RaiseException:
                continue
            committed.append(name)
    return committed


def test_no_leaf_is_lost_or_doubled_and_no_place_changes(server: Server, database: str) -> None:
    async def run() -> None:
        done = asyncio.Event()
        seen: list[tuple[int, bytes]] = []

        async def sequence() -> None:
            sequencer = Sequencer(SIGNER)
            async with await connected(server, database) as conn:
                while not done.is_set() or (await sequencer.look(conn)).waiting:  # type: ignore[union-attr]
                    cut = await sequencer.cut(conn)
                    if cut is not None:
                        seen.append((cut.checkpoint.size, cut.checkpoint.root))
                        before = await entries(conn, 1, cut.checkpoint.size)
                        assert root_of([leaf_hash(e) for e in before]) == cut.checkpoint.root

        async with await connected(server, database) as conn:
            assert await Sequencer(SIGNER).begin(conn, "00000000", None)
            assert not await Sequencer(SIGNER).begin(conn, "00000000", None)
            sequencers = [asyncio.create_task(sequence()) for _ in range(2)]
            writers = (write(server, database, n, random.Random(n)) for n in range(6))
            committed = [name for names in await asyncio.gather(*writers) for name in names]
            done.set()
            await asyncio.gather(*sequencers)
            size = max(s for s, _ in seen)
            found = await entries(conn, 1, size)
            assert len(seen) > 3
            for at, root in seen:
                assert root_of([leaf_hash(e) for e in found[:at]]) == root
            leaves = [Leaf.parse(e).body for e in found[1:]]
            assert {b["name"] for b in leaves} == set(committed)
            assert len({(b["name"], b["part"]) for b in leaves}) == len(leaves)
            row = await (await conn.execute(b"SELECT count(*) FROM acgs.audit_leaf")).fetchone()
            assert row == (size,)

    asyncio.run(run())


def test_leaves_are_found_and_proven_across_tiles_and_a_new_life_names_the_one_before(
    server: Server, database: str
) -> None:
    async def run() -> None:
        subject, rng = uuid4(), random.Random(5)
        async with (
            await connected(server, database) as conn,
            await connected(server, database, "acgs_app") as app,
        ):
            sequencer = Sequencer(SIGNER)
            await sequencer.begin(conn, "00000000", None)
            for count in (300, 1, 700, 20000):
                await conn.execute(INSERT, (count,))
                await app.execute(b"SELECT acgs.audit('mine', %s, '{}', %s)", (subject, subject))
                while await sequencer.cut(conn):
                    if rng.random() < 0.5:
                        sequencer = Sequencer(SIGNER)  # restarted: it goes on from what is stored
            reader = LogReader(app, Trusted((SIGNER.key,)), 0)
            places = await reader.places(subject, None)
            assert [p.index for p in places] == [301, 303, 1004, 21005]
            assert await reader.places(subject, uuid4()) == []
            assert len(await reader.places(subject, subject)) == 4
            for place in places:
                proven = await reader.prove(place)
                assert proven is not None
                assert place.index is not None
                text = proven.checkpoint.partition("\n\n")[0] + "\n"
                checkpoint = Checkpoint.parse(text)
                assert is_included(
                    leaf_hash(place.entry), place.index, checkpoint.size, proven.proof, checkpoint.root
                )
            assert await reader.entries(1, 90, 256) is None

            await app.execute(b"SELECT acgs.audit('mine', %s, '{}')", (subject,))
            before = Before("acgs2.example/trio/eu-west-1/00000000", 30000, b"\x01" * 32, "us-east-1")
            assert await sequencer.begin(conn, "11111111", before)
            cut = await sequencer.cut(conn)
            assert cut is not None
            first = Leaf.parse((await entries(conn, 2, 1))[0])
            assert first.body["before"] == {
                "origin": before.origin,
                "size": 30000,
                "root": "01" * 32,
                "known_by": "us-east-1",
            }
            assert [(p.log, p.index) for p in await reader.places(subject, None)][-2:] == [(1, 21005), (2, 1)]
            assert [number for number, _ in await reader.logs()] == [1, 2]

    asyncio.run(run())


def test_what_is_not_what_was_signed_is_signed_no_further(server: Server, database: str) -> None:
    async def run() -> None:
        async with (
            await connected(server, database) as conn,
            await connected(server, database, "postgres") as root,
        ):
            sequencer = Sequencer(SIGNER)
            await sequencer.begin(conn, "00000000", None)
            await conn.execute(INSERT, (10,))
            assert await sequencer.cut(conn)
            await root.execute(b"SET session_replication_role = replica")
            await root.execute(
                b"UPDATE acgs.audit_leaf SET body = '{}' WHERE kind = 'test' AND body = '{\"n\":3}'"
            )
            await conn.execute(INSERT, (1,))
            with pytest.raises(RuntimeFault, match="not what was signed"):
                await Sequencer(SIGNER).cut(conn)

    asyncio.run(run())


def test_the_log_is_only_added_to_and_only_in_ways_that_can_be_verified(
    server: Server, database: str
) -> None:
    with server.connect(database, "acgs_app") as app, server.connect(database, "acgs_owner") as owner:
        app.execute(b"SELECT acgs.audit('kind', NULL, '{\"a\":1}')")
        for body in ("", "[]", "{", '{"a":1,"a":2}', '{"a":"' + "x" * 60000 + '"}', None):
            with pytest.raises(psycopg.Error, match="audit-body-invalid") as caught:
                app.execute(b"SELECT acgs.audit('kind', NULL, %s)", (body,))
            assert caught.value.sqlstate == "AC017"
        for statement in (
            b"UPDATE acgs.audit_leaf SET kind = ''",
            b"DELETE FROM acgs.audit_leaf",
            b"INSERT INTO acgs.audit_leaf (kind, body) VALUES ('', '{}')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(statement)
        for statement in (
            b"UPDATE acgs.audit_leaf SET kind = ''",
            b"DELETE FROM acgs.audit_cut",
            b"TRUNCATE acgs.audit_cosignature",
        ):
            with pytest.raises(psycopg.Error, match="audit-append-only"):
                owner.execute(statement)


def test_writes_of_governed_records_and_all_erasures_leave_leaves(server: Server, database: str) -> None:
    tenant, person = uuid4(), uuid4()
    with server.connect(database, "acgs_app") as app:
        with app.transaction():
            app.execute(b"SELECT set_config('acgs.actor', 'operator \"x\"', true)")
            app.execute(
                b"INSERT INTO acgs.tenant (key, zone, name, status) VALUES (%s, 'eu', 'T', 'active')",
                (tenant,),
            )
        app.execute(b"UPDATE acgs.tenant SET status = 'suspended' WHERE key = %s", (tenant,))
        app.execute(
            b"INSERT INTO acgs.user_profile (key, zone, tenant_id, display_name) VALUES (%s, 'eu', %s, 'P')",
            (person, tenant),
        )
        app.execute(b"UPDATE acgs.user_profile SET display_name = 'Q' WHERE key = %s", (person,))
        app.execute(b"UPDATE acgs.user_profile SET erased = true WHERE key = %s", (person,))
        rows = app.execute(
            b"SELECT kind, subject, tenant, convert_to(acgs.audit_entry(l), 'UTF8') FROM acgs.audit_leaf AS l ORDER BY xid, id"
        ).fetchall()
    assert [row[:3] for row in rows] == [
        ("tenant-created", tenant, tenant),
        ("tenant-changed", tenant, tenant),
        ("user_profile-erased", person, tenant),
    ]
    bodies = [Leaf.parse(bytes(row[3])).body for row in rows]
    assert [b["actor"] for b in bodies] == ['operator "x"', "database:acgs_app", "database:acgs_app"]
    assert [b["fields"] for b in bodies] == [{"status": "active"}, {"status": "suspended"}, {}]


basic = st.characters(exclude_characters="\x00", exclude_categories=["Cs"], max_codepoint=0xFFFF)
words = st.text(basic, max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def plain(server: Server) -> Iterator[psycopg.Connection[Any]]:
    with server.connect("migrated") as conn:
        yield conn
    # A template is copied only while nobody is connected to it.


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(words, values, max_size=4), words, st.none() | st.uuids())
def test_the_database_writes_json_as_rfc_8785_does(
    plain: psycopg.Connection[Any], body: dict[str, Any], kind: str, subject: UUID | None
) -> None:
    row = plain.execute(b"SELECT acgs.canonical(%s)", (Jsonb(body),)).fetchone()
    assert row == (rfc8785.dumps(body).decode(),)
    query = b"SELECT acgs.audit_entry(ROW('7', 1, 1800000000000000, %s, %s, NULL, %s)::acgs.audit_leaf)"
    row = plain.execute(query, (kind, subject, row[0])).fetchone()
    assert row == (Leaf(1_800_000_000_000_000, kind, subject, None, body).entry.decode(),)


@pytest.mark.parametrize("value", ["0.5", "1e400", "9007199254740992"])
def test_numbers_that_two_programs_may_write_in_two_ways_are_refused(
    plain: psycopg.Connection[Any], value: str
) -> None:
    with pytest.raises(psycopg.Error, match="audit-body-invalid"):
        plain.execute(b"SELECT acgs.canonical(jsonb_build_object('a', %s::jsonb))", (value,))
