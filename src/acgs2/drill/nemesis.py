"""Plans faults from a seed and carries them out one over the other, for as long as it is told."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import psycopg

from acgs2.drill.damage import Destroyed, Forged, OldBackup, Poison, mend
from acgs2.drill.faults import (
    ClockOff,
    Cut,
    DroppedSlot,
    Freeze,
    Injection,
    Kill,
    LinksCrash,
    Lossy,
    NotBegun,
    Slow,
)
from acgs2.drill.history import Fault
from acgs2.drill.plan import Stock
from acgs2.drill.world import World, wait_until
from acgs2.errors import AcgsError
from acgs2.topology import Topology

__all__ = ["KINDS", "Nemesis", "Planned", "Terrain", "plan_faults"]

#: How long after its end a region that was down is still counted as such, and one that lost its data.
_RECOVERY_S, _MADE_GOOD_S = 3.0, 15.0


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault with its time, in seconds since the nemesis began."""

    at_s: float
    until_s: float
    fault: Injection


@dataclass(frozen=True)
class Terrain:
    """What faults may be done to: regions, those with data, and rows that only the nemesis touches.

    `shared` is a zone that several regions hold, without a pair: there rows are forged and poisoned.
    `still` are names of users in it that nobody changes.
    """

    topology: Topology
    stock: Stock
    shared: str
    still: Sequence[str]

    @property
    def data_regions(self) -> list[str]:
        """Return the regions that hold data."""
        return [name for name, region in self.topology.regions.items() if region.role != "witness"]

    @property
    def most_down(self) -> int:
        """Return how many regions may be down at once with a majority of voters left."""
        voters = sum(region.voter for region in self.topology.regions.values())
        return (voters - 1) // 2


Maker = Callable[[Random, Terrain, int], Injection]


def _any(rng: Random, terrain: Terrain) -> str:
    return rng.choice(list(terrain.topology.regions))


def _homes(rng: Random, terrain: Terrain, count: int) -> list[str]:
    return rng.sample(list(terrain.topology.zones[terrain.shared].regions), count)


def _link(rng: Random, terrain: Terrain) -> tuple[str, str]:
    """Choose two regions, every other time two that hold data together."""
    if rng.random() < 0.5:
        a, b = _homes(rng, terrain, 2)
        return a, b
    return rng.choice(terrain.topology.directions())


def _clock(rng: Random, least_ms: int, most_ms: int) -> int:
    return rng.choice([-1, 1]) * rng.randint(least_ms, most_ms)


def _forged(rng: Random, terrain: Terrain) -> Injection:
    name = rng.choice(terrain.still)
    region, peer = _homes(rng, terrain, 2)
    return Forged(region, peer, terrain.stock.key("user_profile", name))


def _poison(rng: Random, terrain: Terrain, number: int) -> Injection:
    region, writer = _homes(rng, terrain, 2)
    zone, slot = terrain.shared, f"{terrain.shared}.poison.{number}"
    stock = terrain.stock
    return Poison(region, writer, zone, stock.tenant(zone), stock.key("user_profile", slot), slot)


#: Every kind of fault: how to make one, and how long it lasts at least and at most.
KINDS: Mapping[str, tuple[Maker, float, float]] = {
    "kill a region": (lambda r, t, n: Kill((_any(r, t),)), 2, 9),
    "kill two regions": (lambda r, t, n: Kill(tuple(r.sample(list(t.topology.regions), 2))), 2, 8),
    "kill a database": (lambda r, t, n: Kill((r.choice(t.data_regions),), "postgres"), 1, 6),
    "kill a server": (lambda r, t, n: Kill((r.choice(t.data_regions),), "server"), 1, 6),
    "freeze a region": (lambda r, t, n: Freeze(_any(r, t)), 1, 9),
    "cut a link": (lambda r, t, n: Cut(*_link(r, t)), 2, 9),
    "cut a link one way": (lambda r, t, n: Cut(*_link(r, t), one_way=True), 2, 9),
    "cut and reset a link": (lambda r, t, n: Cut(*_link(r, t), reset=True), 1, 6),
    "slow link": (lambda r, t, n: Slow(*_link(r, t), factor=r.uniform(5, 20)), 3, 12),
    "lossy link": (lambda r, t, n: Lossy(*_link(r, t), loss=r.uniform(0.1, 0.4)), 3, 12),
    "clock off a little": (lambda r, t, n: ClockOff(r.choice(t.data_regions), _clock(r, 100, 450)), 3, 12),
    "clock far off": (lambda r, t, n: ClockOff(r.choice(t.data_regions), _clock(r, 1500, 4000)), 2, 6),
    "drop a slot": (lambda r, t, n: DroppedSlot(*_homes(r, t, 2)), 4, 8),
    "crash the links": (lambda r, t, n: LinksCrash(), 1, 1),
    "destroy a disk": (lambda r, t, n: Destroyed(r.choice(t.data_regions)), 1, 6),
    "restore an old backup": (lambda r, t, n: OldBackup(r.choice(t.data_regions)), 6, 15),
    "change a row by hand": (lambda r, t, n: _forged(r, t), 1, 4),
    "row that cannot be merged": (_poison, 2, 5),
}


