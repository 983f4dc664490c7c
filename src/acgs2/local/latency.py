"""How long clients of each place wait for an answer about each zone, as they see it: through the edge."""

from __future__ import annotations

import asyncio
import ssl
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import httpx

from acgs2.api.tokens import mint
from acgs2.errors import InputError
from acgs2.local.state import State
from acgs2.model.ids import request_key
from acgs2.topology import Topology

__all__ = ["Spread", "Waited", "choose_pairs", "link_ms", "measure", "spread"]

#: Requests of all pairs together: what a machine of two cores answers without a queue.
_RATE_PER_S = 60.0
_SHORTEST_PAUSE_S = 0.1
#: Handshakes, and the first requests on a new connection.
_WARM_UP = 3
_TIMEOUT_S = 30.0
_ERASERS = 4
_LIFETIME_S = 12 * 3600
_WHO = "operator@latency"
_NAME = "acgs2 latency"


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of several durations; all 0 where there are none."""

    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


def spread(took_ms: Sequence[float]) -> Spread:
    """Return percentiles, interpolated as the databases do it for lag (percentile_cont)."""
    if len(took_ms) < 2:
        return Spread(*([*took_ms] * 3))
    cuts = statistics.quantiles(took_ms, n=100, method="inclusive")
    return Spread(cuts[49], cuts[98], max(took_ms))


@dataclass
class Waited:
    """What clients of a place saw of a zone.

    Args:
        took_ms: how long each answered request took, the warm-up left out.
        regions: how many answers each region gave.
        failures: how often what went wrong.
        left: records that were written and could not be erased again.
    """

    place: str
    zone: str
    took_ms: list[float] = field(default_factory=list)
    regions: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    left: int = 0

    @property
    def region(self) -> str:
        """Return the region that gave most answers; nothing if none did."""
        return next((name for name, _ in self.regions.most_common(1)), "")

    def kept(self, topology: Topology) -> bool | None:
        """Return whether the place's own zone is as fast as promised; None for others, which are not."""
        if topology.places[self.place].zone != self.zone:
            return None
        return bool(self.took_ms) and spread(self.took_ms).p99_ms <= topology.objectives.p99_ms


def choose_pairs(topology: Topology, place: str = "", zone: str = "") -> list[tuple[str, str]]:
    """Return places with zones: all, or those of one place, or of one zone.

    Raises:
        InputError: there is no such place (`place-unknown`) or zone (`zone-unknown`), or no place at all
            (`no-places`).
    """
    if not topology.places:
        raise InputError(
            "no-places",
            f"The topology {topology.name} has no places that clients are at.",
            hint="Add `places` to it, and `acgs2 topology apply FILE`.",
        )
    for name, known, what in ((place, topology.places, "place"), (zone, topology.zones, "zone")):
        if name and name not in known:
            raise InputError(
                f"{what}-unknown",
                f"There is no {what} {name}.",
                hint=f"{what.title()}s: {', '.join(known)}.",
            )
    return [(p, z) for p in topology.places if place in ("", p) for z in topology.zones if zone in ("", z)]


def link_ms(topology: Topology, place: str, region: str, zone: str, *, writes: bool = False) -> float:
    """Return the round trips that an answer cannot do without: to the edge, to the region, to its pair."""
    way_ms = topology.places[place].access_ms + topology.distances[place][region]
    pair = topology.pair_of(zone)
    if writes and region in pair:
        way_ms += next((n.rtt_ms for n in topology.links() if {n.a, n.b} == {*pair}), 0.0)
    return way_ms


