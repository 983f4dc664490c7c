"""Faults as small objects: each begins and ends, says what it did, and how it is known to have bitten."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import psycopg

from acgs2.drill.world import World, wait_until

__all__ = [
    "ClockOff",
    "Cut",
    "DroppedSlot",
    "Freeze",
    "Injection",
    "Kill",
    "LinksCrash",
    "Lossy",
    "NotBegun",
    "Slow",
    "Together",
]


class NotBegun(Exception):
    """A fault cannot begin now, and why."""


@dataclass(frozen=True)
class Injection(ABC):
    """One fault that is about to be, or is, or was.

    `begin` and `end` return how it is known that the fault bit, or None if that is not known (yet).
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def target(self) -> str:
        """Return what it is done to."""

    @property
    def did(self) -> str:
        """Return what is done, in words."""
        return f"{self.name} {self.target}"

    @property
    def down(self) -> frozenset[str]:
        """Return the regions that do not work, or not all of them, while it lasts."""
        return frozenset()

    @property
    def loses(self) -> str | None:
        """Return the region whose data it takes."""
        return None

    @property
    def needs(self) -> frozenset[str]:
        """Return the regions that must work when it begins, so that it can be told that it bit."""
        return frozenset()

    @abstractmethod
    def begin(self, world: World) -> str | None:
        """Do it; raises NotBegun."""

    @abstractmethod
    def end(self, world: World) -> str | None:
        """Undo it, or leave it to the cluster; safe to repeat."""


@dataclass(frozen=True)
class Together(Injection):
    """Several faults that are one: they begin at the same moment, and it bit where each of them did.

    Args:
        what: is done, in words.
        faults: of which it is made.
        about: the regions that it is done to.
    """

    what: str
    faults: tuple[Injection, ...]
    about: tuple[str, ...]
    name = "together"

    @property
    def target(self) -> str:
        """Return to which regions."""
        return " and ".join(self.about)

    @property
    def did(self) -> str:
        """Return what is done."""
        return f"{self.what} {self.target}"

    @property
    def down(self) -> frozenset[str]:
        """Return what any of them takes."""
        return frozenset[str]().union(*(fault.down for fault in self.faults))

    @property
    def needs(self) -> frozenset[str]:
        """Return what any of them needs."""
        return frozenset[str]().union(*(fault.needs for fault in self.faults))

    def begin(self, world: World) -> str | None:
        """Begin all; what is said of the first stands for all."""
        return self._all([lambda f=fault: f.begin(world) for fault in self.faults])

    def end(self, world: World) -> str | None:
        """End all."""
        return self._all([lambda f=fault: f.end(world) for fault in self.faults])

    def _all(self, acts: list[Callable[[], str | None]]) -> str | None:
        with ThreadPoolExecutor(len(acts)) as pool:
            said = list(pool.map(lambda act: act(), acts))
        return f"{len(said)} of {len(said)}: {said[0]}" if all(said) else None


@dataclass(frozen=True)
class Kill(Injection):
    """SIGKILL to the processes of regions, all or one component of each, and their start."""

    regions: tuple[str, ...]
    component: str = "all"
    name = "kill"

    @property
    def target(self) -> str:
        """Return which."""
        return " and ".join(self.regions) + ("" if self.component == "all" else f" {self.component}")

    @property
    def down(self) -> frozenset[str]:
        """Return those that are dead."""
        return frozenset(self.regions)

    def begin(self, world: World) -> str | None:
        """Kill them."""
        for region in self.regions:
            world.cluster.ask("kill", region=region, component=self.component)
        if self.component == "all":
            for region in self.regions:
                world.history.note_death(world.death_of(region))
        parts = ("postgres", "server") if self.component == "all" else (self.component,)
        pids = [world.part(region, part)["pid"] for region in self.regions for part in parts]
        return "no process is left" if not any(pids) else None

    def end(self, world: World) -> str | None:
        """Start them again."""
        for region in self.regions:
            world.cluster.ask("start", region=region, component=self.component)
        return None