def plan_faults(seed: int, terrain: Terrain, *, gap_s: float) -> Iterator[Planned]:
    """Yield faults without end, in the order in which they begin; the same for the same seed.

    Every kind comes once before any comes again. A majority of voters is never down. While a region's disk is
    gone or is being made good no other region is down: of what a pair has there is one copy then.

    Args:
        seed: of the run.
        terrain: what there is.
        gap_s: the time between the beginnings of two faults, on average.
    """
    rng = Random(f"{seed}/nemesis")
    busy: list[Planned] = []
    at_s, number = 0.0, 0
    while True:
        bag = list(KINDS)
        rng.shuffle(bag)
        for kind in bag:
            make, least_s, most_s = KINDS[kind]
            fault, lasts_s = make(rng, terrain, number), rng.uniform(least_s, most_s)
            at_s += rng.uniform(0.5, 1.5) * gap_s
            number += 1
            while any(_collide(p, fault, at_s, at_s + lasts_s) for p in busy) or not _majority(
                busy, fault, at_s, at_s + lasts_s, terrain.most_down
            ):
                at_s += 1.0
            busy = [p for p in busy if p.until_s + _MADE_GOOD_S > at_s]
            busy.append(Planned(at_s, at_s + lasts_s, fault))
            yield busy[-1]


def _after_s(fault: Injection) -> float:
    return _MADE_GOOD_S if fault.loses else _RECOVERY_S if fault.down else 0.0


def _overlap(p: Planned, fault: Injection, at_s: float, until_s: float) -> bool:
    return p.at_s < until_s + _after_s(fault) and at_s < p.until_s + _after_s(p.fault)


def _collide(p: Planned, fault: Injection, at_s: float, until_s: float) -> bool:
    """Return whether two faults may not overlap: of one link or region; a lost disk and a dead region."""
    if not _overlap(p, fault, at_s, until_s):
        return False
    if (p.fault.loses and (fault.down or fault.loses)) or (fault.loses and p.fault.down):
        return True
    if p.fault.down & (fault.down | fault.needs) or type(p.fault) is type(fault) is ClockOff:
        return True
    if isinstance(p.fault, Poison | Forged) and p.fault.needs & fault.down:
        return True
    if {type(p.fault), type(fault)} in ({Poison, Cut}, {Poison, LinksCrash}):
        return True  # what is to be set aside has to arrive
    if (
        _unsettling(p.fault)
        and fault.loses
        and (p.until_s + _RECOVERY_S > at_s or isinstance(fault, OldBackup))
    ):
        return True
    if isinstance(p.fault, OldBackup) and _unsettling(fault):
        return True
    ours, theirs = _place(fault), _place(p.fault)
    return ours is not None and ours == theirs


def _unsettling(fault: Injection) -> bool:
    """Return whether a fault keeps regions from being given what they lack: no disk may go meanwhile."""
    return isinstance(fault, Cut | Poison | DroppedSlot) or (
        isinstance(fault, ClockOff) and fault.name == "clock far off"
    )


