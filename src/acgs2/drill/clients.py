"""Clients outside: from every place, through the edge, with the SDK; what they send and are told is recorded.

Calls begin at a fixed rate, whether earlier ones have ended or not: who waits for an outage to end before it
asks again does not see the outage.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count, cycle
from typing import Any
from uuid import UUID

from acgs2.api.tokens import mint
from acgs2.client import Client, Receipt, SetChange, User
from acgs2.drill.history import History
from acgs2.errors import AcgsError, InputError, NotFoundError, OutcomeUnknown, UnavailableError
from acgs2.local.cluster import Cluster
from acgs2.model.ids import request_key, uuid7
from acgs2.topology import Topology

__all__ = ["DEADLINE_S", "KINDS", "Clients", "people_of"]

#: How long a call may take, with all of the SDK's repeats.
DEADLINE_S = 6.0
#: What every place does in turn, over and over.
KINDS = ("create", "read", "append", "add", "read")
_USERS = 6
_WAITING = 128
_CLAIMED = 50
_LIFETIME_S = 12 * 3600


@dataclass
class _Body:
    """What there is to work on in a zone: one tenant's users, and an agent that speaks to another."""

    zone: str
    tenant: UUID
    token: str
    sender: UUID
    receiver: UUID
    users: list[UUID] = field(default_factory=list)


def people_of(topology: Topology) -> Mapping[str, tuple[str, ...]]:
    """Return for every zone the places whose people it is about; the nearest one where none says so.

    Raises:
        InputError: the topology has no places, so nobody is outside (`no-places`).
    """
    if not topology.places:
        raise InputError(
            "no-places",
            f"The topology {topology.name} has no places that clients are at.",
            hint="Add `places` to it: a drill is seen from there.",
        )
    found: dict[str, tuple[str, ...]] = {}
    for name, zone in topology.zones.items():
        own = [place for place, each in topology.places.items() if each.zone == name]
        near = min(topology.places, key=lambda p, r=zone.regions[0]: topology.distances[p][r])
        found[name] = tuple(own or [near])
    return found