async def measure(
    state: State,
    pairs: Sequence[tuple[str, str]],
    requests: int,
    *,
    writes: bool = False,
    on_request: Callable[[], None] = lambda: None,
) -> list[Waited]:
    """Send requests for every pair of place and zone, all pairs at once, each over a connection of its own.

    What is written is erased before this returns, also when it is cancelled.

    Args:
        state: of a cluster that runs.
        pairs: places and zones.
        requests: how many for each pair.
        writes: create records with an Idempotency-Key instead of reading.
        on_request: called after each request, the warm-up left out.
    """
    key, audience = state.path / "secrets" / "signing.json", state.topology.name
    token = mint(key, _WHO, "operator", audience, int(time.time()), lifetime_s=_LIFETIME_S)
    trust = ssl.create_default_context(cafile=state.trust)
    pause_s = max(_SHORTEST_PAUSE_S, len(pairs) / _RATE_PER_S)
    async with AsyncExitStack() as stack:
        clients: list[_Client] = []
        for place, zone in pairs:
            http = httpx.AsyncClient(
                base_url=state.edge_url(place),
                headers={"authorization": f"Bearer {token}", "x-data-sovereignty": zone},
                verify=trust,
                trust_env=False,
                timeout=_TIMEOUT_S,
                limits=httpx.Limits(max_connections=_ERASERS, keepalive_expiry=60),
            )
            await stack.enter_async_context(http)
            clients.append(_Client(http, Waited(place, zone), writes))
        try:
            async with asyncio.TaskGroup() as group:
                for number, client in enumerate(clients):
                    # Spread out, so that no pair waits for another.
                    begin_s = number * pause_s / len(clients)
                    group.create_task(client.run(requests, begin_s, pause_s, on_request))
        finally:
            await asyncio.gather(*(client.erase() for client in clients))
    return [client.waited for client in clients]


class _Client:
    """A client of one place that asks about one zone, one request after the other."""

    def __init__(self, http: httpx.AsyncClient, waited: Waited, writes: bool) -> None:
        self._http = http
        self._writes = writes
        #: Ids of what was written, or may have been: they follow from the keys.
        self._written: list[uuid.UUID] = []
        self.waited = waited

    async def run(
        self, requests: int, begin_s: float, pause_s: float, on_request: Callable[[], None]
    ) -> None:
        """Send the warm-up and then the requests, a pause from one's begin to the next one's at least."""
        await asyncio.sleep(begin_s)
        warm_up = Waited(self.waited.place, self.waited.zone)
        for number in range(_WARM_UP + requests):
            due_s = time.perf_counter() + pause_s
            measured = number >= _WARM_UP
            await self._ask(self.waited if measured else warm_up)
            if measured:
                on_request()
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))

    async def _ask(self, into: Waited) -> None:
        began_s = time.perf_counter()
        try:
            answer = await (self._create() if self._writes else self._read())
        except httpx.HTTPError as error:
            into.failures[type(error).__name__] += 1
            return
        took_ms = (time.perf_counter() - began_s) * 1000
        if not answer.is_success:
            into.failures[_problem(answer)] += 1
            return
        into.took_ms.append(took_ms)
        into.regions[answer.headers.get("x-acgs2-region", "?")] += 1

    async def _read(self) -> httpx.Response:
        return await self._http.get("/api/v1/tenants", params={"limit": 1})

    async def _create(self) -> httpx.Response:
        key = str(uuid.uuid4())
        self._written.append(request_key(_WHO, "tenant", key))
        headers = {"idempotency-key": key}
        return await self._http.post("/api/v1/tenants", json={"name": _NAME}, headers=headers)

    async def erase(self) -> None:
        """Erase what was written; count what could not be."""
        gone = await asyncio.gather(*(self._gone(each) for each in self._written))
        self.waited.left = gone.count(False)

    async def _gone(self, record: uuid.UUID) -> bool:
        try:
            answer = await self._http.delete(f"/api/v1/tenants/{record}")
        except httpx.HTTPError:
            return False
        # Not there: its create failed.
        return answer.is_success or answer.status_code in (404, 410)


def _problem(answer: httpx.Response) -> str:
    """Return the status and what the problem document says it is, such as `503 no-lawful-target`."""
    try:
        reference = str(answer.json()["type"]).rpartition("/")[2]
    except (ValueError, KeyError, TypeError):
        reference = answer.reason_phrase
    return f"{answer.status_code} {reference}"
