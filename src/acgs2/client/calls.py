"""Carrying a call out: attempts along its course, within its deadline; only errors of our tree come out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import anyio
import httpx
import msgspec

from acgs2.client import tracing
from acgs2.client.answers import Reading, failed, late, read, refused, tokenless
from acgs2.client.course import Came, Course, Rule, Send, Stop, begin
from acgs2.client.outcomes import error_of
from acgs2.client.places import AUTO, Place, Trust
from acgs2.client.tokens import Claims, Tokens, claims_of
from acgs2.errors import ForbiddenError, InputError, RuntimeFault

__all__ = ["Call", "Caller"]

_CONNECT_S = 5.0
_NOBODY = "00000000-0000-0000-0000-000000000000"
#: How a transport can fail; a broken TLS record comes as an OSError.
_TRANSPORT = (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError)

Kind = tuple[str | None, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One thing that is asked, however many attempts it takes.

    Args:
        route: the path without ids, as traces show it.
        collection: the path of the entity.
        shape: the type of the result, None where it has no body.
        attempt_s: how long one attempt may take, so that one that hangs is not the only one.
    """

    method: str
    route: str
    path: str
    collection: str
    rule: Rule
    shape: Any
    deadline_s: float
    attempt_s: float
    zone: str | None
    region: str = AUTO
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    idempotency_key: str | None = None
    if_match: str | None = None
    #: By what a repeat is known where it is not a key: named in an error, for who repeats it later.
    known_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def fixed(self) -> str | None:
        """Return the region that the caller insists on."""
        return None if self.region == AUTO else self.region

    @property
    def kind(self) -> Kind:
        """Return what calls have in common that are taken at the same place."""
        return (self.zone, self.collection, self.region)

    def headers(self, place: Place, token: str) -> dict[str, str]:
        """Return the headers of an attempt at a place."""
        sent = {
            **tracing.trace_headers(),
            "accept": "application/json, application/problem+json",
            "authorization": f"Bearer {token}",
            "x-region-preference": place.preference,
        }
        given = {
            "x-data-sovereignty": self.zone,
            "idempotency-key": self.idempotency_key,
            "if-match": self.if_match,
            "content-type": "application/json" if self.body is not None else None,
        }
        return sent | {name: value for name, value in given.items() if value is not None}


class _Anything(msgspec.Struct):
    """A list, of which only that it is one is asked."""

    items: list[Any]


@dataclass(slots=True)
class _Trail:
    """What a call's attempts leave for the next one."""

    attempts: int = 0
    sent: bool = False
    token: str | None = None

    async def note(self, event: str, _: Any) -> None:
        """Take note of what the transport does: once it sends, the request may arrive."""
        self.sent = self.sent or event.endswith(".send_request_headers.started")


