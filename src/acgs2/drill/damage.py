"""Faults of data: disks that are gone or old, rows changed by hand, rows that cannot be merged."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from acgs2.drill.faults import Injection, NotBegun
from acgs2.drill.world import World, wait_until

__all__ = ["Destroyed", "Forged", "OldBackup", "Poison", "mend"]

_SETTLED_S = 20.0
_POISON = "torture_poison"
#: Not valid for what is there already: an earlier row of this kind has been taken in.
_REFUSE = (
    f"ALTER TABLE acgs.user_profile ADD CONSTRAINT {_POISON}"
    " CHECK (display_name NOT LIKE '%+poison~') NOT VALID"
)


@dataclass(frozen=True)
class _DiskFault(Injection):
    """A region's data directory is gone or another one."""

    region: str

    @property
    def target(self) -> str:
        """Return whose."""
        return self.region

    @property
    def down(self) -> frozenset[str]:
        """Return the same."""
        return frozenset({self.region})

    @property
    def loses(self) -> str | None:
        """Return the same."""
        return self.region

    def _spare(self, world: World) -> None:
        """Make sure that the others have what an earlier loss took; raises NotBegun."""
        if not wait_until(world.settled, _SETTLED_S, every_s=0.3):
            raise NotBegun("the cluster is not whole: a second disk may not go before the first is made good")

    def _lose(self, world: World) -> None:
        """Kill the region and note what may be gone with its disk."""
        world.cluster.ask("kill", region=self.region, component="all")
        world.history.note_loss(world.loss_of(self.region))

    def _start(self, world: World, was: str) -> str | None:
        world.cluster.ask("start", region=self.region, component="all")
        now = wait_until(lambda: _ready(world, self.region), 40.0, every_s=0.2)
        return f"a new life, {now}, was {was}" if now and now != was else None


def _origin(world: World, region: str) -> str:
    with world.database(region) as conn:
        row = conn.execute(b"SELECT origin FROM acgs.self").fetchone()
    return str(row[0]) if row else ""


def _ready(world: World, region: str) -> str | None:
    health = world.health(region)
    return str(health["origin"]) if health.get("status") == "ready" else None


@dataclass(frozen=True)
class Destroyed(_DiskFault):
    """The data directory is removed while the region is dead."""

    name = "disk destroyed"

    def begin(self, world: World) -> str | None:
        """Kill, remove."""
        self._spare(world)
        was = _origin(world, self.region)
        self._lose(world)
        shutil.rmtree(world.state.data_path(self.region))
        world.remembered[self.region] = was
        return None

    def end(self, world: World) -> str | None:
        """Start it; it is to take a new life and be given everything."""
        return self._start(world, world.remembered.get(self.region, ""))


@dataclass(frozen=True)
class OldBackup(_DiskFault):
    """A cold copy of the data directory is taken, and put back in place of the newer one at the end."""

    name = "old backup restored"

    def begin(self, world: World) -> str | None:
        """Stop, copy, start."""
        self._spare(world)
        world.cluster.ask("kill", region=self.region, component="all")
        copy = _copy(world, self.region)
        shutil.rmtree(copy, ignore_errors=True)
        # `cp` keeps owners and modes of all that is in it.
        subprocess.run(["cp", "-a", str(world.state.data_path(self.region)), str(copy)], check=True)
        world.cluster.ask("start", region=self.region, component="all")
        return None

    def end(self, world: World) -> str | None:
        """Put the copy back: only if no other loss is being made good."""
        copy = _copy(world, self.region)
        if not copy.exists():
            return None
        self._spare(world)
        was = _origin(world, self.region)
        self._lose(world)
        shutil.rmtree(world.state.data_path(self.region))
        copy.rename(world.state.data_path(self.region))
        return self._start(world, was)


def _copy(world: World, region: str) -> Path:
    return world.state.region_path(region) / "backup"


