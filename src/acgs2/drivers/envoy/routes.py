"""The edge's routes of one place: every answer of the routing decision as a match on headers and path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from acgs2.drivers.envoy import api, http_api
from acgs2.drivers.envoy.answers import NOTHING_STORED, direct, malformed
from acgs2.drivers.envoy.parts import seconds
from acgs2.drivers.envoy.waiting import as_stream, inboxes, streams
from acgs2.model import entities
from acgs2.model.entity import Entity, Residency, Strategy
from acgs2.plan import Kind, Rights, Routing, kind_of, route
from acgs2.topology import Limits, Topology

__all__ = ["Traffic", "order_name", "table"]

ZONE = "x-data-sovereignty"
PREFERENCE = "x-region-preference"
#: When to try again what may be done twice, and what can only have been done if it was begun.
_ANYWHERE = "connect-failure,refused-stream,reset,retriable-status-codes"
_CODES = (502, 503, 504)
_NEVER_BEGAN = "connect-failure,refused-stream,reset-before-request"
#: Another region serves it, and the next one may be that.
_ELSEWHERE = 421
_PLATFORM = "/api/v1/policies/platform"
Order = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the decision depends on beside the topology: rights, and what was agreed about regions."""

    rights: Rights
    health: Mapping[str, bool] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Class:
    """Requests that may be tried again alike: which they are, how routes call them, when to try again."""

    name: str
    kind: Kind
    headers: Sequence[http_api.HeaderMatcher]
    retry_on: str
    codes: tuple[int, ...] = ()


def order_name(place: str, order: tuple[str, ...]) -> str:
    """Return the name of the cluster that takes regions in an order."""
    return f"{place}/{'+'.join(order)}"


def table(topology: Topology, traffic: Traffic, place: str) -> tuple[http_api.RouteConfiguration, set[Order]]:
    """Return the routes of a place, and the orders of several regions that they name."""
    made = _Table(topology, traffic, place)
    found = list(made.routes())
    host = http_api.VirtualHost(name="edge", domains=["*"], routes=found)
    config = http_api.RouteConfiguration(
        name=place,
        virtual_hosts=[host],
        request_headers_to_remove=["x-acgs2-region"],
    )
    return config, made.orders


