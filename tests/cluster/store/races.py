"""Acts by which rights end, over regions whose clocks and links can be moved."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
from tests.cluster.conftest import Server
from tests.cluster.store.regions import CENTRAL, SG, US, WEST, Regions, consent_key

from acgs2.topology import parse

TOPOLOGY = """
name: races
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
  eu-central-1: {country: DE}
  us-east-1: {country: US}
  ap-southeast-1: {country: SG}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1, eu-central-1]}
  de: {regulation: gdpr, regions: [eu-west-1, eu-central-1]}
  fr: {regulation: gdpr, regions: [eu-west-1, eu-central-1]}
  us: {regulation: ccpa, regions: [us-east-1]}
  all: {regulation: gdpr, regions: [eu-west-1, eu-central-1, us-east-1, ap-southeast-1], pair: none}
transfers:
  - {zone: de, to: us-east-1, instrument: scc, entities: [user_profile]}
  - {zone: de, to: ap-southeast-1, instrument: explicit_consent, entities: [user_profile, consent]}
  - {zone: fr, to: us-east-1, instrument: scc, entities: [tenant, tenant_config, user_profile, agent, audit_event]}
"""
KINDS = ("tenant", "tenant_config", "user_profile", "agent", "audit_event")
#: What a region answers that may not write a record, or does not know it (yet, or any more); or a lost race.
REFUSED = ("AC001", "AC002", "AC003", "AC006", "AC008", "AC009", "40P01")
HOUR_US = 3_600_000_000


class Races(Regions):
    """Regions whose servers also look at the clock: what expires is swept, what was set aside is tried again."""

    def __init__(self, server: Server, names: Mapping[str, str], stack: ExitStack) -> None:
        super().__init__(server, names, stack)
        self._offset_us = 0
        self._skew_us: dict[str, int] = {}

    @property
    def awake(self) -> list[str]:
        return [region for region in self.names if region not in self.resting]

    def settled(self) -> None:
        self.tick()
        super().settled()

    def tick(self) -> None:
        """Do what a region's server does once a second."""
        for region in self.awake:
            self.owner[region].execute(b"SELECT acgs.refresh_rules(), acgs.retry_quarantine()")

    def fast(self, region: str, ahead_us: int) -> None:
        """Set how far a region's clock is ahead of the others'."""
        self._skew_us = {region: ahead_us}
        self.advance(0)

    def advance(self, by_us: int) -> None:
        """Let time go on in every region."""
        self._offset_us += by_us
        for region in self.names:
            offset_us = self._offset_us + self._skew_us.get(region, 0)
            self.owner[region].execute(b"UPDATE acgs.self SET clock_offset_us = %s", (offset_us,))
        self.tick()

    def down(self, region: str) -> None:
        """Cut a region off, both ways, and let it do nothing."""
        for peer in self.names:
            if peer != region:
                self.cut(region, peer)
                self.cut(peer, region)
        self.resting = {region}

    def up(self) -> None:
        """Let every region take part again."""
        self.resting = set()
        self.tick()
        self.heal()

    def set_aside(self) -> int:
        """Return how many journal rows are in quarantine anywhere."""
        query = b"SELECT count(*) FROM acgs.quarantine"
        return sum(int(c.execute(query).fetchone()[0]) for c in self.owner.values())  # type: ignore[index]

    def held(self) -> dict[str, set[tuple[str, UUID]]]:
        """Return what every region holds, tombstones not counted."""
        kinds = (*KINDS, "consent")
        return {
            region: {
                (kind, key)
                for kind in kinds
                for (key,) in conn.execute(f"SELECT key FROM acgs.{kind} WHERE NOT erased".encode())
            }
            for region, conn in self.owner.items()
        }


@contextmanager
def races_of(server: Server) -> Iterator[Races]:
    with server.regions(parse(TOPOLOGY)) as names, ExitStack() as stack:
        yield Races(server, names, stack)


