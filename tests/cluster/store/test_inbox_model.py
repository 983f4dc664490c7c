"""The inbox in SQL does what the pure one does, whatever comes in whatever order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.cluster.conftest import Server
from tests.cluster.store.regions import WEST, Regions, regions_of
from tests.cluster.store.test_delivery import Bus

from acgs2.bus.inbox import Delivery, Inbox, State


@pytest.fixture(scope="module")
def regions(server: Server) -> Iterator[Regions]:
    with regions_of(server) as found:
        yield found


class Machine(RuleBasedStateMachine):
    """One agent's inbox, as the database has it and as it should be; time passes when it is told to."""

    bus: ClassVar[Bus]

    def __init__(self) -> None:
        super().__init__()
        self.agent = self.bus.agent()
        self.generation = self.bus.generation
        self.inbox = Inbox(generation=self.generation)
        self.now_s = 0.0
        self.talks = [uuid4() for _ in range(3)]
        self.senders = [uuid4() for _ in range(2)]
        self.claims: list[tuple[Delivery, UUID]] = []

    @rule(
        talk=st.integers(0, 2),
        priority=st.integers(0, 3),
        expires=st.sampled_from([None, 25, 75]),
        sender=st.integers(0, 1),
    )
    def arrive(self, talk: int, priority: int, expires: int | None, sender: int) -> None:
        fields: dict[str, object] = {"from_agent": self.senders[sender]}
        if expires is not None:
            row = (
                self.bus.regions.owner[WEST]
                .execute(b"SELECT clock_timestamp() + make_interval(secs => %s)", (expires,))
                .fetchone()
            )
            assert row is not None
            fields["expires_at"] = row[0]
        key = self.bus.send(self.agent, conversation_id=self.talks[talk], priority=priority, **fields)
        expires_s = self.now_s + expires if expires is not None else float("inf")
        self.inbox = self.inbox.arrive(key, talk, priority, expires_s, sender)

    @rule(senders=st.frozensets(st.integers(0, 1)))
    def halt(self, senders: frozenset[int]) -> None:
        self.inbox = self.inbox.halting(*senders)
        self.bus.halts(*({"scope": "agent", "target": str(self.senders[n])} for n in senders))

    @rule(most=st.integers(1, 3), hold=st.sampled_from([15, 45]))
    def claim(self, most: int, hold: int) -> None:
        self.inbox, given = self.inbox.claim(self.now_s, most, hold)
        got = self.bus.claim(self.agent, most, hold)
        assert [message for message, _ in got] == [d.message for d in given]
        self.claims += zip(given, (claim for _, claim in got), strict=True)

    @rule(number=st.integers(0, 50))
    def acknowledge(self, number: int) -> None:
        if not self.claims:
            return
        claimed, name = self.claims[number % len(self.claims)]
        self.inbox, outcome = self.inbox.acknowledge(claimed)
        pair = [(claimed.message, name)]
        assert self.bus.acknowledge(self.agent, pair, claimed.generation) == [outcome]  # type: ignore[arg-type]
        if outcome == "done" and number % 2:
            self.bus.tell(self.agent, claimed.message)  # type: ignore[arg-type]

    @rule(number=st.integers(0, 50), delay=st.sampled_from([0, 25]))
    def give_back(self, number: int, delay: int) -> None:
        if not self.claims:
            return
        claimed, name = self.claims[number % len(self.claims)]
        self.inbox, outcome = self.inbox.give_back(claimed, self.now_s, delay)
        said = self.bus.regions.app[WEST].execute(
            b"SELECT outcome FROM acgs.return_claims(%s, %s, %s, %s, %s)",
            (self.agent, [claimed.message], [name], claimed.generation, delay),
        )
        assert said.fetchone() == (outcome,)

    @rule()
    def requeue(self) -> None:
        self.inbox = self.inbox.requeue(self.now_s)
        self.bus.regions.app[WEST].execute(
            b"SELECT acgs.requeue(%s, %s, NULL)", (self.agent, self.bus.tenant)
        )

    @rule()
    def take_over(self) -> None:
        self.inbox = self.inbox.taken_over()
        self.bus.generation = self.bus.serve(WEST, self.inbox.generation)

    @rule(by=st.sampled_from([10, 20, 30]))
    def time_passes(self, by: int) -> None:
        self.now_s += by
        owner = self.bus.regions.owner[WEST]
        for table, columns in (
            ("delivery", ("hold_until", "not_before", "expires_at")),
            ("dead_letter", ("expires_at",)),
        ):
            moved = ", ".join(f"{c} = {c} - make_interval(secs => {by})" for c in columns)
            owner.execute(f"UPDATE acgs.{table} SET {moved} WHERE agent = %s".encode(), (self.agent,))

    @invariant()
    def alike(self) -> None:
        self.inbox.check_invariants(self.now_s)
        query = (
            b"SELECT message_id, state, attempts FROM acgs.delivery WHERE agent = %(a)s UNION ALL"
            b" SELECT message_id, 'dead', attempts FROM acgs.dead_letter WHERE agent = %(a)s UNION ALL"
            b" SELECT message_id, 'done', attempts FROM acgs.delivered WHERE agent = %(a)s"
        )
        rows = self.bus.regions.owner[WEST].execute(query, {"a": self.agent}).fetchall()
        assert sorted(rows) == sorted((d.message, str(d.state), d.attempts) for d in self.inbox.deliveries)


def test_the_inbox_in_sql_is_the_pure_one(regions: Regions) -> None:
    Machine.bus = Bus(regions)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_a_pure_inbox_gives_up_what_was_never_done_with() -> None:
    inbox = Inbox(max_attempts=2).arrive("m", "c", 1, float("inf")).arrive("n", "c", 3, float("inf"))
    for now_s in (0.0, 10.0):
        inbox, given = inbox.claim(now_s, 5, 5)
        assert [d.message for d in given] == ["m"]
    inbox, given = inbox.claim(20, 5, 5)
    assert [d.message for d in given] == ["n"]
    assert inbox.find("m") is not None
    assert inbox.find("m").state is State.DEAD  # type: ignore[union-attr]