class _Table:
    """The routes of a place in the making."""

    def __init__(self, topology: Topology, traffic: Traffic, place: str) -> None:
        self._topology = topology
        self._traffic = traffic
        self._place = place
        self._known = _one_of([*topology.regions])
        self.orders: set[Order] = set()

    def routes(self) -> Iterator[http_api.Route]:
        """Yield all routes, the first that matches counts."""
        yield malformed()
        yield direct(
            "metrics",
            http_api.RouteMatch(path_separated_prefix="/metrics"),
            404,
            "not-found",
            "There is nothing here.",
            "",
        )
        for zone in sorted(self._traffic.rights.zones):
            yield from self._zone(zone)
        yield direct(
            "zone unknown",
            http_api.RouteMatch(prefix="/", headers=[_header(ZONE, "", present=True)]),
            400,
            "zone-unknown",
            f"The header {ZONE} names no zone.",
            f"Zones: {', '.join(sorted(self._traffic.rights.zones))}.",
        )
        yield from self._zoneless()

    def _zone(self, zone: str) -> Iterator[http_api.Route]:
        message = entities()["message"]
        yield from map(as_stream, self._choices(zone, streams(), message, "streams", [_SERVED]))
        yield from map(self._patient, self._choices(zone, inboxes(), message, "inboxes", [_SERVED]))
        for entity in [e for e in entities().values() if e.residency is Residency.ZONE]:
            path = http_api.RouteMatch(path_separated_prefix=f"/api/v1/{entity.path}")
            yield from self._choices(zone, path, entity, entity.path)
        # Whatever the path: who mistypes it sends the same body.
        yield from self._choices(zone, http_api.RouteMatch(prefix="/"), None, "api")

    def _patient(self, route: http_api.Route) -> http_api.Route:
        """Return a route whose one try may take as long as all of it: who claims waits for what comes."""
        if route.route is not None and route.route.retry_policy is not None:
            route.route.retry_policy.per_try_timeout = route.route.timeout
        return route

    def _choices(
        self,
        zone: str,
        path: http_api.RouteMatch,
        entity: Entity | None,
        what: str,
        classes: Sequence[_Class] = (),
    ) -> Iterator[http_api.Route]:
        """Yield the routes of one zone and path: left to us, a lawful region, an unlawful one."""
        name = f"{zone} {what}"
        about = _header(ZONE, zone)
        lawful: tuple[str, ...] = ()
        for each in classes or _classes(entity):
            decided = self._decide(zone, "auto", entity, each.kind)
            lawful = decided.lawful
            match = _match(path, [about, *each.headers, _auto()])
            yield self._to(f"{name} {each.name}", match, decided, each)
            for region in lawful:
                chosen = self._decide(zone, region, entity, each.kind)
                match = _match(path, [about, *each.headers, _header(PREFERENCE, region)])
                yield self._to(f"{name} {each.name} {region}", match, chosen, each)
        yield direct(
            f"{name} unlawful",
            _match(path, [about, _matching(PREFERENCE, self._known)]),
            403,
            "region-not-lawful",
            f"The region that {PREFERENCE} names may not hold data of zone {zone}.",
            f"Lawful: {', '.join(lawful) or 'none'}.",
        )
        yield self._region_unknown(_match(path, [about]))

    def _zoneless(self) -> Iterator[http_api.Route]:
        """Yield the routes of requests about no zone: reading is left to the region, writing needs one."""
        writes = _matching(":method", "^(GET|HEAD|OPTIONS)$", invert=True)
        # What is agreed by all regions belongs to no zone, whatever else has a path like it.
        yield from self._to_any("platform", http_api.RouteMatch(path_separated_prefix=_PLATFORM))
        for entity in [e for e in entities().values() if e.residency is Residency.ZONE]:
            path = http_api.RouteMatch(path_separated_prefix=f"/api/v1/{entity.path}")
            yield _zone_missing(f"{entity.path} zone missing", _match(path, [writes]))
        yield from map(as_stream, self._to_any("streams", streams(), [_SERVED]))
        yield from map(self._patient, self._to_any("inboxes", inboxes(), [_SERVED]))
        # What operators do to the register, and to one region.
        yield from self._to_any("api", http_api.RouteMatch(prefix="/api/v1/"))
        anything = http_api.RouteMatch(prefix="/")
        yield _zone_missing("zone missing", _match(anything, [writes]))
        yield from self._to_any("any", anything)

    def _to_any(
        self, name: str, path: http_api.RouteMatch, classes: Sequence[_Class] = ()
    ) -> Iterator[http_api.Route]:
        """Yield the routes of what is about no zone, to all regions that serve clients."""
        for each in classes or _classes(None):
            decided = self._decide(None, "auto", None, each.kind)
            yield self._to(f"{name} {each.name}", _match(path, [*each.headers, _auto()]), decided, each)
            for region in decided.lawful:
                chosen = self._decide(None, region, None, each.kind)
                match = _match(path, [*each.headers, _header(PREFERENCE, region)])
                yield self._to(f"{name} {each.name} {region}", match, chosen, each)
        yield self._region_unknown(path)

    def _region_unknown(self, match: http_api.RouteMatch) -> http_api.Route:
        return direct(
            "region unknown",
            match,
            400,
            "region-unknown",
            f"The header {PREFERENCE} names no region that serves clients.",
            f"Regions: auto, {', '.join(self._topology.stacks())}.",
        )

    def _decide(self, zone: str | None, preference: str, entity: Entity | None, kind: Kind) -> Routing:
        return route(
            self._topology,
            self._traffic.rights,
            self._traffic.health,
            self._traffic.weights,
            self._place,
            zone,
            preference,
            entity=entity.name if entity else None,
            kind=kind,
        )

    def _to(self, name: str, match: http_api.RouteMatch, decided: Routing, each: _Class) -> http_api.Route:
        if not decided.targets:
            return direct(
                name,
                match,
                503,
                "no-lawful-target",
                "No region that may hold this zone's data takes part now.",
                f"Try again later; lawful would be {', '.join(decided.lawful) or 'none'}.",
            )
        limits = self._topology.front.limits
        action = http_api.RouteAction(
            weighted_clusters=http_api.WeightedCluster(clusters=self._weighted(decided)),
            timeout=seconds(limits.timeout_s),
            retry_policy=_retry(each, limits, alone=len(decided.targets) == 1),
        )
        return http_api.Route(name=name, match=match, route=action)

    def _weighted(self, decided: Routing) -> list[http_api.ClusterWeight]:
        """Return the shares: who has one comes first in an order of its own, the others stand by."""
        found: list[http_api.ClusterWeight] = []
        for target in decided.targets:
            weight = round(target.share * 10_000)
            if not weight:
                continue
            order = (target.region, *(r for r in decided.regions if r != target.region))
            if len(order) > 1:
                self.orders.add((self._place, order))
            found.append(http_api.ClusterWeight(name=order_name(self._place, order), weight=weight))
        return found


