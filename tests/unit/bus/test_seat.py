"""Who serves a zone: one at a time, in order, and never before its database knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from acgs2.bus.seat import Seat
from acgs2.consensus import Versioned
from acgs2.errors import UnavailableError

LENGTH_S = 3.0


class Shelf:
    """A register that everybody reaches, with a clock that everybody shares."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.now_s = 100.0

    async def read(self, key: str) -> Versioned:
        return Versioned(0, self.values.get(key))

    async def change(self, key: str, decide: Callable[[Any], Any]) -> Versioned:
        self.values[key] = decide(self.values.get(key))
        return Versioned(0, self.values[key])


class Region:
    """One region's seat, and what its database was told."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        self.fit = True
        self.reachable = True
        self.told: list[tuple[int, bool]] = []
        self.seat = Seat(
            shelf,
            "eu",
            name,
            LENGTH_S,
            candidates=lambda: ("a", "b", "c"),
            fit=lambda: self.fit,
            record=self.record,
            clock_s=lambda: shelf.now_s,
        )

    async def record(self, zone: str, generation: int, serving: bool) -> bool:
        if self.reachable:
            self.told.append((generation, serving))
        return self.reachable


def world() -> tuple[Shelf, dict[str, Region]]:
    shelf = Shelf()
    return shelf, {name: Region(shelf, name) for name in "abc"}


async def let_pass(shelf: Shelf, regions: list[Region], for_s: float) -> None:
    for _ in range(round(for_s * 10)):
        shelf.now_s += 0.1
        for region in regions:
            await region.seat.step()
        assert sum(region.seat.serving() is not None for region in regions) <= 1


def serving(regions: dict[str, Region]) -> list[str]:
    return [name for name, region in regions.items() if region.seat.serving() is not None]


def test_the_first_serves_and_when_it_is_gone_the_next_does_in_a_later_generation() -> None:
    async def run() -> None:
        shelf, regions = world()
        everybody = [*regions.values()]
        await let_pass(shelf, everybody[::-1], 1)
        assert serving(regions) == ["a"]
        assert regions["b"].seat.known() == ("a", 1)
        await let_pass(shelf, everybody[1:], LENGTH_S * 1.2)
        assert serving(regions) == ["b"]
        assert regions["b"].seat.serving() == 2
        assert regions["b"].told == [(2, True)]
        await let_pass(shelf, everybody, 1)
        assert serving(regions) == ["b"], "who comes back does not take it back"
        assert regions["a"].told == [(1, True), (1, False)]

    asyncio.run(run())


def test_nothing_is_served_until_the_database_knows() -> None:
    async def run() -> None:
        shelf, regions = world()
        regions["a"].reachable = False
        await let_pass(shelf, [regions["a"]], 1)
        assert serving(regions) == []
        regions["a"].reachable = True
        await let_pass(shelf, [regions["a"]], 1)
        assert serving(regions) == ["a"]

    asyncio.run(run())


def test_who_is_not_fit_serves_nothing_and_lets_the_next_do_it_at_once() -> None:
    async def run() -> None:
        shelf, regions = world()
        everybody = [*regions.values()]
        await let_pass(shelf, everybody, 1)
        regions["a"].fit = False
        assert serving(regions) == []
        await let_pass(shelf, everybody, 0.2)
        assert serving(regions) == ["b"]

    asyncio.run(run())


def test_a_handover_goes_to_the_one_that_is_named_after_what_it_needs_was_done() -> None:
    async def run() -> None:
        shelf, regions = world()
        everybody = [*regions.values()]
        await let_pass(shelf, everybody, 1)
        seen: list[Any] = []

        async def before() -> None:
            seen.append(regions["a"].seat.serving())

        await regions["a"].seat.hand_over("c", before)
        assert seen == [None], "nothing is given any more while the other learns"
        await let_pass(shelf, everybody, 0.2)
        assert serving(regions) == ["c"]

    asyncio.run(run())


def test_a_handover_to_one_that_is_away_falls_to_the_others_in_time() -> None:
    async def run() -> None:
        shelf, regions = world()
        await let_pass(shelf, [regions["a"], regions["b"]], 1)

        async def before() -> None:
            return None

        await regions["a"].seat.hand_over("c", before)
        await let_pass(shelf, [regions["a"], regions["b"]], LENGTH_S)
        assert serving(regions) == []
        await let_pass(shelf, [regions["a"], regions["b"]], LENGTH_S)
        assert serving(regions) == ["a"]

    asyncio.run(run())


class Busy(Shelf):
    """A register that keeps one change waiting, before or after it is agreed."""

    def __init__(self, *, agreed: bool) -> None:
        super().__init__()
        self.agreed = agreed
        self.keep = False
        self.kept = asyncio.Event()
        self.go = asyncio.Event()

    async def change(self, key: str, decide: Callable[[Any], Any]) -> Versioned:
        keep, self.keep = self.keep, False
        done = await super().change(key, decide) if self.agreed or not keep else None
        if keep:
            self.kept.set()
            await self.go.wait()
        return done or await super().change(key, decide)


class Silent(Shelf):
    """A register that agrees on what one change asks for, and tells nobody."""

    keeps_it = False

    async def change(self, key: str, decide: Callable[[Any], Any]) -> Versioned:
        done = await super().change(key, decide)
        if self.keeps_it:
            raise UnavailableError("no-majority", "Too many others asked as well.", hint="Try again.")
        return done


def test_who_was_given_the_inboxes_and_not_told_serves_them_at_its_next_look() -> None:
    async def run() -> None:
        shelf = Silent()
        region = Region(shelf, "a")
        shelf.keeps_it = True
        await region.seat.step()
        assert region.seat.serving() is None
        shelf.keeps_it = False
        await let_pass(shelf, [region], 0.1)
        assert region.seat.serving() == 1

    asyncio.run(run())


@pytest.mark.parametrize("agreed", [False, True])
def test_a_renewal_that_is_under_way_does_not_take_back_what_is_handed_over(agreed: bool) -> None:
    async def run() -> None:
        shelf = Busy(agreed=agreed)
        regions = {name: Region(shelf, name) for name in "abc"}
        everybody = [*regions.values()]
        await let_pass(shelf, everybody, 1)

        async def before() -> None:
            return None

        shelf.keep = True
        async with asyncio.TaskGroup() as group:
            group.create_task(regions["a"].seat.step())
            await shelf.kept.wait()
            handed = group.create_task(regions["a"].seat.hand_over("c", before))
            for _ in range(5):
                await asyncio.sleep(0)
            shelf.go.set()
            await handed
        await let_pass(shelf, everybody, 0.2)
        assert serving(regions) == ["c"]

    asyncio.run(run())


def test_what_has_lapsed_cannot_be_handed_over() -> None:
    async def run() -> None:
        shelf, regions = world()
        await let_pass(shelf, [*regions.values()], 1)

        async def before() -> None:
            await let_pass(shelf, [regions["b"]], LENGTH_S * 1.2)

        with pytest.raises(UnavailableError, match="does not serve"):
            await regions["a"].seat.hand_over("c", before)
        assert serving(regions) == ["b"]

    asyncio.run(run())
