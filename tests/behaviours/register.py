"""What every register must do, whatever it is made of: a test class that each implementation inherits.

A `Group` is the members that agree, at least three, and a way to make registers over them. Members are real: they
are killed, started again and frozen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import pytest

from acgs2.consensus import Leader, Lease, Register
from acgs2.consensus.votes import majority
from acgs2.errors import UnavailableError

__all__ = ["Group", "RegisterBehaviours"]


class Group(Protocol):
    """Members that agree; made anew for every test."""

    @property
    def members(self) -> Sequence[str]:
        """Return their names."""
        ...

    def register(self, me: str) -> contextlib.AbstractAsyncContextManager[Register]:
        """Return a register over them, for one that proposes under a name of its own."""
        ...

    def kill(self, member: str) -> None:
        """End a member at once; it keeps what it has on disk."""
        ...

    def start(self, member: str) -> None:
        """Start one that was killed."""
        ...

    def freeze(self, member: str) -> None:
        """Stop a member in its tracks; it keeps its connections and says nothing."""
        ...

    def thaw(self, member: str) -> None:
        """Let it go on."""
        ...


async def until(condition: Callable[[], Awaitable[Any]], what: str, timeout_s: float = 30.0) -> Any:
    """Wait until a condition holds and return its value."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    while True:
        value = await condition()
        if value:
            return value
        assert loop.time() < deadline_s, f"waited {timeout_s} s for {what}"
        await asyncio.sleep(0.05)


async def insist(register: Register, key: str, decide: Callable[[Any], Any]) -> Any:
    """Change a value, again and again while that is not possible; `decide` knows its own effect."""

    async def attempt() -> Any:
        try:
            return await register.change(key, decide)
        except UnavailableError:
            return None

    return await until(attempt, f"a change of {key}")


def adding(name: str) -> Callable[[Any], Any]:
    """Return a change that adds a name once."""
    return lambda value: value if name in (value or []) else [*(value or []), name]


