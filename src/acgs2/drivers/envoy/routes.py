"""The edge's routes of one place: every answer of the routing decision as a match on headers and path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from acgs2.drivers.envoy import api
from acgs2.drivers.envoy.answers import NOTHING_STORED, direct
from acgs2.drivers.envoy.parts import seconds
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
    headers: Sequence[api.HeaderMatcher]
    retry_on: str
    codes: tuple[int, ...] = ()


def order_name(place: str, order: tuple[str, ...]) -> str:
    """Return the name of the cluster that takes regions in an order."""
    return f"{place}/{'+'.join(order)}"


def table(topology: Topology, traffic: Traffic, place: str) -> tuple[api.RouteConfiguration, set[Order]]:
    """Return the routes of a place, and the orders of several regions that they name."""
    made = _Table(topology, traffic, place)
    found = list(made.routes())
    host = api.VirtualHost(name="edge", domains=["*"], routes=found)
    config = api.RouteConfiguration(
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

    def routes(self) -> Iterator[api.Route]:
        """Yield all routes, the first that matches counts."""
        yield direct(
            "metrics", api.RouteMatch(path="/metrics"), 404, "not-found", "There is nothing here.", ""
        )
        for zone in sorted(self._traffic.rights.zones):
            yield from self._zone(zone)
        yield direct(
            "zone unknown",
            api.RouteMatch(prefix="/api/v1/", headers=[_header(ZONE, "", present=True)]),
            400,
            "zone-unknown",
            f"The header {ZONE} names no zone.",
            f"Zones: {', '.join(sorted(self._traffic.rights.zones))}.",
        )
        yield from self._zoneless()

    def _zone(self, zone: str) -> Iterator[api.Route]:
        for entity in [e for e in entities().values() if e.residency is Residency.ZONE]:
            path = api.RouteMatch(path_separated_prefix=f"/api/v1/{entity.path}")
            yield from self._choices(zone, path, entity)
        yield from self._choices(zone, api.RouteMatch(prefix="/api/v1/"), None)

    def _choices(self, zone: str, path: api.RouteMatch, entity: Entity | None) -> Iterator[api.Route]:
        """Yield the routes of one zone and path: left to us, a lawful region, an unlawful one."""
        name = f"{zone} {entity.path if entity else 'api'}"
        about = _header(ZONE, zone)
        lawful: tuple[str, ...] = ()
        for each in _classes(entity):
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

    def _zoneless(self) -> Iterator[api.Route]:
        """Yield the routes of requests about no zone: reading is left to the region, writing needs one."""
        for entity in [e for e in entities().values() if e.residency is Residency.ZONE]:
            path = api.RouteMatch(path_separated_prefix=f"/api/v1/{entity.path}")
            yield direct(
                f"{entity.path} zone missing",
                _match(path, [_matching(":method", "^(POST|PUT|PATCH|DELETE)$")]),
                400,
                "zone-missing",
                f"A write needs the header {ZONE}.",
                "Name the zone that the data belongs to, such as eu.",
            )
        anything = api.RouteMatch(prefix="/")
        for each in _classes(None):
            decided = self._decide(None, "auto", None, each.kind)
            yield self._to(f"any {each.name}", _match(anything, [*each.headers, _auto()]), decided, each)
            for region in decided.lawful:
                chosen = self._decide(None, region, None, each.kind)
                match = _match(anything, [*each.headers, _header(PREFERENCE, region)])
                yield self._to(f"any {each.name} {region}", match, chosen, each)
        yield self._region_unknown(anything)

    def _region_unknown(self, match: api.RouteMatch) -> api.Route:
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

    def _to(self, name: str, match: api.RouteMatch, decided: Routing, each: _Class) -> api.Route:
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
        action = api.RouteAction(
            weighted_clusters=api.WeightedCluster(clusters=self._weighted(decided)),
            timeout=seconds(limits.timeout_s),
            retry_policy=_retry(each, limits),
        )
        return api.Route(name=name, match=match, route=action)

    def _weighted(self, decided: Routing) -> list[api.ClusterWeight]:
        """Return the shares: who has one comes first in an order of its own, the others stand by."""
        found: list[api.ClusterWeight] = []
        for target in decided.targets:
            weight = round(target.share * 10_000)
            if not weight:
                continue
            order = (target.region, *(r for r in decided.regions if r != target.region))
            if len(order) > 1:
                self.orders.add((self._place, order))
            found.append(api.ClusterWeight(name=order_name(self._place, order), weight=weight))
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


def _retry(each: _Class, limits: Limits) -> api.RetryPolicy:
    return api.RetryPolicy(
        retry_on=each.retry_on,
        num_retries=limits.retries,
        per_try_timeout=seconds(limits.per_try_s),
        retriable_status_codes=[*each.codes],
        retriable_headers=[_header(NOTHING_STORED, "", present=True)]
        if "retriable-headers" in each.retry_on
        else [],
        retry_back_off=api.RetryBackOff(base_interval=seconds(0.025), max_interval=seconds(0.25)),
        # Not where it has just failed, but at the next lawful region.
        retry_priority=api.Extension(
            name="envoy.retry_priorities.previous_priorities",
            typed_config=api.PreviousPriorities(update_frequency=1),
        ),
        retry_host_predicate=[
            api.Extension(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=api.PreviousHosts(),
            )
        ],
        host_selection_retry_max_attempts=3,
    )


def _match(path: api.RouteMatch, headers: Sequence[api.HeaderMatcher]) -> api.RouteMatch:
    return api.RouteMatch(
        prefix=path.prefix, path_separated_prefix=path.path_separated_prefix, headers=[*headers]
    )


def _header(name: str, value: str, *, present: bool = False) -> api.HeaderMatcher:
    if present:
        return api.HeaderMatcher(name=name, present_match=True)
    return api.HeaderMatcher(name=name, string_match=api.StringMatcher(exact=value))


def _matching(name: str, regex: str) -> api.HeaderMatcher:
    text = api.StringMatcher(safe_regex=api.RegexMatcher(regex=regex))
    return api.HeaderMatcher(name=name, string_match=text)


def _auto() -> api.HeaderMatcher:
    """Match who leaves the choice to us, by saying so or by saying nothing."""
    text = api.StringMatcher(safe_regex=api.RegexMatcher(regex="^(auto)?$"))
    return api.HeaderMatcher(name=PREFERENCE, string_match=text, treat_missing_header_as_empty=True)


def _one_of(names: Sequence[str]) -> str:
    return f"^({'|'.join(names)})$"