def _classes(entity: Entity | None) -> list[_Class]:
    """Return how requests about an entity differ in what may be tried again.

    Reads may be, anywhere. What is created with a key has an id made of it, and what is erased stays so:
    both may be done twice. Other changes are tried again only where they cannot have begun.
    """
    write = kind_of(entity) if entity is not None else Kind.MERGEABLE
    found = [
        _Class(
            "read",
            Kind.READ,
            [_matching(":method", "^(GET|HEAD)$")],
            _ANYWHERE,
            _CODES,
        )
    ]
    stored = f"{_NEVER_BEGAN},retriable-headers"
    if entity is not None and entity.strategy is not Strategy.VERSIONED:
        keyed = [_header(":method", "POST"), _header("idempotency-key", "", present=True)]
        found.append(_Class("create", write, keyed, _ANYWHERE, _CODES))
        found.append(_Class("erase", write, [_header(":method", "DELETE")], _ANYWHERE, _CODES))
    found.append(_Class("write", write, [], stored))
    return found


#: What is asked of whoever serves a zone's inboxes may be asked of the next region as well: a claim that
#: nobody heard of ends by itself, and the rest may be done twice.
_SERVED = _Class("served", Kind.SERVED, [], _ANYWHERE, (_ELSEWHERE, *_CODES))


def _retry(each: _Class, limits: Limits, *, alone: bool) -> http_api.RetryPolicy:
    return http_api.RetryPolicy(
        retry_on=each.retry_on,
        num_retries=limits.retries,
        per_try_timeout=seconds(limits.per_try_s),
        retriable_status_codes=[code for code in each.codes if not (alone and code == _ELSEWHERE)],
        retriable_headers=[_header(NOTHING_STORED, "", present=True)]
        if "retriable-headers" in each.retry_on
        else [],
        retry_back_off=http_api.RetryBackOff(base_interval=seconds(0.025), max_interval=seconds(0.25)),
        # Not where it has just failed, but at the next lawful region.
        retry_priority=api.Extension(
            name="envoy.retry_priorities.previous_priorities",
            typed_config=http_api.PreviousPriorities(update_frequency=1),
        ),
        retry_host_predicate=[
            api.Extension(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=http_api.PreviousHosts(),
            )
        ],
        host_selection_retry_max_attempts=3,
    )


def _zone_missing(name: str, match: http_api.RouteMatch) -> http_api.Route:
    return direct(
        name,
        match,
        400,
        "zone-missing",
        f"A write needs the header {ZONE}.",
        "Name the zone that the data belongs to, such as eu.",
    )


def _match(path: http_api.RouteMatch, headers: Sequence[http_api.HeaderMatcher]) -> http_api.RouteMatch:
    return http_api.RouteMatch(
        prefix=path.prefix,
        path_separated_prefix=path.path_separated_prefix,
        safe_regex=path.safe_regex,
        headers=[*headers],
    )


def _header(name: str, value: str, *, present: bool = False) -> http_api.HeaderMatcher:
    if present:
        return http_api.HeaderMatcher(name=name, present_match=True)
    return http_api.HeaderMatcher(name=name, string_match=api.StringMatcher(exact=value))


def _matching(name: str, regex: str, *, invert: bool = False) -> http_api.HeaderMatcher:
    text = api.StringMatcher(safe_regex=api.RegexMatcher(regex=regex))
    return http_api.HeaderMatcher(name=name, string_match=text, invert_match=invert)


def _auto() -> http_api.HeaderMatcher:
    """Match who leaves the choice to us, by saying so or by saying nothing."""
    text = api.StringMatcher(safe_regex=api.RegexMatcher(regex="^(auto)?$"))
    return http_api.HeaderMatcher(name=PREFERENCE, string_match=text, treat_missing_header_as_empty=True)


def _one_of(names: Sequence[str]) -> str:
    return f"^({'|'.join(names)})$"