class RegisterBehaviours:
    """Inherited by a `Test...` class beside a fixture `group`."""

    def test_a_value_has_the_version_of_how_often_it_changed(self, group: Group) -> None:
        async def run() -> None:
            async with group.register("p") as p, group.register("q") as q:
                nothing = await p.read("k")
                assert (nothing.version, nothing.value) == (0, None)
                assert (await p.change("k", lambda v: v)).version == 0
                first = await p.change("k", lambda v: {"a": [1, "é\u2028", None, {"b": 1.5}], "": False})
                assert first.version == 1
                assert await q.read("k") == first == await p.read("k")
                assert await q.change("k", dict) == first, "the same value is no change"
                assert (await q.change("k", lambda v: None)).version == 2
                assert (await p.read("k")).value is None
                assert (await p.change("k", lambda v: first.value)).version == 3
                assert (await q.read("k")) == await p.change("k", lambda v: v)
                assert (await p.read("k/2")).version == 0

        asyncio.run(run())

    def test_concurrent_changes_are_all_there_exactly_once(self, group: Group) -> None:
        async def add(me: str) -> None:
            async with group.register(me) as register:
                for number in range(10):
                    await insist(register, "k", adding(f"{me}/{number}"))

        async def run() -> None:
            await asyncio.gather(*(add(f"p{n}") for n in range(3)))
            async with group.register("reader") as reader:
                agreed = await reader.read("k")
            assert len(agreed.value) == len(set(agreed.value)) == agreed.version == 30
            for me in ("p0", "p1", "p2"):
                mine = [v for v in agreed.value if v.startswith(me)]
                assert mine == [f"{me}/{n}" for n in range(10)], "in the order in which they were made"

        asyncio.run(run())

    def test_a_minority_may_be_killed_and_nothing_is_lost(self, group: Group) -> None:
        async def run() -> None:
            async with group.register("p") as p:
                assert (await p.change("k", lambda v: ["a"])).version == 1
                for number, member in enumerate(group.members):
                    group.kill(member)
                    changed = await insist(p, "k", adding(member))
                    async with group.register(f"q{number}") as q:
                        assert await insist(q, "k", lambda v: v) == changed
                    group.start(member)
                agreed = await insist(p, "k", lambda v: v)
                assert agreed.value == ["a", *group.members]
                assert agreed.version == 1 + len(group.members)

        asyncio.run(run())

    def test_without_a_majority_nothing_is_agreed_and_with_one_again_it_is(self, group: Group) -> None:
        gone = group.members[: majority(len(group.members))]

        async def run() -> None:
            async with group.register("p") as p:
                await p.change("k", lambda v: ["a"])
                for member in gone:
                    group.kill(member)
                for ask in (lambda: p.read("k"), lambda: p.change("k", adding("b"))):
                    with pytest.raises(UnavailableError) as caught:
                        await ask()
                    assert caught.value.reference == "no-majority"
                    assert caught.value.hint
                for member in gone:
                    group.start(member)
                agreed = await insist(p, "k", adding("c"))
                assert agreed.value in (["a", "c"], ["a", "b", "c"])

        asyncio.run(run())

    def test_changes_go_on_while_any_one_member_is_frozen(self, group: Group) -> None:
        async def run() -> None:
            async with group.register("p") as p, group.register("q") as q:
                await p.change("k", lambda v: ["a"])
                for member in group.members:
                    group.freeze(member)
                    try:
                        changed = await insist(p, "k", adding(member))
                        assert (await insist(q, "k", lambda v: v)) == changed
                    finally:
                        group.thaw(member)
                agreed = await insist(q, "k", lambda v: v)
                assert agreed.value == ["a", *group.members], "one that was frozen brings nothing old back"
                assert await p.read("k") == await q.read("k") == agreed

        asyncio.run(run())

    def test_a_lease_has_one_holder_and_is_taken_over_after_it_lapsed(self, group: Group) -> None:
        now = {"a": 100.0, "b": 5000.0}

        def later(by_s: float) -> None:
            for name in now:
                now[name] += by_s

        async def run() -> None:
            async with group.register("a") as at_a, group.register("b") as at_b:
                a = Lease(at_a, "serve", "a", 3.0, lambda: now["a"])
                b = Lease(at_b, "serve", "b", 3.0, lambda: now["b"])
                assert await a.step()
                assert not await b.step()
                for _ in range(3):
                    later(1)
                    assert await a.step()
                    assert not await b.step()
                    assert (a.holder(), b.holder()) == (("a", 1), ("a", 1))
                later(3.2)
                assert not a.held(), "it lapses before another may take it"
                assert not await b.step()
                later(0.2)
                assert b.holder() == (None, 1)
                assert await b.step()
                assert (a.term, b.term) == (1, 2)
                assert not await a.step()
                assert a.holder() == ("b", 2)
                await b.release()
                assert not b.held()
                assert await a.step()
                assert a.term == 3
                for member in group.members:
                    group.kill(member)
                later(2.9)
                assert await a.step(), "what is held runs on"
                later(0.2)
                assert not await a.step()
                assert not await b.step()
                assert a.holder()[0] is None

        asyncio.run(run())

    def test_a_leader_that_is_not_fit_gives_up_and_does_not_come_back(self, group: Group) -> None:
        fit = {"a": True, "b": True}

        async def run() -> None:
            async with group.register("a") as at_a, group.register("b") as at_b:
                a = Leader(at_a, "a", 30.0, fit=lambda: fit["a"])
                b = Leader(at_b, "b", 30.0, fit=lambda: fit["b"])
                await a.step()
                await b.step()
                assert a.held(a.term)
                assert b.known() == ("a", 1)
                fit["a"] = False
                assert not a.held()
                assert a.known() == (None, 1)
                await a.step()
                await b.step()
                assert b.held(2)
                assert not b.held(1)
                await a.step()
                assert a.known() == ("b", 2)
                assert not a.held()

        asyncio.run(run())