@dataclass(frozen=True)
class Forged(Injection):
    """A row that nobody else touches is changed by hand, past the triggers."""

    region: str
    peer: str
    key: str
    name = "row changed by hand"

    @property
    def target(self) -> str:
        """Return where."""
        return f"{self.region}, user {self.key}"

    @property
    def needs(self) -> frozenset[str]:
        """Return where."""
        return frozenset({self.region, self.peer})

    def begin(self, world: World) -> str | None:
        """Change it."""
        try:
            with world.database(self.region) as conn:
                conn.execute(b"SET session_replication_role = replica")
                forge = b"UPDATE acgs.user_profile SET locale = 'forged' WHERE key = %s AND NOT erased"
                if not conn.execute(forge, (self.key,)).rowcount:
                    raise NotBegun("the row is not there")
        except psycopg.Error as error:
            raise NotBegun(f"its database does not answer: {type(error).__name__}") from error
        return None

    def end(self, world: World) -> str | None:
        """Have the region compare itself, and see whether the row is as it was."""
        world.ask(self.region, "POST", "/api/v1/repair", params={"peer": self.peer}, timeout_s=60.0)

        def mended() -> bool:
            return self._value(world) not in (None, "forged")

        return "found by comparing, and put right" if wait_until(mended, 15.0) else None

    def _value(self, world: World) -> Any:
        try:
            with world.database(self.region) as conn:
                row = conn.execute(
                    b"SELECT coalesce(locale, '') FROM acgs.user_profile WHERE key = %s", (self.key,)
                ).fetchone()
        except psycopg.Error:
            return None
        return row[0] if row else None


@dataclass(frozen=True)
class Poison(Injection):
    """A region's database loses the ability to take in one record, and another region writes it."""

    region: str
    writer: str
    zone: str
    tenant: str
    key: str
    slot: str
    name = "row that cannot be merged"

    @property
    def target(self) -> str:
        """Return where."""
        return f"{self.region}, written in {self.writer}"

    @property
    def needs(self) -> frozenset[str]:
        """Return both."""
        return frozenset({self.region, self.writer})

    def begin(self, world: World) -> str | None:
        """Refuse the value there, write it here, and wait until it has been set aside."""
        text = f"~user_profile/{self.slot}+poison~"
        try:
            with world.database(self.region) as conn:
                conn.execute(_REFUSE.encode())
        except psycopg.Error as error:
            raise NotBegun(f"its database does not take it: {type(error).__name__}") from error
        sent = {"display_name": text}
        number = world.history.invoke(
            "nemesis", self.writer, self.zone, "create", "user_profile", self.key, sent=sent
        )
        headers = {"x-data-sovereignty": self.zone, "idempotency-key": f"user_profile/{self.slot}"}
        answer = world.ask(
            self.writer,
            "POST",
            "/api/v1/users",
            headers=headers,
            json={"tenant_id": self.tenant, **sent},
            timeout_s=8.0,
        )
        status = answer.status_code if answer is not None else 503
        told = "ok" if status < 300 else "info" if status >= 500 else "fail"
        world.history.complete(number, told, {"status": status, "problem": "by the nemesis"})
        aside = wait_until(lambda: self._aside(world), 25.0, every_s=0.2) if told == "ok" else None
        return "the row was set aside, and the link went on" if aside else None

    def end(self, world: World) -> str | None:
        """Take it in again."""
        mend(world, self.region)
        return None

    def _aside(self, world: World) -> bool:
        query = b"SELECT 1 FROM acgs.quarantine WHERE reason = 'cannot-be-merged' AND records::text LIKE %s"
        try:
            with world.database(self.region) as conn:
                return conn.execute(query, (f"%{self.key}%",)).fetchone() is not None
        except psycopg.Error:
            return False


def mend(world: World, region: str) -> None:
    """Let a region take in everything again, and retry what it has set aside, as an operator does."""
    with world.database(region) as conn:
        conn.execute(f"ALTER TABLE acgs.user_profile DROP CONSTRAINT IF EXISTS {_POISON}".encode())
        held = conn.execute(b"SELECT id FROM acgs.quarantine WHERE reason = 'cannot-be-merged'").fetchall()
    for (number,) in held:
        world.ask(region, "POST", f"/api/v1/quarantine/{number}/retry")