class Clients:
    """All clients of a drill.

    Args:
        cluster: a running cluster whose topology has places.
        history: where everything is recorded.
        run: a word that no other run has; it is in every text that is written.
        rate_per_s: how many calls begin in a second, over all places.
    """

    def __init__(self, cluster: Cluster, history: History, run: str, rate_per_s: float) -> None:
        self._state = cluster.state
        self._topology = cluster.state.topology
        self._history = history
        self._run = run
        self._people = people_of(self._topology)
        self._pause_s = sum(len(places) for places in self._people.values()) / rate_per_s
        self._stop = asyncio.Event()
        self._numbers = count()
        self._bodies: dict[str, _Body] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Clients:
        """Return the clients; nothing is sent yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self._stack.aclose()

    def text(self, zone: str, entity: str, number: int | str, what: str = "drill") -> str:
        """Return a text that belongs to a record, by which it is known wherever it is found."""
        return f"~{self._run}.{zone}.{entity}.{number}+{what}~"

    async def found(self, timeout_s: float = 60.0) -> None:
        """Create a tenant in every zone, its users and agents; recorded like everything else.

        Raises:
            AcgsError: a zone does not take it in time.
        """
        await asyncio.gather(*(self._found(zone, timeout_s) for zone in self._people))

    async def work(self) -> None:
        """Begin calls at the rate until stopped, then wait for those that are under way."""
        async with asyncio.TaskGroup() as group:
            places = [(zone, place) for zone, people in self._people.items() for place in people]
            for number, (zone, place) in enumerate(places):
                begin_s = self._pause_s * number / len(places)
                group.create_task(self._work(zone, place, begin_s))

    async def receive(self) -> None:
        """Take what comes for every receiver, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for zone in self._bodies:
                group.create_task(self._receive(zone))

    def stop(self) -> None:
        """Begin nothing more."""
        self._stop.set()

    async def verify(self, timeouts_s: Mapping[str, float]) -> Mapping[str, str]:
        """Write a record in zones and read it back, each from one of its places; return what went wrong."""
        acts = [self._verify(zone, self._people[zone][0], limit_s) for zone, limit_s in timeouts_s.items()]
        said = await asyncio.gather(*acts)
        return {zone: what for zone, what in zip(timeouts_s, said, strict=True) if what}

    async def _verify(self, zone: str, place: str, timeout_s: float) -> str:
        body = self._bodies[zone]
        ours = await self._client(zone, place, body.token)
        number = next(self._numbers)
        try:
            made = await self._create(ours, zone, place, number, timeout_s=timeout_s)
            until_s = time.monotonic() + timeout_s
            while True:
                try:
                    await ours.users.get(made.id, timeout_s=timeout_s)
                except NotFoundError:
                    # Whoever is near may hear of it a moment after it was written, but hears of it.
                    if time.monotonic() > until_s:
                        raise
                    await asyncio.sleep(0.1)
                else:
                    return ""
        except AcgsError as error:
            return error.reference

    async def _client(self, zone: str, place: str, token: str) -> Client:
        made = Client(
            self._state.edge_url(place), zone=zone, token=token, ca=self._state.trust, timeout_s=DEADLINE_S
        )
        return await self._stack.enter_async_context(made)

    def _token(self, subject: str, role: str, tenant: str | None = None) -> str:
        key, audience = self._state.path / "secrets" / "signing.json", self._topology.name
        now_s = int(time.time())
        return mint(key, subject, role, audience, now_s, tenant=tenant, lifetime_s=_LIFETIME_S)

    async def _found(self, zone: str, timeout_s: float) -> None:
        place = self._people[zone][0]
        async with asyncio.timeout(timeout_s):
            operator = await self._client(zone, place, self._token("operator@drill", "operator"))
            text = self.text(zone, "tenant", "0")
            tenant = await _again(lambda: operator.tenants.create(name=text, idempotency_key=text))
            number = self._invoke(zone, place, "create", "tenant", str(tenant.id), {"name": text})
            self._history.complete(number, "ok", {"status": 200}, region=tenant.updated_in)
            token = self._token("service@drill", "service", str(tenant.id))
            ours = await self._client(zone, place, token)
            agents: list[UUID] = []
            for name in ("sender", "receiver"):
                text = self.text(zone, "agent", name)
                agent = await _again(
                    lambda t=text: operator.agents.create(tenant_id=tenant.id, name=t, idempotency_key=t)
                )
                number = self._invoke(zone, place, "create", "agent", str(agent.id), {"name": text})
                self._history.complete(number, "ok", {"status": 200}, region=agent.updated_in)
                agents.append(agent.id)
            self._bodies[zone] = body = _Body(zone, tenant.id, token, agents[0], agents[1])
            for _ in range(_USERS):
                made = await _again(lambda: self._create(ours, zone, place, next(self._numbers)))
                body.users.append(made.id)
            # Once a message is taken, all that messages need is there.
            await _again(lambda: self._append(ours, zone, place, next(self._numbers)))

    async def _work(self, zone: str, place: str, begin_s: float) -> None:
        ours = await self._client(zone, place, self._bodies[zone].token)
        acts: Mapping[str, Callable[..., Awaitable[Any]]] = {
            "create": self._create,
            "read": self._read,
            "append": self._append,
            "add": self._add,
        }
        slots = asyncio.Semaphore(_WAITING)
        due_s = time.monotonic() + begin_s
        kinds = cycle(KINDS)
        async with asyncio.TaskGroup() as group:
            while await self._until(due_s):
                kind, number = next(kinds), next(self._numbers)
                due_s += self._pause_s
                group.create_task(self._one(slots, partial(acts[kind], ours, zone, place, number)))

    async def _until(self, due_s: float) -> bool:
        """Wait until a moment, and return whether to go on."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due_s - time.monotonic())):
                await self._stop.wait()
        return not self._stop.is_set()

    async def _one(self, slots: asyncio.Semaphore, call: Callable[[], Awaitable[Any]]) -> None:
        async with slots:
            with contextlib.suppress(AcgsError):  # it is in the history
                await call()

    async def _create(
        self, ours: Client, zone: str, place: str, number: int, timeout_s: float = DEADLINE_S
    ) -> User:
        body, text = self._bodies[zone], self.text(zone, "user", number)
        key = request_key(f"{body.tenant}\nservice@drill", "user_profile", text)
        begun = self._invoke(
            zone, place, "create", "user_profile", str(key), {"display_name": text}, idempotency_key=text
        )
        return await self._ended(
            begun,
            ours.users.create(
                tenant_id=body.tenant, display_name=text, idempotency_key=text, timeout_s=timeout_s
            ),
        )

    async def _add(self, ours: Client, zone: str, place: str, number: int) -> User:
        users = self._bodies[zone].users
        # A text of the user's record carries the user's name.
        user = users[number % len(users)]
        element = self.text(zone, "user", f"{user}.pref", str(number))
        begun = self._invoke(zone, place, "add", "user_profile", str(user), {"element": element})
        return await self._ended(begun, ours.users.change(user, preferences=SetChange(add=[element])))

    async def _read(self, ours: Client, zone: str, place: str, number: int) -> User:
        users = self._bodies[zone].users
        # Without a key: by which region it was answered is not known, so nothing is judged by it.
        begun = self._invoke(zone, place, "read", "user_profile", "", {})
        return await self._ended(begun, ours.users.get(users[number % len(users)]), reading=True)

    async def _append(self, ours: Client, zone: str, place: str, number: int) -> Receipt:
        body, text = self._bodies[zone], self.text(zone, "message", number)
        known = uuid7(time.time_ns() // 1_000_000, os.urandom(10))
        begun = self._invoke(zone, place, "append", "message", str(known), {"content": text})
        sent = ours.send(
            from_agent=body.sender,
            to_agent=body.receiver,
            message_type="note",
            content=text,
            message_id=known,
            tenant_id=body.tenant,
        )
        return await self._ended(begun, sent)

    def _invoke(
        self, zone: str, place: str, kind: str, entity: str, key: str, sent: Mapping[str, Any], **more: Any
    ) -> int:
        return self._history.invoke(place, "", zone, kind, entity, key, sent=dict(sent), **more)

    async def _ended(self, begun: int, call: Awaitable[Any], *, reading: bool = False) -> Any:
        """Wait for a call, and note what came of it."""
        try:
            answer = await call
        except AcgsError as error:
            unknown = isinstance(error, OutcomeUnknown) and not reading
            self._history.complete(begun, "info" if unknown else "fail", {"problem": error.reference})
            raise
        region = answer.accepted_in if isinstance(answer, Receipt) else "" if reading else answer.updated_in
        self._history.complete(begun, "ok", {"status": 200}, region=region)
        return answer

    async def _receive(self, zone: str) -> None:
        body, place = self._bodies[zone], self._people[zone][0]
        ours = await self._client(zone, place, body.token)
        inbox = ours.inbox(body.receiver, limit=_CLAIMED, hold_s=10, wait_s=3, timeout_s=6)
        async with inbox, asyncio.TaskGroup() as group:
            while True:
                for message in await inbox.take(_CLAIMED):
                    key, sent = str(message.message_id), {"attempt": message.attempt}
                    begun = self._invoke(zone, place, "receive", "message", key, sent)
                    self._history.complete(begun, "ok", {"generation": inbox.generation})
                    group.create_task(message.acknowledge())


async def _again(act: Callable[[], Awaitable[Any]]) -> Any:
    """Do something until it is done: a cluster that has just come up may be a moment from taking it."""
    while True:
        try:
            return await act()
        except UnavailableError:
            await asyncio.sleep(0.2)