class Act(ABC):
    """One way in which regions lose a right to records that all contain a token found nowhere else.

    `actor` carries it out, `late` is another writer, `loser` loses the right; after it nobody in `forbidden`
    may have a trace of the token.
    """

    zone = "eu"
    actor, late, loser = WEST, CENTRAL, US
    writers: tuple[str, ...] = (WEST, CENTRAL, US)
    forbidden: tuple[str, ...] = (US, SG)
    #: What of the tenant contains the token and is lost.
    kinds: tuple[str, ...] = KINDS

    def __init__(self, regions: Races) -> None:
        self.regions = regions
        self.token = f"Token{uuid4().hex}"
        self.keys: dict[str, UUID] = {kind: uuid4() for kind in KINDS}
        self.added = 0
        self._adding = threading.Lock()
        self._old: list[dict[str, Any]] = []
        (self.began_at,) = regions.owner[WEST].execute(b"SELECT clock_timestamp()").fetchone() or (None,)

    @property
    def tenant(self) -> UUID:
        return self.keys["tenant"]

    @property
    def person(self) -> UUID:
        return self.keys["user_profile"]

    @property
    def keepers(self) -> list[str]:
        return [region for region in self.regions.names if region not in self.forbidden]

    def holders(self, kind: str) -> list[str]:
        """Return the regions that hold a kind of the records after the act."""
        return self.keepers

    def prepare(self) -> None:
        """Have every writer hold the records."""
        name = self.token if "tenant" in self.kinds else "T"
        regions = self.regions
        regions.app[WEST].execute(
            b"INSERT INTO acgs.tenant (key, zone, name) VALUES (%s, %s, %s)", (self.tenant, self.zone, name)
        )
        self.insert(WEST, "user_profile", self.person, display_name=self.token)
        for kind in self.kinds:
            if kind == "tenant_config":
                self.insert(WEST, kind, self.keys[kind], settings=json.dumps({"token": self.token}))
            elif kind == "agent":
                self.insert(WEST, kind, self.keys[kind], name=self.token)
            elif kind == "audit_event":
                self.insert(WEST, kind, self.keys[kind], actor=self.token, action="a")
        self.permit()
        regions.settled()
        for region in self.writers:
            assert regions.holds(region, self.person), f"{region} was not given the record"

    def permit(self) -> None:  # noqa: B027 - most rights are the topology's already
        """Give the right that is going to end."""

    @abstractmethod
    def carry_out(self) -> None:
        """End it."""

    def insert(self, region: str, kind: str, key: UUID, **fields: Any) -> bool:
        names = ["key", "zone", "tenant_id", *fields]
        statement = f"INSERT INTO acgs.{kind} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})"
        return self.write(region, statement, key, self.zone, self.tenant, *fields.values())

    def write(self, region: str, statement: str, *parameters: Any) -> bool:
        """Return whether a region carried a statement out."""
        try:
            return self.regions.app[region].execute(statement.encode(), parameters).rowcount > 0
        except psycopg.DatabaseError as error:
            if error.sqlstate not in REFUSED:
                raise
            return False

    def put(self, region: str) -> None:
        """Have a region change what it holds of the token, and add to it."""
        value = f"{self.token} {region} {uuid4().hex}"
        change = (
            "UPDATE acgs.user_profile SET display_name = %s, login_count = coalesce(login_count, 0) + 1,"
            " preferences = preferences || %s WHERE key = %s AND NOT erased"
        )
        if self.write(region, change, value, [value], self.person):
            with self._adding:
                self.added += 1
        if "agent" in self.kinds:
            change = "UPDATE acgs.agent SET description = %s WHERE key = %s AND NOT erased"
            self.write(region, change, value, self.keys["agent"])
            change = "UPDATE acgs.tenant_config SET settings = %s, config_version = config_version + 1 WHERE key = %s"
            self.write(region, change, json.dumps({"token": value}), self.keys["tenant_config"])
            self.insert(region, "audit_event", uuid4(), actor=value, action="a")
            self.insert(region, "user_profile", uuid4(), display_name=value)

    def remember(self) -> None:
        """Keep what the regions' journals say about the token now, to say it again much later."""
        query = (
            b"SELECT to_jsonb(j) FROM acgs.journal AS j WHERE kind = 'put' AND strpos(records::text, %s) > 0"
        )
        for conn in self.regions.owner.values():
            self._old += [row for (row,) in conn.execute(query, (self.token,)).fetchall()]

    def repeat(self) -> int:
        """Deliver all that was remembered once more to those forbidden to have it, as a link would."""
        repeated = 0
        for region in self.forbidden:
            admin = self.regions.admin[region]
            with admin.transaction():
                admin.execute(b"SET LOCAL session_replication_role = replica")
                for row in (r for r in self._old if region in r["targets"]):
                    admin.execute(
                        b"INSERT INTO acgs.journal SELECT * FROM jsonb_populate_record(NULL::acgs.journal, %s)",
                        (json.dumps(row),),
                    )
                    repeated += 1
        return repeated

    def emit_again(self) -> None:
        """Have every region send what it has of the records to all others, and those without a right ask."""
        for region, conn in self.regions.owner.items():
            others = [other for other in self.regions.names if other != region]
            for kind in (*self.kinds, "user_profile"):
                keys = b"SELECT array_agg(key) FROM acgs.%s WHERE key = ANY (%%s)" % kind.encode()
                (found,) = conn.execute(keys, (list(self.keys.values()),)).fetchone() or (None,)
                if found:
                    conn.execute(
                        b"INSERT INTO acgs.due (entity, kind, keys, targets) VALUES (%s, 'put', %s, %s)",
                        (kind, found, others),
                    )
                for target in (t for t in self.forbidden if t != region):
                    try:
                        self.regions.admin[region].execute(
                            b"SELECT acgs.ask(gen_random_uuid(), %s, %s, %s, NULL, NULL, false)",
                            (target, kind, self.zone),
                        )
                    except psycopg.DatabaseError as error:
                        if error.sqlstate not in ("AC011", "AC012"):
                            raise

    def unreported(self) -> list[str]:
        """Return what should have been reported as done and was not."""
        owed = {(kind, self.keys[kind], f) for kind in self.kinds for f in self.owing}
        query = b"SELECT entity, key, region, done_at FROM acgs.duty WHERE key = ANY (%s)"
        found = [
            row
            for conn in self.regions.owner.values()
            for row in conn.execute(query, (list(self.keys.values()),)).fetchall()
        ]
        done = {(entity, key, region) for entity, key, region, at in found if at is not None}
        return [f"open: {row}" for row in found if row[3] is None] + [f"never owed: {o}" for o in owed - done]

    @property
    def owing(self) -> list[str]:
        """Regions that must confirm."""
        return [self.loser]


