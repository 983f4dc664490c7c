"""Inboxes in a real database: what messages make, in which order it is given, and what other regions learn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.cluster.conftest import Server, await_that
from tests.cluster.store.regions import CENTRAL, WEST, Regions, regions_of

MOST = 5


@pytest.fixture(scope="module")
def regions(server: Server) -> Iterator[Regions]:
    with regions_of(server) as found:
        yield found


class Bus:
    """Agents of one tenant in one zone, messages between them, and their inboxes in a region."""

    def __init__(self, regions: Regions, region: str = WEST) -> None:
        self.regions = regions
        self.region = region
        self.tenant = UUID(str(regions.tenant("eu", WEST)))
        self.generation = self.serve(region)

    def serve(self, region: str, generation: int | None = None) -> int:
        owner = self.regions.owner[region]
        known = owner.execute(b"SELECT generation FROM acgs.inbox WHERE zone = 'eu'").fetchone()
        number = generation or (known[0] if known else 1)
        owner.execute(b"SELECT acgs.serve_inboxes('eu', %s, true)", (number,))
        return number

    def agent(self) -> UUID:
        key = uuid4()
        self.regions.app[self.region].execute(
            b"INSERT INTO acgs.agent (key, zone, tenant_id, name) VALUES (%s, 'eu', %s, 'a')",
            (key, self.tenant),
        )
        return key

    def send(self, to: UUID | None, region: str = "", **fields: Any) -> UUID:
        key = fields.pop("key", uuid4())
        values = {
            "key": key,
            "zone": "eu",
            "tenant_id": self.tenant,
            "conversation_id": uuid4(),
            "from_agent": uuid4(),
            "to_agent": to,
            "message_type": "note",
            "priority": 1,
            "content": "hello",
            "constitutional_hash": "cdd01ef066bc6cf2",
            "digest": "d",
            "salt": "s",
            "proposer": "p",
            "decision": "allow",
        } | fields
        names = ", ".join(values)
        holes = ", ".join(["%s"] * len(values))
        statement = f"INSERT INTO acgs.message ({names}) VALUES ({holes})"
        self.regions.app[region or self.region].execute(statement.encode(), [*values.values()])
        return key

    def halts(self, *entries: dict[str, str], region: str = "") -> None:
        """Put in force in a region that these are halted, and nobody else."""
        owner = self.regions.owner[region or self.region]
        row = owner.execute(
            b"SELECT coalesce(max(version), 0) + 1 FROM acgs.in_force WHERE kind = 'halts'"
        ).fetchone()
        assert row is not None
        document = Jsonb({"version": row[0], "entries": entries})
        put = b"SELECT acgs.put_in_force('halts', %s, %s, %s, %s, '{}')"
        assert owner.execute(put, (row[0], f"digest {row[0]}", document, uuid4())).fetchone() == (None,)

    def claim(self, agent: UUID, most: int = 10, hold_s: float = 30, **other: Any) -> list[tuple[UUID, UUID]]:
        """Claim and return (message, claim)."""
        asked = {
            "agent": str(agent),
            "tenant": str(self.tenant),
            "zone": "eu",
            "generation": self.generation,
            "limit": most,
            "hold_s": hold_s,
        } | other
        rows = self.regions.app[self.region].execute(
            b"SELECT message_id, claim FROM acgs.claim(%s, %s)", (json.dumps([asked]), MOST)
        )
        return [(m, c) for m, c in rows.fetchall()]

    def take(self, agent: UUID, most: int = 10) -> list[UUID]:
        return [message for message, _ in self.claim(agent, most)]

    def acknowledge(
        self, agent: UUID, claims: list[tuple[UUID, UUID]], generation: int | None = None
    ) -> list[str]:
        rows = self.regions.app[self.region].execute(
            b"SELECT outcome FROM acgs.acknowledge(%s, %s, %s, %s) ORDER BY n",
            (
                [agent] * len(claims),
                [m for m, _ in claims],
                [c for _, c in claims],
                [generation or self.generation] * len(claims),
            ),
        )
        return [outcome for (outcome,) in rows.fetchall()]

    def tell(self, agent: UUID, *messages: UUID) -> int:
        row = (
            self.regions.app[self.region]
            .execute(b"SELECT acgs.settle_done(%s, %s)", ([agent] * len(messages), [*messages]))
            .fetchone()
        )
        assert row is not None
        return row[0]

    def state(self, message: UUID, region: str = "") -> list[str]:
        conn = self.regions.owner[region or self.region]
        found = conn.execute(
            b"SELECT state FROM acgs.delivery WHERE message_id = %(m)s UNION ALL"
            b" SELECT 'dead ' || reason FROM acgs.dead_letter WHERE message_id = %(m)s UNION ALL"
            b" SELECT 'delivered' FROM acgs.delivered WHERE message_id = %(m)s",
            {"m": message},
        )
        return sorted(state for (state,) in found.fetchall())

    def lapse(self, agent: UUID) -> None:
        self.regions.owner[self.region].execute(
            b"UPDATE acgs.delivery SET hold_until = now() - interval '1 second' WHERE agent = %s AND state = 'claimed'",
            (agent,),
        )


@pytest.fixture
def bus(regions: Regions) -> Bus:
    return Bus(regions)


def test_the_urgent_come_first_then_the_earlier(bus: Bus) -> None:
    agent = bus.agent()
    sent = [bus.send(agent, priority=p) for p in (1, 3, 1, 0, 3)]
    assert bus.take(agent, 2) == [sent[1], sent[4]]
    assert bus.take(agent) == [sent[0], sent[2], sent[3]]
    assert bus.take(agent) == []


def test_a_conversation_is_given_one_by_one_in_its_order(bus: Bus) -> None:
    agent, talk = bus.agent(), uuid4()
    first, second = (bus.send(agent, conversation_id=talk, priority=p) for p in (0, 3))
    other = bus.send(agent)
    claims = bus.claim(agent)
    assert [m for m, _ in claims] == [first, other], "what the urgent one waits for is as urgent"
    assert bus.take(agent) == []
    assert bus.acknowledge(agent, claims[:1]) == ["done"]
    assert bus.take(agent) == [second]


def test_a_long_conversation_does_not_hide_the_others(bus: Bus) -> None:
    agent, talk = bus.agent(), uuid4()
    for _ in range(510):
        bus.send(agent, conversation_id=talk, priority=3)
    last = bus.send(agent, priority=0)
    assert len(bus.take(agent, 1)) == 1
    assert bus.take(agent) == [last]


def test_what_is_held_too_long_is_given_again_and_at_last_given_up(bus: Bus) -> None:
    agent, talk = bus.agent(), uuid4()
    sent, later = bus.send(agent, conversation_id=talk), bus.send(agent, conversation_id=talk)
    claims = []
    for _ in range(MOST):
        claims = bus.claim(agent)
        assert [m for m, _ in claims] == [sent]
        bus.lapse(agent)
    assert bus.take(agent) == [later]
    assert bus.state(sent) == ["dead attempts"]
    assert bus.acknowledge(agent, claims) == ["lapsed"]


def test_acknowledging_twice_is_acknowledging_once_even_after_it_was_told(bus: Bus) -> None:
    agent = bus.agent()
    sent = bus.send(agent)
    claims = bus.claim(agent)
    bus.lapse(agent)
    assert bus.acknowledge(agent, claims) == ["done"], "nobody else has it"
    assert bus.acknowledge(agent, claims) == ["already"]
    assert bus.tell(agent, sent) == 1
    assert bus.acknowledge(agent, claims) == ["already"]
    assert bus.state(sent) == ["delivered"]
    assert bus.take(agent) == []


def test_a_claim_that_was_lost_to_another_is_not_honoured(bus: Bus) -> None:
    agent = bus.agent()
    bus.send(agent)
    before = bus.claim(agent)
    bus.lapse(agent)
    after = bus.claim(agent)
    assert bus.acknowledge(agent, before) == ["lapsed"]
    assert bus.acknowledge(agent, after) == ["done"]


def test_claims_of_others_and_made_up_ones_do_nothing(bus: Bus) -> None:
    agent, other = bus.agent(), bus.agent()
    sent = bus.send(agent)
    claims = bus.claim(agent)
    assert bus.acknowledge(other, claims) == ["lapsed"]
    assert bus.acknowledge(agent, [(sent, uuid4()), (uuid4(), claims[0][1])]) == ["lapsed", "lapsed"]
    assert bus.acknowledge(agent, claims, generation=bus.generation + 1) == ["lapsed"]
    assert bus.state(sent) == ["claimed"]


def test_what_is_returned_comes_again_after_its_delay(bus: Bus) -> None:
    agent = bus.agent()
    sent = bus.send(agent)
    ((_, claim),) = bus.claim(agent)
    conn = bus.regions.app[WEST]
    query = b"SELECT outcome FROM acgs.return_claims(%s, %s, %s, %s, %s)"
    assert conn.execute(query, (agent, [sent], [claim], bus.generation, 60)).fetchall() == [("returned",)]
    assert conn.execute(query, (agent, [sent], [claim], bus.generation, 0)).fetchall() == [("lapsed",)]
    assert bus.take(agent) == []
    due = conn.execute(
        b"SELECT extract(epoch FROM acgs.next_claimable(%s) - now())::float8", (agent,)
    ).fetchone()
    assert due is not None
    assert 50 < due[0] <= 60
    bus.regions.owner[WEST].execute(
        b"UPDATE acgs.delivery SET not_before = now() WHERE message_id = %s", (sent,)
    )
    assert bus.take(agent) == [sent]


def test_what_has_expired_is_never_given(bus: Bus) -> None:
    agent, talk = bus.agent(), uuid4()
    old = bus.send(agent, conversation_id=talk, expires_at="2020-01-01T00:00:00Z")
    fresh = bus.send(agent, conversation_id=talk, expires_at="2999-01-01T00:00:00Z", priority=3)
    assert bus.take(agent) == [fresh]
    assert bus.state(old) == ["dead expired"]
    raised = (
        bus.regions.app[WEST].execute(b"SELECT acgs.requeue(%s, %s, NULL)", (agent, bus.tenant)).fetchone()
    )
    assert raised == ([],)


def test_a_dead_letter_is_requeued_to_the_end(bus: Bus) -> None:
    agent = bus.agent()
    sent = bus.send(agent)
    for _ in range(MOST):
        bus.claim(agent)
        bus.lapse(agent)
    later = bus.send(agent)
    assert bus.take(agent) == [later]
    conn = bus.regions.app[WEST]
    assert conn.execute(b"SELECT acgs.requeue(%s, %s, %s)", (agent, uuid4(), [sent])).fetchone() == ([],)
    assert conn.execute(b"SELECT acgs.requeue(%s, %s, %s)", (agent, bus.tenant, [sent])).fetchone() == (
        [sent],
    )
    assert bus.take(agent) == [sent]


def test_nothing_is_given_in_a_generation_that_is_not_served(bus: Bus) -> None:
    agent = bus.agent()
    bus.send(agent)
    assert bus.claim(agent, generation=bus.generation + 1) == []
    assert bus.claim(agent, zone="us") == []
    bus.regions.owner[WEST].execute(b"SELECT acgs.serve_inboxes('eu', %s, false)", (bus.generation,))
    assert bus.take(agent) == []
    bus.serve(WEST, bus.generation)
    assert len(bus.take(agent)) == 1


def test_a_new_generation_gives_again_what_the_old_one_had_given(bus: Bus) -> None:
    agent = bus.agent()
    sent = bus.send(agent)
    before = bus.claim(agent)
    old = bus.generation
    bus.generation = bus.serve(WEST, old + 1)
    assert bus.acknowledge(agent, before) == ["lapsed"]
    ((message, claim),) = bus.claim(agent)
    assert message == sent
    attempts = (
        bus.regions.owner[WEST]
        .execute(b"SELECT attempts FROM acgs.delivery WHERE message_id = %s", (sent,))
        .fetchone()
    )
    assert attempts == (2,)
    assert bus.acknowledge(agent, [(message, claim)]) == ["done"]


def test_what_is_held_for_approval_or_denied_is_not_delivered(bus: Bus) -> None:
    agent = bus.agent()
    held, denied = bus.send(agent, decision="deliberate"), bus.send(agent, decision="deny")
    assert bus.take(agent) == []
    verdict = b"INSERT INTO acgs.verdict (key, zone, tenant_id, message_id, decision, reason, decided_in) VALUES (%s, 'eu', %s, %s, 'allow', 'approved', 'x')"
    for message in (held, denied):
        bus.regions.app[WEST].execute(verdict, (uuid4(), bus.tenant, message))
    assert bus.take(agent) == [held]


def test_a_topic_reaches_those_who_subscribed(bus: Bus) -> None:
    first, second, third = bus.agent(), bus.agent(), bus.agent()
    app = bus.regions.app[WEST]
    subscribe = b"INSERT INTO acgs.subscription (key, zone, tenant_id, topic, agent_id) VALUES (%s, 'eu', %s, 'news', %s)"
    for agent in (first, second):
        app.execute(subscribe, (uuid4(), bus.tenant, agent))
    foreign = Bus(bus.regions)
    app.execute(subscribe, (uuid4(), foreign.tenant, third))
    sent = bus.send(None, topic="news")
    foreign.send(None, topic="news")
    assert bus.take(first) == bus.take(second) == [sent]
    assert bus.take(third) == []


def test_a_subscription_that_comes_late_still_counts(bus: Bus) -> None:
    agent = bus.agent()
    before = bus.send(None, topic="late", key=version7())
    bus.regions.app[WEST].execute(
        b"INSERT INTO acgs.subscription (key, zone, tenant_id, topic, agent_id) VALUES (%s, 'eu', %s, 'late', %s)",
        (uuid4(), bus.tenant, agent),
    )
    sent = bus.send(None, topic="late", key=version7())
    owner = bus.regions.owner[WEST]
    owner.execute(b"DELETE FROM acgs.delivery WHERE message_id = %s", (sent,))  # as if it had come before
    owner.execute(
        b"SET session_replication_role = replica;"
        b"UPDATE acgs.subscription SET meta = meta WHERE agent_id = '" + str(agent).encode() + b"';"
        b"RESET session_replication_role"
    )
    assert bus.take(agent) == [sent]
    assert bus.state(before) == []


def version7() -> UUID:
    import time

    from acgs2.model.ids import uuid7

    return uuid7(time.time_ns() // 1_000_000, uuid4().bytes[:10])


def test_another_tenants_agent_is_not_reached_by_its_id(bus: Bus) -> None:
    other = Bus(bus.regions)
    agent = other.agent()
    bus.send(agent)
    assert other.take(agent) == []


def test_an_erased_message_is_not_delivered(bus: Bus) -> None:
    agent = bus.agent()
    sent, done = bus.send(agent), bus.send(agent)
    claims = bus.claim(agent, 2)
    assert bus.acknowledge(agent, claims[1:]) == ["done"]
    bus.tell(agent, done)
    bus.regions.app[WEST].execute(
        b"UPDATE acgs.message SET erased = true WHERE key = ANY (%s)", ([sent, done],)
    )
    assert bus.state(sent) == bus.state(done) == []
    assert bus.acknowledge(agent, claims[:1]) == ["lapsed"]


def test_no_message_is_given_to_two_at_a_time_and_none_is_skipped(bus: Bus, server: Server) -> None:
    agent = bus.agent()
    talks = [uuid4() for _ in range(6)]
    sent = {talk: [bus.send(agent, conversation_id=talk) for _ in range(8)] for talk in talks}

    def consume() -> list[tuple[UUID, float, float]]:
        got = []
        with psycopg.connect(server.dsn(bus.regions.names[WEST], "acgs_app"), autocommit=True) as conn:
            asked = {
                "agent": str(agent),
                "tenant": str(bus.tenant),
                "zone": "eu",
                "generation": bus.generation,
            }
            while True:
                rows = conn.execute(
                    b"SELECT message_id, claim, extract(epoch FROM clock_timestamp())::float8 FROM acgs.claim(%s, 5)",
                    (json.dumps([asked | {"limit": 2, "hold_s": 30}]),),
                ).fetchall()
                if not rows:
                    left = conn.execute(
                        b"SELECT count(*) FROM acgs.delivery WHERE agent = %s AND state <> 'done'", (agent,)
                    ).fetchone()
                    if left == (0,):
                        return got
                    continue
                for message, claim, at in rows:
                    before = conn.execute(b"SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
                    assert before is not None
                    got.append((message, at, before[0]))
                    outcome = conn.execute(
                        b"SELECT outcome FROM acgs.acknowledge(%s, %s, %s, %s)",
                        ([agent], [message], [claim], [bus.generation]),
                    ).fetchone()
                    assert outcome == ("done",)

    with ThreadPoolExecutor(6) as pool:
        got = [each for found in pool.map(lambda _: consume(), range(6)) for each in found]
    assert len(got) == len({message for message, _, _ in got}) == 48
    when = {message: (at, upto) for message, at, upto in got}
    for messages in sent.values():
        for earlier, later in pairwise(messages):
            assert when[earlier][1] <= when[later][0], "the earlier was still held"


def test_other_regions_learn_what_was_acknowledged_given_up_and_requeued(bus: Bus) -> None:
    agent = bus.agent()
    done, given_up, waiting = (bus.send(agent) for _ in range(3))
    everywhere = lambda m: bus.state(m, CENTRAL) == ["ready"]  # noqa: E731
    bus.regions.until(lambda: all(everywhere(m) for m in (done, given_up, waiting)), "the deliveries")
    claims = {m: (m, c) for m, c in bus.claim(agent)}
    bus.acknowledge(agent, [claims[done]])
    bus.tell(agent, done)
    bus.regions.until(lambda: bus.state(done, CENTRAL) == ["delivered"], "the acknowledgement")
    bus.regions.owner[WEST].execute(
        b"UPDATE acgs.delivery SET attempts = 5, hold_until = now() WHERE message_id = %s", (given_up,)
    )
    assert bus.take(agent) == []
    bus.regions.until(lambda: bus.state(given_up, CENTRAL) == ["dead attempts"], "the dead letter")
    bus.regions.app[WEST].execute(b"SELECT acgs.requeue(%s, %s, NULL)", (agent, bus.tenant))
    bus.regions.until(lambda: bus.state(given_up, CENTRAL) == ["ready"], "the requeued")
    assert bus.state(waiting, CENTRAL) == ["ready"]


def test_an_acknowledgement_that_is_heard_of_before_its_message_counts(bus: Bus) -> None:
    agent, key = bus.agent(), uuid4()
    told = [{"key": str(key), "agent": str(agent), "outcome": "done", "attempts": 1, "generation": 1}]
    bus.regions.owner[WEST].execute(b"SELECT acgs.take_settled('x', %s)", (json.dumps(told),))
    bus.send(agent, key=key)
    assert bus.take(agent) == []
    assert bus.state(key) == ["delivered"]


def test_a_region_that_is_sent_messages_again_learns_which_were_delivered(bus: Bus) -> None:
    agent = bus.agent()
    done, waiting = bus.send(agent), bus.send(agent)
    bus.regions.until(lambda: bus.state(waiting, CENTRAL) == ["ready"], "the deliveries")
    claims = [c for c in bus.claim(agent) if c[0] == done]
    bus.acknowledge(agent, claims)
    bus.tell(agent, done)
    bus.regions.until(lambda: bus.state(done, CENTRAL) == ["delivered"], "the acknowledgement")
    central = bus.regions.owner[CENTRAL]
    central.execute(b"SELECT acgs.forget('message', %s)", ([done, waiting],))
    assert bus.state(done, CENTRAL) == bus.state(waiting, CENTRAL) == []
    bus.regions.owner[WEST].execute(b"SELECT acgs.emit('message', %s, %s)", ([done, waiting], [CENTRAL]))
    bus.regions.until(lambda: bus.state(waiting, CENTRAL) == ["ready"], "what still waits")
    bus.regions.until(lambda: bus.state(done, CENTRAL) == ["delivered"], "what does not")


def test_tidying_finds_what_nobody_asks_for(bus: Bus) -> None:
    agent = bus.agent()
    expired = bus.send(agent, expires_at="2020-01-01T00:00:00Z")
    sent = bus.send(agent)
    bus.acknowledge(agent, bus.claim(agent, 1))
    del sent
    expired_too = bus.send(agent, expires_at="2020-01-01T00:00:00Z")
    owner, after = bus.regions.owner[WEST], None
    while True:
        row = owner.execute(b"SELECT acgs.tidy_deliveries(%s, 10, 5)", (after,)).fetchone()
        assert row is not None
        if row[0] is None:
            break
        assert after is None or row[0] > after
        after = row[0]
    assert bus.state(expired) == bus.state(expired_too) == ["dead expired"]
    left = owner.execute(b"SELECT count(*) FROM acgs.delivery WHERE state = 'done'").fetchone()
    assert left == (0,)


def test_partitions_of_what_was_delivered_come_and_go(bus: Bus) -> None:
    owner = bus.regions.owner[WEST]
    owner.execute(b"SELECT acgs.maintain_delivered()")
    owner.execute(
        b"CREATE TABLE acgs.delivered_2020010100 PARTITION OF acgs.delivered FOR VALUES FROM ('2020-01-01 00:00Z') TO ('2020-01-01 01:00Z')"
    )
    owner.execute(b"SELECT acgs.maintain_delivered()")
    query = b"SELECT count(*) FILTER (WHERE inhrelid::regclass::text = 'acgs.delivered_2020010100'), count(*) FROM pg_inherits WHERE inhparent = 'acgs.delivered'::regclass"
    assert owner.execute(query).fetchone() == (0, 3)


@pytest.mark.parametrize("scope", ["agent", "tenant", "all"])
def test_what_a_halted_sender_sent_waits_for_its_resume_and_nothing_else_does(
    regions: Regions, scope: str
) -> None:
    bus, rogue, honest, talk = Bus(regions), uuid4(), uuid4(), uuid4()
    agent = bus.agent()
    first = bus.send(agent, from_agent=rogue, conversation_id=talk, priority=3)
    second = bus.send(agent, from_agent=rogue)
    behind = bus.send(agent, from_agent=honest, conversation_id=talk)
    other = bus.send(agent, from_agent=honest)
    late = bus.send(agent, from_agent=rogue, expires_at=datetime.now(UTC) + timedelta(seconds=0.3))
    target = {"agent": str(rogue), "tenant": str(bus.tenant), "all": ""}[scope]
    bus.halts({"scope": "tenant", "target": str(uuid4())}, {"scope": scope, "target": target})
    try:
        given = [message for message, _ in bus.claim(agent)]
        # What came in one conversation is given in its order: what is behind waits, too.
        assert given == ([other] if scope == "agent" else [])
        await_that(
            lambda: not bus.claim(agent) and bus.state(late) == ["dead expired"],
            "what expires to be given up",
        )
    finally:
        bus.halts()
    resumed = bus.claim(agent)
    assert [message for message, _ in resumed] == [first, second, *([] if scope == "agent" else [other])]
    assert bus.acknowledge(agent, resumed) == ["done"] * len(resumed)
    assert [message for message, _ in bus.claim(agent)] == [behind]


def test_whoever_waits_for_a_halted_sender_is_woken_by_its_resume(regions: Regions) -> None:
    bus = Bus(regions)
    with regions.server.connect(regions.names[WEST], "acgs_app") as conn:
        conn.execute(b"LISTEN acgs_inbox")
        bus.halts({"scope": "all", "target": ""})
        bus.halts()
        told = list(conn.notifies(timeout=5, stop_after=2))
    assert [each.payload for each in told] == ["", ""]
