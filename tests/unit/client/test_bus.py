"""Messages in a simulated world: one id and one body whatever is lost, and each worked on once, in order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.client.bus_world import FAULTS, RECEIVER, SENDER, TENANT, World, WorldClient

from acgs2 import AgentProgram, Client, InboxMessage
from acgs2.client.lanes import Lanes
from acgs2.client.memory import Before, Memory
from acgs2.errors import ConflictError, ForbiddenError, InputError, OutcomeUnknown, UnavailableError

of_sending = st.sampled_from(["none", "lost before", "lost after", "later", "doubt", "away"])
of_inboxes = st.sampled_from(FAULTS)
conversations = st.lists(st.integers(1, 3), min_size=1, max_size=8)


def within(world: World, act: Callable[[WorldClient], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(20), WorldClient(world) as client:
            return await act(client)

    return asyncio.run(main())


def say(client: Client, **more: Any) -> Awaitable[Any]:
    said = {"from_agent": SENDER, "to_agent": RECEIVER, "tenant_id": TENANT, "message_type": "note"}
    return client.send(**{**said, **more})


@given(st.lists(of_sending, max_size=12))
def test_a_message_is_sent_with_one_id_and_one_body_whatever_is_lost(faults: list[str]) -> None:
    world = World(faults)
    receipt = within(world, lambda client: say(client, payload={"b": 1, "a": [2]}, timeout_s=60))
    assert len(set(world.bodies)) == 1
    assert list(world.stored) == [str(receipt.message_id)]
    assert receipt.decision == "allow"


@settings(max_examples=30)
@given(st.lists(of_sending, min_size=1, max_size=3), st.sampled_from(["lost before", "later", "away"]))
def test_what_is_not_known_in_time_is_said_to_be_and_can_be_repeated(faults: list[str], last: str) -> None:
    world = World([*faults, *[last] * 1000])

    async def act(client: WorldClient) -> None:
        now_s = [0.0]

        def clock() -> float:
            now_s[0] += 0.01
            return now_s[0]

        client._caller.clock = clock
        try:
            receipt = await say(client, timeout_s=1)
        except OutcomeUnknown as error:
            assert len(set(world.bodies)) <= 1
            world.faults.clear()
            again = await say(client, message_id=error.context["message_id"])
            assert list(world.stored) == [str(again.message_id)]
        except UnavailableError:
            assert not world.stored
        else:
            assert list(world.stored) == [str(receipt.message_id)]

    within(world, act)


@given(st.lists(of_sending, max_size=6))
def test_a_denial_is_an_answer_even_after_one_that_was_lost(faults: list[str]) -> None:
    with pytest.raises(ForbiddenError) as caught:
        within(World(faults), lambda client: say(client, message_type="forbidden", timeout_s=60))
    assert caught.value.reference == "denied-by-policy"
    assert caught.value.context["basis"] == {"policies": ["never"]}


def test_another_constitution_after_a_lost_answer_says_nothing_about_the_first_time() -> None:
    world = World(["lost after"])

    async def act(client: WorldClient) -> None:
        stored = world._send
        world._send = lambda body: refused() if world.bodies else stored(body)  # type: ignore[method-assign]
        await say(client)

    def refused() -> Any:
        from tests.unit.client.bus_world import problem

        return problem(409, "constitutional-hash-mismatch", in_force="x")

    with pytest.raises(OutcomeUnknown) as caught:
        within(world, act)
    assert isinstance(caught.value.__cause__, ConflictError)
    assert caught.value.context["message_id"] in world.stored


def test_what_is_sent_says_what_was_said_and_the_constitution() -> None:
    world = World()
    within(world, lambda client: say(client, content="hello", priority=3, metadata={"a": "b"}))
    (body,) = map(json.loads, world.bodies)
    assert body.pop("message_id") == body.pop("conversation_id")
    assert body == {
        "tenant_id": TENANT,
        "from_agent": SENDER,
        "to_agent": RECEIVER,
        "message_type": "note",
        "priority": 3,
        "content": "hello",
        "payload": {},
        "metadata": {"a": "b"},
        "constitutional_hash": "cdd01ef066bc6cf2",
    }


@pytest.mark.parametrize(
    ("changed", "reference"),
    [
        ({"tenant_id": None}, "tenant-missing"),
        ({"from_agent": "me"}, "id-invalid"),
        ({"message_id": "1"}, "id-invalid"),
        ({"payload": {"a": object()}}, "value-not-json"),
        ({"payload": {"a": {1, 2}, "b": 1j}}, "value-not-json"),
        ({"region": "a b"}, "region-invalid"),
    ],
)
def test_what_cannot_be_sent_is_not(changed: dict[str, Any], reference: str) -> None:
    world = World()
    with pytest.raises(InputError) as caught:
        within(world, lambda client: say(client, **changed))
    assert (caught.value.reference, world.bodies) == (reference, [])


@pytest.mark.parametrize("constitution", ["", "x" * 17, "a b", None])
def test_what_is_no_constitution_is_refused_at_once(constitution: Any) -> None:
    with pytest.raises(InputError):
        Client("http://127.0.0.1", token="x", constitution=constitution)


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"limit": 101}, {"hold_s": 0}, {"wait_s": 21}, {"wait_s": -1}, {"remember": 0}]
)
def test_an_inbox_out_of_range_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Client("http://127.0.0.1", token="x").inbox(RECEIVER, **wrong)


def numbers_of(world: World) -> dict[str, list[int]]:
    """Return the messages of each conversation in their order."""
    found: dict[str, list[int]] = {}
    for message in world.waiting:
        found.setdefault(message["conversation_id"], []).append(message["payload"]["number"])
    return {conversation: sorted(numbers) for conversation, numbers in found.items()}


def filled(of: list[int], faults: list[str], **more: Any) -> World:
    world = World(list(faults), **more)
    for number, conversation in enumerate(of):
        world.put(number, conversation)
    return world


@settings(max_examples=200)
@given(conversations, st.lists(of_inboxes, max_size=25), st.integers(1, 5))
def test_each_message_is_worked_on_once_and_in_order_whatever_is_lost(
    of: list[int], faults: list[str], limit: int
) -> None:
    world = filled(of, faults)
    seen: dict[str, list[int]] = {}

    async def act(client: WorldClient) -> None:
        async for message in client.inbox(RECEIVER, limit=limit):
            seen.setdefault(str(message.conversation_id), []).append(message.payload["number"])
            if sum(map(len, seen.values())) == len(of):
                await message.acknowledge()
                break

    within(world, act)
    assert seen == numbers_of(world)


@given(conversations, st.integers(0, 7), st.booleans())
def test_a_body_that_raises_or_breaks_gives_back_and_loses_nothing(
    of: list[int], at: int, breaks: bool
) -> None:
    world = filled(of, [])

    async def act(client: WorldClient) -> int:
        worked = 0
        try:
            async for _ in client.inbox(RECEIVER):
                if worked == min(at, len(of) - 1):
                    if breaks:
                        break
                    raise ZeroDivisionError
                worked += 1
        except ZeroDivisionError:
            pass
        return worked

    worked = within(world, act)
    assert len(world.done) == worked
    assert not world.claims, "all that was held is given back"


def test_a_message_that_was_returned_comes_again_and_is_shown_again() -> None:
    world = filled([1, 1], [])

    async def act(client: WorldClient) -> list[tuple[int, int]]:
        seen = []
        async for message in client.inbox(RECEIVER):
            seen.append((message.payload["number"], message.attempt))
            if seen == [(0, 1)]:
                assert await message.return_()
            if len(seen) == 3:
                break
        return seen

    assert within(world, act) == [(0, 1), (0, 2), (1, 1)]


def test_what_time_does_not_mend_ends_an_inbox() -> None:
    world = World()
    world._inbox = lambda act, body: forbidden()  # type: ignore[method-assign]

    def forbidden() -> Any:
        from tests.unit.client.bus_world import problem

        return problem(403, "halted")

    async def act(client: WorldClient) -> None:
        async for _ in client.inbox(RECEIVER):
            raise AssertionError

    with pytest.raises(ForbiddenError):
        within(world, act)


@settings(max_examples=100)
@given(
    conversations,
    st.lists(of_inboxes, max_size=25),
    st.integers(1, 5),
    st.booleans(),
    st.lists(st.integers(0, 4), min_size=1, max_size=10),
)
def test_a_program_handles_conversations_side_by_side_and_each_in_order(
    of: list[int], faults: list[str], concurrency: int, at_once: bool, pauses: list[int]
) -> None:
    # An inbox that gives several of a conversation at once cannot keep their order where an answer is lost.
    world = filled(of, [] if at_once else faults, at_once=at_once)
    seen: dict[str, list[int]] = {}
    working: set[Any] = set()

    async def act(client: WorldClient) -> None:
        program = AgentProgram(client, RECEIVER, concurrency=concurrency)

        @program.on("note")
        async def note(message: InboxMessage) -> None:
            assert message.conversation_id not in working
            working.add(message.conversation_id)
            assert len(working) <= concurrency
            for _ in range(pauses[message.payload["number"] % len(pauses)]):
                await anyio.lowlevel.checkpoint()
            seen.setdefault(str(message.conversation_id), []).append(message.payload["number"])
            working.discard(message.conversation_id)
            if sum(map(len, seen.values())) >= len(of):
                program.stop()

        await program.run()

    within(world, act)
    assert seen == numbers_of(world)


def test_a_message_whose_handler_fails_is_returned_and_the_others_are_handled() -> None:
    world = filled([1, 2], [], lapses=False)
    world.put(2, 3, "unknown")
    handled: list[tuple[int, int]] = []

    async def act(client: WorldClient) -> None:
        program = AgentProgram(client, RECEIVER)

        @program.on("note")
        async def note(message: InboxMessage) -> None:
            handled.append((message.payload["number"], message.attempt))
            if message.payload["number"] == 0 and message.attempt == 1:
                raise ValueError("no")
            if len(set(handled)) == 3:
                program.stop()

        await program.run()

    within(world, act)
    assert sorted(handled) == [(0, 1), (0, 2), (1, 1)]
    assert len(world.done) == 2
    assert world.attempts[world.waiting[2]["message_id"]] >= 1


def test_a_program_that_is_told_to_stop_lets_its_handlers_end_and_others_be_given_back() -> None:
    world = filled([1, 1, 2], [], at_once=True, lapses=False)
    ended: list[int] = []

    async def act(client: WorldClient) -> None:
        program = AgentProgram(client, RECEIVER, grace_s=0.2)

        @program.on("note")
        async def note(message: InboxMessage) -> None:
            if message.payload["number"] == 0:
                await anyio.sleep_forever()
            program.stop()
            await anyio.lowlevel.checkpoint()
            ended.append(message.payload["number"])

        await program.run()

    within(world, act)
    assert ended == [2]
    assert world.done == [world.waiting[2]["message_id"]]
    assert not world.claims


def test_a_reply_keeps_the_conversation_and_goes_to_the_tenant_that_asked() -> None:
    world = World()
    other = "00000000-0000-0000-0000-0000000000ff"
    world.put(1, 7, "question")
    world.put(2, 8, "question", tenant_id=other, to_tenant_id=TENANT)

    async def act(client: WorldClient) -> None:
        async for message in client.inbox(RECEIVER):
            await message.reply("answer", content="42")
            if message.payload["number"] == 2:
                break

    within(world, act)
    first, second = map(json.loads, world.bodies)
    assert first["conversation_id"] == world.waiting[0]["conversation_id"]
    assert (first["from_agent"], first["to_agent"], first["tenant_id"]) == (RECEIVER, SENDER, TENANT)
    assert "to_tenant_id" not in first
    assert (second["tenant_id"], second["to_tenant_id"]) == (TENANT, other)


def test_a_name_has_one_handler() -> None:
    program = AgentProgram(Client("http://127.0.0.1", token="x"), RECEIVER)
    program.on("a")
    for wrong in ("", 5):
        with pytest.raises(InputError):
            program.on(wrong)  # type: ignore[arg-type]

    @program.on("b")
    async def b(_: InboxMessage) -> None: ...

    with pytest.raises(InputError):
        program.on("b")
    with pytest.raises(InputError):
        AgentProgram(Client("http://127.0.0.1", token="x"), RECEIVER, concurrency=0)


acts = st.lists(
    st.tuples(st.sampled_from(["take", "done", "forget"]), st.integers(0, 5)), min_size=1, max_size=60
)


@given(acts, st.integers(1, 4))
def test_a_memory_knows_what_was_done_last_and_forgets_no_work(
    acts: list[tuple[str, int]], most: int
) -> None:
    from uuid import UUID

    memory, working, done = Memory(most), set(), []
    for act, number in acts:
        key = UUID(int=number)
        if act == "take":
            expected = Before.DONE if key in done else Before.OPEN if key in working else Before.NEW
            assert memory.take(key) is expected
            if expected is Before.NEW:
                working.add(key)
            elif expected is Before.DONE:
                done.remove(key)
                done.append(key)
        elif act == "done":
            working.discard(key)
            memory.done(key)
            done = [*(k for k in done if k != key), key][-most:]
        elif key in working:
            memory.forget(key)
            working.discard(key)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=60))
def test_lanes_give_everything_in_order_and_one_at_a_time(acts: list[tuple[bool, int]]) -> None:
    lanes: Lanes[int, int] = Lanes()
    working: dict[int, int] = {}
    put: dict[int, list[int]] = {}
    begun: dict[int, list[int]] = {}
    for number, (is_put, lane) in enumerate(acts):
        if is_put:
            put.setdefault(lane, []).append(number)
            assert lanes.put(lane, number) is (lane not in working)
            if lane not in working:
                working[lane] = number
                begun.setdefault(lane, []).append(number)
        elif lane in working:
            following = lanes.next(lane)
            if following is None:
                del working[lane]
                assert begun[lane] == put[lane]
            else:
                working[lane] = following
                begun[lane].append(following)
        for each, numbers in begun.items():
            assert numbers == put[each][: len(numbers)]
    assert len(lanes) == sum(len(p) for p in put.values()) - sum(len(b) for b in begun.values()) + len(
        working
    )