class Revoked(Act):
    """A transfer is revoked."""

    key: UUID

    def permit(self) -> None:
        self.key = self.regions.transfer(WEST, "eu", US, "scc", list(KINDS))

    def carry_out(self) -> None:
        self.regions.revoke(self.actor, self.key)

    def unreported(self) -> list[str]:
        """Every region has the loser's report on every kind."""
        query = b"SELECT entity FROM acgs.disposal WHERE region = %s AND zone = %s AND done_at > %s"
        return [
            f"{region} has no report on {kind}"
            for region, conn in self.regions.owner.items()
            for kind in set(KINDS)
            - {k for (k,) in conn.execute(query, (self.loser, self.zone, self.began_at))}
        ]


class Expires(Revoked):
    """A transfer expires; the last moments before it are raced too."""

    def permit(self) -> None:
        super().permit()
        self.regions.settled()
        ends = b"UPDATE acgs.transfer SET expires = to_timestamp((acgs.now_us() + %s) / 1000000.0) WHERE key = %s"
        self.regions.app[WEST].execute(ends, (HOUR_US, self.key))

    def carry_out(self) -> None:
        self.regions.advance(HOUR_US - 200_000)
        for region in (self.actor, self.loser):
            if region in self.regions.awake:
                self.put(region)
                self.regions.work(region)
        self.regions.advance(200_000)


class Withdrawn(Act):
    """A person withdraws consent; a region that holds them by a transfer knows no consents."""

    zone = "de"
    loser = SG
    writers = (WEST, CENTRAL, US, SG)
    forbidden = (SG,)
    kinds = ("user_profile", "consent")

    def permit(self) -> None:
        self.keys["consent"] = consent_key(self.person, SG)
        self.write(
            WEST,
            "SELECT acgs.grant_consent(%s, 'de', %s, %s, %s, %s)",
            *(self.keys["consent"], self.tenant, self.person, SG, self.token),
        )

    def holders(self, kind: str) -> list[str]:
        return [WEST, CENTRAL] if kind == "consent" else self.keepers

    def carry_out(self) -> None:
        self.regions.withdraw(self.actor, self.tenant, self.person, SG, "de")


class Moved(Act):
    """A tenant moves to a zone that its old homes may not hold."""

    zone = "fr"
    actor, late, loser = US, CENTRAL, WEST
    forbidden = (WEST, CENTRAL, SG)

    def carry_out(self) -> None:
        moved = self.regions.app[US].execute(b"SELECT acgs.move_tenant(%s, 'us')", (self.tenant,)).fetchone()
        assert moved == (1,)

    @property
    def owing(self) -> list[str]:
        return [WEST, CENTRAL]


class Erased(Act):
    """A person is erased, with what they agreed to."""

    zone = "all"
    writers = (WEST, CENTRAL, US, SG)
    forbidden = (WEST, CENTRAL, US, SG)
    kinds = ("user_profile", "consent")

    def permit(self) -> None:
        self.keys["consent"] = consent_key(self.person, US)
        self.write(
            WEST,
            "SELECT acgs.grant_consent(%s, 'all', %s, %s, %s, %s)",
            *(self.keys["consent"], self.tenant, self.person, US, self.token),
        )

    def carry_out(self) -> None:
        app = self.regions.app[self.actor]
        with app.transaction():
            app.execute(b"UPDATE acgs.user_profile SET erased = true WHERE key = %s", (self.person,))
            app.execute(b"UPDATE acgs.consent SET erased = true WHERE subject_id = %s", (self.person,))

    @property
    def owing(self) -> list[str]:
        return [CENTRAL, US, SG]


ACTS: dict[str, type[Act]] = {
    "transfer revoked": Revoked,
    "transfer expires": Expires,
    "consent withdrawn": Withdrawn,
    "tenant moves": Moved,
    "person erased": Erased,
}
