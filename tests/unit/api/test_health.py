"""What readiness is judged by, and that many probes are one question."""

from __future__ import annotations

import asyncio

import pytest

from acgs2.api.health import behind
from acgs2.api.recent import Recent


def test_only_who_can_be_reached_can_make_a_region_unready() -> None:
    late = {"eu-west-1": 9_999_000, "us-east-1": 10_001_000, "us-west-2": 60_000_000}
    assert behind(late, {"eu-west-1", "us-east-1", "ap-southeast-1"}, 10) == ["us-east-1"]
    assert behind(late, set(), 10) == []
    assert behind({}, {"eu-west-1"}, 10) == []


def test_all_who_ask_meanwhile_get_one_answer() -> None:
    asked = 0
    release = asyncio.Event()

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await release.wait()
        return asked

    async def scene() -> None:
        recent = Recent(ask, 3600)
        with pytest.raises(TimeoutError):
            await recent.get(0.01)
        impatient = asyncio.create_task(recent.get(10))
        waiting = [asyncio.create_task(recent.get(10)) for _ in range(20)]
        await asyncio.sleep(0)
        impatient.cancel()
        release.set()
        assert await asyncio.gather(*waiting) == [1] * 20
        assert await recent.get(0) == 1
        await recent.close()

    asyncio.run(scene())
    assert asked == 1


def test_an_old_answer_is_not_given_and_a_failure_is_everybodys() -> None:
    asked = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise LookupError
        return asked

    async def scene() -> None:
        recent = Recent(ask, 0)
        assert await recent.get(1) == 1
        with pytest.raises(LookupError):
            await recent.get(1)
        assert await recent.get(1) == 3

    asyncio.run(scene())
