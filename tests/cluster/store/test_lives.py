"""A new life of a data directory: it writes nothing before it is seeded, and is confirmed by none but its own readers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import psycopg
import pytest
from tests.cluster.conftest import Server
from tests.cluster.store.regions import CENTRAL, WEST

from acgs2.errors import OutcomeUnknown
from acgs2.store import FlushWatcher
from acgs2.topology import parse

#: Other regions than those of `databases`: slots are the server's, whichever database they are of.
DUO = """
name: duo
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-north-1: {country: SE}
  eu-south-1: {country: IT}
zones:
  eu: {regulation: gdpr, regions: [eu-north-1, eu-south-1]}
"""
NORTH = "eu-north-1"


def test_a_new_life_writes_nothing_until_it_is_seeded(server: Server) -> None:
    insert = b"INSERT INTO acgs.tenant (key, zone, name) VALUES (gen_random_uuid(), 'eu', 'T')"
    with server.regions(parse(DUO), linked=False) as names, server.connect(names[NORTH]) as conn:
        conn.execute(insert)
        # Peers have heard of more pulses than this database remembers: it was restored.
        conn.execute(b"SELECT acgs.awaken(1000, 0, 'abcdef01')")
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(insert)
        assert caught.value.sqlstate == "AC013"
        conn.execute(b"DELETE FROM acgs.acquisition")
        while conn.execute(b"SELECT acgs.sweep_step(500)").fetchone() != (0,):
            pass
        assert conn.execute(b"SELECT acgs.note_seeded('{}')").fetchone() == (True,)
        conn.execute(insert)
        row = conn.execute(b"SELECT origin FROM acgs.tenant ORDER BY hlc DESC LIMIT 1").fetchone()
        assert row == (f"{NORTH}#abcdef01",)


def test_a_peer_tells_a_life_that_is_over_from_one_that_is_behind(server: Server) -> None:
    greet = b"SELECT replaced, behind FROM acgs.greet('eu-south-1', %s, %s, %s)"
    with server.regions(parse(DUO), linked=False) as names, server.connect(names[NORTH]) as conn:
        for incarnation, born_us, pulse, answer in (
            ("00000001", 1000, 50, (False, False)),
            ("00000001", 1000, 51, (False, False)),
            ("00000001", 1000, 40, (False, True)),
            ("00000001", 1000, 41, (False, True)),
            ("00000002", 2000, 42, (False, False)),
            ("00000001", 1000, 99, (True, False)),
        ):
            assert conn.execute(greet, (incarnation, born_us, pulse)).fetchone() == answer


def test_a_reader_of_another_life_confirms_nothing(server: Server, databases: Mapping[str, str]) -> None:
    async def run(incarnation: str) -> None:
        watcher = FlushWatcher(server.dsn(databases[WEST], "acgs_owner"), WEST, incarnation=incarnation)
        await watcher.start()
        try:
            await watcher.wait("0/1", [CENTRAL], 2)
        finally:
            await watcher.stop()

    asyncio.run(run("00000000"))
    with pytest.raises(OutcomeUnknown):
        asyncio.run(run("abcdef01"))
