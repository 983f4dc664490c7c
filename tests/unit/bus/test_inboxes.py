"""What must hold before anything is given or taken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from acgs2.bus.batch import Batch
from acgs2.bus.desk import Counted, Desk, Receiver
from acgs2.bus.inboxes import Inboxes
from acgs2.errors import AcgsError, ForbiddenError, UnavailableError

from .test_seat import LENGTH_S, Shelf


class Halts:
    """Whether receivers are halted."""

    halted = False

    def governed(self, _: Receiver) -> None:
        if self.halted:
            raise ForbiddenError("halted", "It is halted.")


def inboxes(shelf: Shelf, region: str, halts: Halts, length_s: float = LENGTH_S) -> Inboxes:
    async def record(zone: str, generation: int, serving: bool) -> bool:
        return True

    unused: Any = None
    return Inboxes(
        Desk(unused, Counted(unused, unused)),
        shelf,
        region,
        length_s,
        candidates=lambda _: ("a", "b"),
        endpoints=lambda regions: [{"region": r, "url": f"http://{r}"} for r in regions],
        fit=lambda: True,
        governed=halts.governed,
        record=record,
    )


def refused(found: Inboxes, receiver: Receiver, generation: int | None = None) -> AcgsError:
    with pytest.raises(AcgsError) as error:
        found.require(receiver, generation)
    return error.value


def test_only_the_region_that_serves_gives_and_only_in_the_generation_that_was_asked() -> None:
    async def run() -> None:
        shelf, halts, receiver = Shelf(), Halts(), Receiver(uuid4(), uuid4(), "eu")
        first, second = inboxes(shelf, "a", halts), inboxes(shelf, "b", halts)
        assert refused(second, receiver).reference == "inbox-not-served"
        for each in (first, second):
            await each.seat("eu").step()
        assert first.require(receiver) == 1
        assert first.require(receiver, 1) == 1
        assert refused(first, receiver, 0).reference == "inbox-not-served"
        elsewhere = refused(second, receiver)
        assert elsewhere.reference == "inbox-served-elsewhere"
        assert elsewhere.context["endpoints"] == [{"region": "a", "url": "http://a"}]
        halts.halted = True
        assert refused(first, receiver).reference == "halted"

    asyncio.run(run())


def test_a_move_says_whether_they_were_taken() -> None:
    async def run() -> None:
        shelf, halts = Shelf(), Halts()
        first, second = (inboxes(shelf, region, halts, 0.3) for region in "ab")

        async def known() -> None:
            return None

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            await first.seat("eu").step()
            running = [group.create_task(first.seat("eu").run())]
            with pytest.raises(UnavailableError) as error:
                await first.move("eu", "b", known)
            assert (error.value.reference, error.value.context["served_by"]) == ("inbox-not-taken", "a")
            assert first.serves("eu"), "who is away has lost its turn"
            running.append(group.create_task(second.seat("eu").run()))
            await first.move("eu", "b", known)
            assert second.serves("eu")
            for each in running:
                each.cancel()

    asyncio.run(run())


def test_requests_that_come_together_go_together_and_each_has_its_answer() -> None:
    async def run() -> None:
        batches: list[list[int]] = []

        async def carry(asked: Sequence[int]) -> list[int]:
            batches.append([*asked])
            await asyncio.sleep(0)
            if 13 in asked:
                raise ValueError("13")
            return [number * 2 for number in asked]

        batch: Batch[int, int] = Batch(carry, most=4, lanes=1)
        assert await asyncio.gather(*(batch.ask(n) for n in range(6))) == [0, 2, 4, 6, 8, 10]
        assert batches == [[0, 1, 2, 3], [4, 5]]
        gone = asyncio.create_task(batch.ask(7))
        await asyncio.sleep(0)
        gone.cancel()
        found = await asyncio.gather(batch.ask(13), batch.ask(14), return_exceptions=True)
        assert [type(each) for each in found] == [ValueError, ValueError]
        assert batches[2:] == [[13, 14]], "who went away is not served"
        # Just as a lane ends, it is free.
        assert [await batch.ask(n) for n in range(3)] == [0, 2, 4]

    asyncio.run(run())
