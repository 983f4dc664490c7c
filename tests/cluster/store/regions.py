"""Linked databases as regions, with what a region's server would do for them done by hand, step by step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
from tests.cluster.conftest import Server, await_that

from acgs2.store.region import link_name, register_key
from acgs2.store.work import STEPS
from acgs2.topology import Topology, parse

WEST, CENTRAL, US, SG = "eu-west-1", "eu-central-1", "us-east-1", "ap-southeast-1"

QUARTET = """
name: quartet
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
  eu-central-1: {country: DE}
  us-east-1: {country: US}
  ap-southeast-1: {country: SG}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1, eu-central-1]}
  us: {regulation: ccpa, regions: [us-east-1]}
  sg: {regulation: pdpa, regions: [ap-southeast-1]}
transfers:
  - {zone: us, to: eu-west-1, instrument: none_required, entities: [tenant, tenant_config, user_profile, agent]}
  - {zone: eu, to: us-east-1, instrument: adequacy_dpf, entities: [user_profile], importer_certified: true}
  - {zone: eu, to: ap-southeast-1, instrument: explicit_consent, entities: [user_profile]}
"""


class Regions:
    """Connections to every region, as the application and as the owner."""

    def __init__(self, server: Server, names: Mapping[str, str], stack: ExitStack) -> None:
        self.server = server
        self.names = names
        self.app = {r: stack.enter_context(server.connect(n, "acgs_app")) for r, n in names.items()}
        self.owner = {r: stack.enter_context(server.connect(n, "acgs_owner")) for r, n in names.items()}
        self.admin = {r: stack.enter_context(server.connect(n)) for r, n in names.items()}
        #: Regions that are down: they do no work, and nobody asks them for anything.
        self.resting: set[str] = set()

    def work(self, *regions: str) -> int:
        """Do what is due in these regions, or in all that are not down; acquire what they may hold."""
        done = 0
        for region in regions or [r for r in self.names if r not in self.resting]:
            conn = self.owner[region]
            self._acquire(region)
            while True:
                did = sum(int(conn.execute(step).fetchone()[0]) for step in STEPS)  # type: ignore[index]
                done += did
                if not did:
                    break
        return done

    def _acquire(self, region: str) -> None:
        conn = self.owner[region]
        query = b"SELECT id, entity, zone, source FROM acgs.acquisition WHERE asked_at IS NULL"
        for number, entity, zone, wanted in conn.execute(query).fetchall():
            sources = conn.execute(
                b"SELECT residency FROM acgs.rule WHERE entity = %s AND zone = %s", (entity, zone)
            ).fetchone()
            assert sources is not None
            refusals: set[str | None] = set()
            asked = [wanted] if wanted else sources[0]
            for source in (s for s in asked if s != region and s not in self.resting):
                request = uuid4()
                conn.execute(
                    b"UPDATE acgs.acquisition SET asked_at = now(), request = %s WHERE id = %s",
                    (request, number),
                )
                try:
                    self.admin[source].execute(
                        b"SELECT acgs.ask(%s, %s, %s, %s, NULL, NULL, %s)",
                        (request, region, entity, zone, wanted is None),
                    )
                    break
                except psycopg.DatabaseError as error:
                    refusals.add(error.sqlstate)
                    conn.execute(
                        b"UPDATE acgs.acquisition SET asked_at = NULL WHERE request = %s", (request,)
                    )
            else:
                if refusals == {"AC016"}:
                    conn.execute(b"DELETE FROM acgs.acquisition WHERE id = %s", (number,))

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
        """Let every region work until a condition holds."""

        def step() -> Any:
            self.work()
            return condition()

        return await_that(step, what, timeout_s)

    def settled(self) -> None:
        """Let everything that is under way arrive and everything that is due be done, twice over."""
        for _ in range(2):
            try:
                self.until(self._quiet, "all regions to be quiet")
            except AssertionError as error:
                raise AssertionError(f"{error}: {self.pending()}") from error

    def _quiet(self) -> bool:
        return self._idle() and self._delivered() and self._idle()

    def _idle(self) -> bool:
        return not self.pending()

    def pending(self) -> list[str]:
        """Return what is due anywhere, but where a region is down."""
        return [
            f"{region} {table} {row}"
            for region, conn in self.owner.items()
            if region not in self.resting
            for table in ("due", "sweep", "acquisition", "provision")
            for row in conn.execute(f"SELECT * FROM acgs.{table}".encode()).fetchall()
        ]

    def _delivered(self) -> bool:
        """Wait until what every region has sent is taken in by all to whom its links run."""
        sent: dict[str, str] = {}
        for region, conn in self.owner.items():
            if region not in self.resting:
                conn.execute(b"SELECT acgs.beat()")
                (sent[region],) = conn.execute(b"SELECT pg_current_wal_flush_lsn()::text").fetchone() or ("",)
        query = (
            b"SELECT count(*) FROM pg_stat_replication WHERE application_name = ANY (%s) AND flush_lsn >= %s"
        )
        for region, position in sent.items():
            conn = self.owner[region]
            (life,) = conn.execute(b"SELECT incarnation FROM acgs.self").fetchone() or ("",)
            ours = {link_name(region, peer) for peer in self.names if peer != region} - self._cut
            ours = {f"{name}_{life}" for name in ours}
            await_that(
                lambda c=conn, o=ours, p=position: c.execute(query, (sorted(o), p)).fetchone() == (len(o),),
                f"what {region} sent to be taken in",
            )
        return True

    @property
    def _cut(self) -> set[str]:
        found: set[str] = set()
        for conn in self.admin.values():
            found |= set(self._cut_of(conn))
        return found

    def cut(self, source: str, target: str) -> None:
        """Stop a link; what is sent over it waits."""
        name = link_name(source, target)
        self.admin[target].execute(f'ALTER SUBSCRIPTION "{name}" DISABLE'.encode())
        query = b"SELECT 1 FROM pg_stat_subscription WHERE subname = %s AND pid IS NOT NULL"
        await_that(lambda: not self.admin[target].execute(query, (name,)).fetchone(), "the link to stop")

    def heal(self, *directions: tuple[str, str]) -> None:
        """Let links run again; without any, all."""
        names = [link_name(*d) for d in directions]
        for conn in self.admin.values():
            for name in self._cut_of(conn):
                if not names or name in names:
                    conn.execute(f'ALTER SUBSCRIPTION "{name}" ENABLE'.encode())

    def _cut_of(self, conn: psycopg.Connection[Any]) -> list[str]:
        query = (
            b"SELECT subname FROM pg_subscription WHERE NOT subenabled"
            b" AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return [name for (name,) in conn.execute(query).fetchall()]

    def tenant(self, zone: str, region: str) -> UUID:
        key = uuid4()
        self.app[region].execute(
            b"INSERT INTO acgs.tenant (key, zone, name) VALUES (%s, %s, 'T')", (key, zone)
        )
        return key

    def user(self, region: str, tenant: UUID, zone: str, name: str = "Ann") -> UUID:
        key = uuid4()
        self.app[region].execute(
            b"INSERT INTO acgs.user_profile (key, zone, tenant_id, display_name) VALUES (%s, %s, %s, %s)",
            (key, zone, tenant, name),
        )
        return key

    def consent(self, region: str, tenant: UUID, subject: UUID, to: str, zone: str = "eu") -> None:
        self.app[region].execute(
            b"SELECT acgs.grant_consent(%s, %s, %s, %s, %s, 'form 7')",
            (consent_key(subject, to), zone, tenant, subject, to),
        )

    def withdraw(self, region: str, tenant: UUID, subject: UUID, to: str, zone: str = "eu") -> None:
        self.app[region].execute(
            b"SELECT acgs.withdraw_consent(%s, %s, %s, %s, %s)",
            (consent_key(subject, to), zone, tenant, subject, to),
        )

    def transfer(self, region: str, zone: str, to: str, instrument: str, entities: list[str]) -> UUID:
        key = uuid4()
        self.app[region].execute(
            b"INSERT INTO acgs.transfer (key, zone, from_zone, to_region, instrument, entities, importer_certified)"
            b" VALUES (%s, '*', %s, %s, %s, %s, true)",
            (key, zone, to, instrument, json.dumps(entities)),
        )
        return key

    def revoke(self, region: str, key: UUID) -> None:
        self.app[region].execute(
            b"UPDATE acgs.transfer SET revoked = clock_timestamp() WHERE key = %s", (key,)
        )

    def holds(self, region: str, key: UUID, entity: str = "user_profile") -> bool:
        query = f"SELECT 1 FROM acgs.{entity} WHERE key = %s AND NOT erased"
        return self.owner[region].execute(query.encode(), (key,)).fetchone() is not None

    def traces(self, region: str, text: str) -> dict[str, int]:
        """Return how many rows of each table of a region contain a text."""
        query = b"SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relnamespace = 'acgs'::regnamespace AND relkind IN ('r', 'm')"
        found: dict[str, int] = {}
        for (table,) in self.admin[region].execute(query).fetchall():
            row = (
                self.admin[region]
                .execute(f"SELECT count(*) FROM {table} AS t WHERE strpos(t::text, %s) > 0".encode(), (text,))
                .fetchone()
            )
            if row and row[0]:
                found[table] = row[0]
        return found


def genesis_transfer(number: int, zone: str, to: str, instrument: str) -> UUID:
    """Return the key of a transfer of the topology."""
    return register_key("transfer", f"{zone}/{to}/{instrument}/{number}")


def consent_key(subject: UUID, to: str) -> UUID:
    return register_key("consent", f"{subject}/{to}")


@contextmanager
def regions_of(server: Server, text: str = QUARTET) -> Iterator[Regions]:
    """Make a topology's databases, linked."""
    topology: Topology = parse(text)
    with server.regions(topology) as names, ExitStack() as stack:
        yield Regions(server, names, stack)