@dataclass(frozen=True)
class Freeze(Injection):
    """SIGSTOP to all processes of a region, and SIGCONT."""

    region: str
    name = "freeze"

    @property
    def target(self) -> str:
        """Return which."""
        return self.region

    @property
    def down(self) -> frozenset[str]:
        """Return the same."""
        return frozenset({self.region})

    def begin(self, world: World) -> str | None:
        """Stop them in their tracks."""
        world.cluster.ask("freeze", region=self.region)
        answer = world.ask(self.region, "GET", "/health/live", timeout_s=0.5)
        return "its server takes connections and answers nobody" if answer is None else None

    def end(self, world: World) -> str | None:
        """Let them go on."""
        world.cluster.ask("thaw", region=self.region)
        return None


@dataclass(frozen=True)
class _LinkFault(Injection):
    """Something between two regions."""

    a: str
    b: str

    @property
    def target(self) -> str:
        """Return between whom."""
        return f"{self.a} - {self.b}"

    @property
    def needs(self) -> frozenset[str]:
        """Return the same."""
        return frozenset({self.a, self.b})

    def end(self, world: World) -> str | None:
        """Make the link as it was."""
        world.cluster.link("restore", self.a, self.b)
        return None


@dataclass(frozen=True)
class Cut(_LinkFault):
    """Nothing passes, one way or both; at the end connections go on, or are reset as by a middlebox."""

    one_way: bool = False
    reset: bool = False

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return what kind of cut it is."""
        kind = "cut one way" if self.one_way else "cut"
        return f"{kind} and reset" if self.reset else kind

    def begin(self, world: World) -> str | None:
        """Cut it."""
        world.cluster.link("cut", self.a, self.b, one_way=self.one_way)
        silent = world.answers_after_s(self.a, self.b, 1.0) is None
        return "no answer comes over it" if silent else None

    def end(self, world: World) -> str | None:
        """Restore it."""
        before = _connections(world, self.a, self.b)
        after = world.cluster.link("restore", self.a, self.b, reset=self.reset)
        if not self.reset:
            return None
        left = sum(
            r["connections"] for r in after["routes"] if {r["source"], r["target"]} == {self.a, self.b}
        )
        return f"{before - left} connections were reset" if left < before else None


def _connections(world: World, a: str, b: str) -> int:
    routes = world.cluster.link("status")["routes"]
    return sum(r["connections"] for r in routes if {r["source"], r["target"]} == {a, b})


@dataclass(frozen=True)
class Slow(_LinkFault):
    """A link many times slower."""

    factor: float = 10.0
    name = "slow"

    @property
    def did(self) -> str:
        """Return how slow."""
        return f"{self.name} {self.target} {self.factor:g} times"

    def begin(self, world: World) -> str | None:
        """Slow it down."""
        world.cluster.link("set", self.a, self.b, factor=self.factor)
        lines = world.cluster.link("status")["lines"]
        rtt_s = next(n["rtt_ms"] for n in lines if (n["from"], n["to"]) == (self.a, self.b)) / 1000
        took_s = world.answers_after_s(self.a, self.b, 30.0)
        slow = took_s is not None and took_s >= rtt_s * self.factor * 0.9
        return f"an answer took {took_s:.3f} s, usually {rtt_s:.3f}" if slow else None


@dataclass(frozen=True)
class Lossy(_LinkFault):
    """A link that loses a share of what is sent, as TCP sees it: it comes a retransmission later."""

    loss: float = 0.3
    name = "lossy"

    @property
    def did(self) -> str:
        """Return how lossy."""
        return f"{self.name} {self.target} {self.loss:.0%}"

    def begin(self, world: World) -> str | None:
        """Lose some."""
        usual_s = world.answers_after_s(self.a, self.b, 5.0)
        world.cluster.link("set", self.a, self.b, loss=self.loss)
        for tries in range(1, 41):
            took_s = world.answers_after_s(self.a, self.b, 5.0)
            if took_s is not None and usual_s is not None and took_s > usual_s + 0.15:
                return f"answer {tries} took {took_s:.3f} s, usually {usual_s:.3f}"
        return None

    def end(self, world: World) -> str | None:
        """Lose no more."""
        world.cluster.link("set", self.a, self.b, loss=0.0)
        return super().end(world)


@dataclass(frozen=True)
class LinksCrash(Injection):
    """SIGKILL to the process that is all links; the supervisor starts it again."""

    name = "crash of the links"

    @property
    def target(self) -> str:
        """Return which."""
        return "all links"

    @property
    def did(self) -> str:
        """Return what is done."""
        return "kill -9 of the links process"

    def begin(self, world: World) -> str | None:
        """Kill it and wait for the new one."""
        before = world.part("links", "links")
        os.kill(before["pid"], signal.SIGKILL)

        def back() -> bool:
            part = world.part("links", "links")
            return part["phase"] == "ready" and part["pid"] != before["pid"]

        return "all connections broke; it has a new pid" if wait_until(back, 20.0) else None

    def end(self, world: World) -> str | None:
        """Nothing is left to undo."""
        return None


@dataclass(frozen=True)
class ClockOff(Injection):
    """A region's clock is ahead or behind."""

    region: str
    offset_ms: int

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return how far in words: regions take in what is less than half a second ahead."""
        return "clock off a little" if abs(self.offset_ms) < 500 else "clock far off"

    @property
    def target(self) -> str:
        """Return whose."""
        return self.region

    @property
    def needs(self) -> frozenset[str]:
        """Return the same."""
        return frozenset({self.region})

    @property
    def did(self) -> str:
        """Return how far."""
        return f"{self.name}: {self.region} by {self.offset_ms} ms"

    def begin(self, world: World) -> str | None:
        """Set it."""
        return self._set(world, self.offset_ms * 1000)

    def end(self, world: World) -> str | None:
        """Set it right."""
        self._set(world, 0)
        return None

    def _set(self, world: World, offset_us: int) -> str | None:
        try:
            with world.database(self.region) as conn:
                conn.execute(b"UPDATE acgs.self SET clock_offset_us = %s", (offset_us,))
                conn.execute(b"SELECT acgs.refresh_rules()")
                query = b"SELECT (acgs.now_us() - extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
                row = conn.execute(query).fetchone()
        except psycopg.Error as error:
            raise NotBegun(f"its database does not answer: {type(error).__name__}") from error
        return f"its time is {row[0] / 1000:.1f} ms off" if row and abs(row[0] - offset_us) < 50_000 else None


@dataclass(frozen=True)
class DroppedSlot(Injection):
    """The replication slot from which a region reads another is dropped by hand."""

    source: str
    reader: str
    name = "dropped slot"

    @property
    def target(self) -> str:
        """Return which."""
        return f"{self.source} to {self.reader}"

    @property
    def needs(self) -> frozenset[str]:
        """Return both."""
        return frozenset({self.source, self.reader})

    def begin(self, world: World) -> str | None:
        """Drop it, ending its reader until it is free."""
        slots = b"SELECT active_pid FROM pg_replication_slots WHERE slot_name = acgs.link_name(%s, %s)"
        names = (self.source, self.reader)

        def dropped() -> bool:
            try:
                with world.database(self.source) as conn:
                    row = conn.execute(slots, names).fetchone()
                    if row is None:
                        return False  # being made anew for another reason
                    if row[0] is not None:
                        conn.execute(b"SELECT pg_terminate_backend(%s)", (row[0],))
                    conn.execute(b"SELECT pg_drop_replication_slot(acgs.link_name(%s, %s))", names)
                    return True
            except psycopg.Error:
                return False

        return "the slot was dropped" if wait_until(dropped, 10.0) else None

    def end(self, world: World) -> str | None:
        """See whether the reader has made it anew."""
        query = b"SELECT 1 FROM acgs.incoming WHERE peer = %s AND reason = 'slot-missing'"
        try:
            with world.database(self.reader) as conn:
                made = conn.execute(query, (self.source,)).fetchone()
        except psycopg.Error:
            return None
        return "the reader made it anew" if made else None