class Caller:
    """Carries calls out over one pool of connections, and remembers where what was taken."""

    def __init__(
        self,
        trust: Trust,
        tokens: Tokens,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.clock = clock
        self.wall_clock = wall_clock
        self._trust = trust
        self._tokens = tokens
        self.jitter = jitter
        self._http: httpx.AsyncClient | None = None
        self._routes: dict[Kind, Place] = {}
        #: Who answered at a URL for a zone and collection, and the URLs whose answers name nobody.
        self._regions: dict[tuple[str, str | None, str], str] = {}
        self._nameless: set[str] = set()

    async def claims(self) -> Claims:
        """Return what the token says of itself, unverified."""
        return claims_of(await self._tokens.current())

    async def open(self, http: httpx.AsyncClient) -> None:
        """Begin to use a client of httpx; it is closed with this."""
        self._http = await http.__aenter__()

    async def close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        http, self._http = self._http, None
        if http is not None:
            await http.__aexit__(kind, error, trace)

    async def send(self, call: Call) -> Reading:
        """Carry a call out and return its result.

        Raises:
            AcgsError: of the kind that the problem has; `OutcomeUnknown` where it may have been done.
        """
        with tracing.call_span(call.method, call.route, call.zone):
            if call.rule is Rule.SAME_REGION and call.fixed is None:
                await self._learn(call)
            course, trail, reading = self._begin(call), _Trail(), late(sent=False)
            step: Send | Stop = Send(course.places[0])
            while isinstance(step, Send):
                await anyio.sleep(step.wait_s)
                place = step.place
                reading = await self._attempt(call, step, trail)
                course, step = course.after(reading.outcome, self.clock(), self.jitter())
                self._remember(call, course, place, reading)
            error = error_of(call, course, step, reading, trail.attempts)
            if error is not None:
                raise error
            return reading

    async def _attempt(self, call: Call, step: Send, trail: _Trail) -> Reading:
        trail.attempts, trail.sent = trail.attempts + 1, False
        place = step.place
        with tracing.attempt_span(call.method, call.route, trail.attempts) as span:
            reading = None
            with anyio.move_on_after(max(0.0, call.deadline_s - self.clock())):
                reading = await self._token(call, step, trail)
                if reading is None:
                    with anyio.move_on_after(call.attempt_s):
                        reading = await self._exchange(call, place, trail)
            reading = reading or late(trail.sent)
            asked_for = None if place.preference == AUTO else place.preference
            tracing.ended(
                span, reading.error, status=reading.status, region=reading.outcome.region or asked_for
            )
            return reading

    async def _token(self, call: Call, step: Send, trail: _Trail) -> Reading | None:
        """Have a token for the next attempt; returns what the attempt comes to where there is none."""
        before = trail.token
        try:
            trail.token = await self._tokens.current(before if step.renew else None)
        except InputError as error:
            return refused(ForbiddenError(error.reference, error.message, hint=error.hint))
        except _TRANSPORT as error:
            return tokenless(error)
        old, new = claims_of(before or "").sub, claims_of(trail.token).sub
        if call.rule is not Rule.READ and None not in (old, new) and old != new:
            # An Idempotency-Key is a principal's own: under another name the repeat would be done again.
            return refused(
                ForbiddenError(
                    "token-of-another",
                    "The new token is of another principal than the one before.",
                    hint="Make each principal its own client.",
                )
            )
        return None

    async def _exchange(self, call: Call, place: Place, trail: _Trail) -> Reading:
        if self._http is None:
            raise RuntimeFault(
                "client-closed", "The client is not open.", hint="Call within `async with Client(...)`."
            )
        connect_s = min(_CONNECT_S, call.attempt_s)
        try:
            answer = await self._http.request(
                call.method,
                place.url + call.path,
                params=call.params or None,
                content=call.body,
                headers=call.headers(place, trail.token or ""),
                timeout=httpx.Timeout(call.attempt_s, connect=connect_s, pool=connect_s),
                extensions={"trace": trail.note},
            )
        except _TRANSPORT as error:
            return failed(error, trail.sent)
        chosen = call.fixed is None and place.preference != AUTO
        return read(
            answer.status_code,
            answer.headers,
            answer.content,
            call.shape,
            chosen=chosen,
            now_s=self.wall_clock(),
        )

    def _begin(self, call: Call) -> Course:
        first: list[Place] = []
        home = self._trust.homes[0]
        named = self._regions.get((home, call.zone, call.collection))
        if call.kind in self._routes:
            first.append(self._routes[call.kind])
        elif call.rule is Rule.SAME_REGION and call.fixed is None and named:
            # Only there a repeat is not carried out again: the region is named from the start.
            first.append(Place(home, named))
        return begin(
            call.rule,
            call.deadline_s,
            self._trust,
            fixed=call.fixed,
            renewable=self._tokens.renewable,
            alone=frozenset(self._nameless - {url for url, *_ in self._regions}),
            first=first,
        )

    def _remember(self, call: Call, course: Course, place: Place, reading: Reading) -> None:
        """Note who answered, and where what is taken; forget a place that failed."""
        came, region = reading.outcome.came, reading.outcome.region
        if came is Came.ELSEWHERE:
            self._regions.pop((place.url, call.zone, call.collection), None)
        elif region is not None:
            self._regions[place.url, call.zone, call.collection] = region
        elif reading.error is None:
            self._nameless.add(place.url)
        if came is Came.SETTLED:
            if course.follows and reading.ours:
                self._routes[call.kind] = place
        elif came is not Came.UNAUTHENTICATED and self._routes.get(call.kind) == place:
            del self._routes[call.kind]

    async def _learn(self, call: Call) -> None:
        """Learn which region answers, by a list that is empty, before what only that region may repeat."""
        home = self._trust.homes[0]
        known = call.kind in self._routes or (home, call.zone, call.collection) in self._regions
        if known or home in self._nameless:
            return
        await self.send(
            Call(
                method="GET",
                route=call.collection,
                path=call.collection,
                collection=call.collection,
                rule=Rule.READ,
                shape=_Anything,
                deadline_s=call.deadline_s,
                attempt_s=call.attempt_s,
                zone=call.zone,
                params={"limit": "1", "tenant": _NOBODY},
            )
        )
