"""Situations in which the end of a right meets puts that do not know of it yet."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.cluster.store.races import Act

Situation = Callable[[Act], None]


def concurrent_puts(act: Act) -> None:
    """Every region goes on writing while the right ends."""
    begun = threading.Barrier(len(act.writers) + 1)
    failed: list[BaseException] = []

    def write(region: str) -> None:
        try:
            act.put(region)
            begun.wait(20)
            for _ in range(6):
                act.put(region)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=write, args=(region,)) for region in act.writers]
    for thread in threads:
        thread.start()
    begun.wait(20)
    act.carry_out()
    while any(thread.is_alive() for thread in threads):
        act.regions.work()
    for thread in threads:
        thread.join()
    assert failed == []


def late_puts(act: Act) -> None:
    """A writer that has not heard of it sends over a link that was cut."""
    act.regions.cut(act.late, act.loser)
    act.regions.cut(act.actor, act.late)
    act.put(act.late)
    act.carry_out()
    act.regions.work()
    act.put(act.late)
    act.regions.settled()
    act.regions.heal()


def learns_last(act: Act) -> None:
    """The region that loses the right goes on writing; all others know."""
    for region in act.regions.names:
        if region != act.loser:
            act.regions.cut(region, act.loser)
    act.put(act.actor)
    act.carry_out()
    act.regions.settled()
    for region in (act.loser, *act.writers):
        act.put(region)
    act.regions.settled()
    act.regions.heal()


def fast_clock(role: str, ahead_us: int) -> Situation:
    """A region's clock is ahead; what it wrote before comes late where it may not be any more."""

    def situation(act: Act) -> None:
        region = getattr(act, role)
        act.regions.fast(region, ahead_us)
        if region != act.loser:
            act.regions.cut(region, act.loser)
        act.put(region)
        act.remember()
        act.carry_out()
        act.put(region)
        act.regions.work()
        act.regions.heal()
        act.regions.settled()
        act.regions.fast(region, 0)

    return situation


def down(role: str) -> Situation:
    """A region is cut off throughout, with writes that nobody else has."""

    def situation(act: Act) -> None:
        region = getattr(act, role)
        act.regions.down(region)
        act.put(region)
        act.carry_out()
        for writer in act.writers:
            if writer != region:
                act.put(writer)
        act.regions.settled()
        act.regions.up()

    return situation


SITUATIONS: dict[str, Situation] = {
    "concurrent puts from every region": concurrent_puts,
    "late puts after a cut link heals": late_puts,
    "the region that loses learns last": learns_last,
    "the one who acts is 400 ms fast": fast_clock("actor", 400_000),
    "the one who loses is 400 ms fast": fast_clock("loser", 400_000),
    "the one who acts is 3 s fast": fast_clock("actor", 3_000_000),
    "another writer is 3 s fast": fast_clock("late", 3_000_000),
    "the region that loses was down throughout": down("loser"),
    "another writer was down throughout": down("late"),
}