def _place(fault: Injection) -> object:
    """Return what only one fault at a time may change; the crash of the links undoes what was done to any."""
    if isinstance(fault, Cut | Slow | Lossy | LinksCrash):
        return "links" if isinstance(fault, LinksCrash) else frozenset((fault.a, fault.b))
    return type(fault).__name__ if isinstance(fault, Poison | Forged) else None


def _majority(busy: Sequence[Planned], fault: Injection, at_s: float, until_s: float, most: int) -> bool:
    down = set(fault.down)
    for p in busy:
        if _overlap(p, fault, at_s, until_s):
            down |= p.fault.down
    return len(down) <= most


class Nemesis:
    """Carries a plan out against a cluster; run it in a thread of its own.

    Args:
        world: the cluster.
        plan: what to do and when.
        say: told every step.
    """

    def __init__(self, world: World, plan: Iterator[Planned], say: Callable[[str], None]) -> None:
        self._world = world
        self._plan = plan
        self._say = say
        self._stop = threading.Event()
        self._active: list[tuple[float, int, Planned, float, str | None]] = []
        self._count = 0

    def stop(self) -> None:
        """Begin nothing more."""
        self._stop.set()

    def run(self, seconds: float) -> None:
        """Do what the plan says until the time is over, then end what has begun."""
        began_s, now_s = self._world.history.now_s(), self._world.history.now_s
        late_s = 0.0
        upcoming = next(self._plan)
        while not self._stop.is_set():
            due_s = min([upcoming.at_s, *(entry[0] for entry in self._active[:1])]) + late_s
            if due_s >= seconds or self._stop.wait(max(0.0, began_s + due_s - now_s())):
                break
            if self._active and self._active[0][0] <= upcoming.at_s:
                self._end()
            else:
                self._begin(upcoming)
                upcoming = next(self._plan)
            # What took longer than planned moves all that follows: no fault is cut short for it.
            late_s = max(late_s, now_s() - began_s - due_s + late_s)
        while self._active:
            self._end()

    def _begin(self, planned: Planned) -> None:
        fault, at_s = planned.fault, self._world.history.now_s()
        try:
            bitten = fault.begin(self._world)
        except (NotBegun, AcgsError) as why:
            self._say(f"not begun: {fault.did}: {why}")
            return
        self._say(f"begin  {fault.did}" + (f": {bitten}" if bitten else ""))
        self._count += 1
        heapq.heappush(self._active, (planned.until_s, self._count, planned, at_s, bitten))
        if isinstance(fault, LinksCrash):
            self._again()

    def _again(self) -> None:
        """Do again to the links what the new process does not know of."""
        for _, _, planned, _, _ in self._active:
            if isinstance(planned.fault, Cut | Slow | Lossy):
                planned.fault.begin(self._world)

    def _end(self) -> None:
        _, _, planned, at_s, bitten = heapq.heappop(self._active)
        fault = planned.fault
        try:
            seen = fault.end(self._world)
        except (NotBegun, psycopg.Error, AcgsError) as why:
            seen = None  # healing tries again
            self._say(f"not ended: {fault.did}: {why}")
        bitten = "; ".join(filter(None, (bitten, seen))) or None
        self._world.history.note_fault(
            Fault(fault.name, fault.target, at_s, self._world.history.now_s(), fault.did, bitten)
        )
        self._say(f"end    {fault.did}" + (f": {seen}" if seen else "" if bitten else ": IT DID NOT BITE"))

    def heal(self) -> None:
        """Undo whatever may be left of any fault, and wait until every region is whole."""
        world = self._world
        for region in world.regions:
            for part in world.cluster.ask("status")["regions"][region]:
                if part["phase"] == "frozen":
                    world.cluster.ask("thaw", region=region, component=part["component"])
                elif part["phase"] == "down":
                    world.cluster.ask("start", region=region, component=part["component"])
        for link in world.state.topology.links():
            world.cluster.link("set", link.a, link.b, loss=0.0)
            world.cluster.link("restore", link.a, link.b)
        for region in world.regions:
            wait_until(lambda r=region: _mended(world, r), 30.0, every_s=0.3)
        wait_until(world.whole, 120.0, every_s=0.3)


def _mended(world: World, region: str) -> bool:
    try:
        ClockOff(region, 0).end(world)
        mend(world, region)
    except (NotBegun, psycopg.Error):
        return False
    return True
