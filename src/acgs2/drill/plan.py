"""What each client does: an endless sequence of acts that follows from the seed and nothing that happens.

Records are known by name before they exist: the API derives the id of a record that is created with an
Idempotency-Key. Every text that is written carries the name of its record between tildes, so that it is found
wherever it should not be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from random import Random
from typing import Any

from acgs2.drill.workload import Act
from acgs2.model.ids import request_key
from acgs2.residency import decide, register_of
from acgs2.topology import Topology

__all__ = ["TOKEN", "Plan", "RightsPlan", "Step", "Stock", "stock_of"]

#: A text of a record: `~entity/name+what~`; who it belongs to is all up to the plus.
TOKEN = r"~([a-z0-9_./-]+)\+[a-z0-9.-]+~"
_KINDS: Mapping[str, int] = {
    "read": 22,
    "increment": 20,
    "add": 10,
    "remove": 8,
    "set": 12,
    "cas": 8,
    "append": 6,
    "create": 8,
    "configure": 1,
    "read_config": 3,
    "erase": 2,
}
_ENTITY = {"append": "audit_event", "cas": "tenant_config", "read_config": "tenant_config"}
_ENTITY |= {"configure": "tenant_config"}
_CREATING = ("create", "configure", "append")
_PATHS = {
    "user_profile": "users",
    "tenant_config": "configs",
    "audit_event": "audit-events",
    "tenant": "tenants",
}
_RIGHTS: Mapping[str, int] = {"grant": 6, "withdraw": 4, "register": 1, "revoke": 1, "move": 1, "forget": 1}


@dataclass(frozen=True, slots=True)
class Step:
    """An act, how long the client thinks before it, and whether it asks again when it gets no answer."""

    act: Act
    pause_s: float
    repeats: bool
    body_of: str  # whose data it is: a zone's, or a moving tenant's


@dataclass(frozen=True)
class Stock:
    """The bodies of data that clients work on, and who may: a zone's tenant that stays, tenants that move.

    `bodies` says of each where it begins, `movable` which zones a moving tenant knows. Per region and entity,
    `access` says which bodies it may touch and how eagerly, `makes` in which it may create.
    """

    subject: str
    bodies: Mapping[str, str]
    access: Mapping[str, Mapping[str, Mapping[str, float]]]
    makes: Mapping[str, Mapping[str, tuple[str, ...]]]
    movable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def key(self, entity: str, name: str) -> str:
        """Return the id of a record by its name."""
        return str(request_key(self.subject, entity, f"{entity}/{name}"))

    def tenant(self, body: str) -> str:
        """Return the id of the tenant whose data a body is."""
        return self.key("tenant", body)


def stock_of(topology: Topology, subject: str, movable: Mapping[str, tuple[str, ...]]) -> Stock:
    """Return what there is to work on in a topology; `movable`: moving tenants and the zones they know."""
    register, now = register_of(topology), datetime.now(UTC)
    bodies = {zone: zone for zone in topology.zones} | {name: zones[0] for name, zones in movable.items()}
    zones_of = {zone: (zone,) for zone in topology.zones} | dict(movable)
    access: dict[str, dict[str, dict[str, float]]] = {}
    makes: dict[str, dict[str, tuple[str, ...]]] = {}
    decided = {(e, z): decide(e, z, register, now) for e in _PATHS for z in topology.zones}
    for region, entity in product(topology.regions, _PATHS):
        of_right = {z for z in topology.zones if region in decided[entity, z].residency}
        by_consent = {z for z in topology.zones if region in decided[entity, z].by_consent}
        # A record is created where its tenant is known, whichever of its zones that is in.
        rooted = {z for z in of_right if region in decided["tenant", z].residency}
        eager = {b: 1.0 for b, zones in zones_of.items() if set(zones) & of_right}
        shy = {b: 0.2 for b, zones in zones_of.items() if set(zones) & by_consent}
        access.setdefault(region, {})[entity] = shy | eager
        makes.setdefault(region, {})[entity] = tuple(
            b for b, zones in zones_of.items() if set(zones) <= rooted
        )
    return Stock(subject, bodies, access, makes, movable)


class Plan:
    """The acts of one client of a region.

    Args:
        seed: of the run.
        name: of the client, unlike all others.
        region: where it sends everything.
        makers: who creates records, per entity and body: names of clients.
        stock: what there is to work on.
        pause_s: how long it thinks between two acts, on average.
    """

    def __init__(
        self,
        seed: int,
        name: str,
        region: str,
        makers: Mapping[tuple[str, str], Sequence[str]],
        stock: Stock,
        pause_s: float,
    ) -> None:
        self._rng = Random(f"{seed}/{name}")
        self._name = name
        self._region = region
        self._makers = makers
        self._stock = stock
        self._pause_s = pause_s
        self._made: Counter[tuple[str, str]] = Counter()
        self._count = 0

    def __iter__(self) -> Iterator[Step]:
        while True:
            kind = self._rng.choices(list(_KINDS), list(_KINDS.values()))[0]
            step = self._step(kind)
            if step is not None:
                yield step

    def _step(self, kind: str) -> Step | None:
        entity = _ENTITY.get(kind, "user_profile")
        bodies = self._stock.access[self._region][entity]
        pause_s = self._rng.expovariate(1 / self._pause_s)
        repeats = self._rng.random() < 0.5
        if not bodies:
            return None
        body = self._rng.choices(list(bodies), list(bodies.values()))[0]
        self._count += 1
        creating = body in self._stock.makes[self._region][entity]
        first = entity != "audit_event" and not self._made[entity, body]
        if kind in _CREATING or (creating and first):
            kind = kind if kind in _CREATING else "create"
            return Step(self._create(kind, entity, body), pause_s, repeats, body) if creating else None
        return Step(self._change(kind, entity, body), pause_s, repeats and kind != "erase", body)

    def _create(self, kind: str, entity: str, body: str) -> Act:
        number = self._made[entity, body]
        self._made[entity, body] += 1
        name = f"{body}.{self._name}.{number}"
        text = f"~{entity}/{name}+new~"
        content: dict[str, Any] = {
            "user_profile": {"display_name": text},
            "tenant_config": {"settings": {"is": text}},
            "audit_event": {"actor": self._name, "action": text},
        }[entity]
        return Act(
            "append" if kind == "append" else "create",
            "POST",
            _PATHS[entity],
            "",
            entity,
            self._stock.key(entity, name),
            {"tenant_id": self._stock.tenant(body), **content},
            content,
            idempotency_key=f"{entity}/{name}",
        )

    def _change(self, kind: str, entity: str, body: str) -> Act:
        name = self._someones(entity, body)
        key = self._stock.key(entity, name)
        again = f"{self._name}/{self._count}"
        path = f"{_PATHS[entity]}/{key}"
        if kind in ("read", "read_config"):
            return Act("read", "GET", path, "", entity, key)
        if kind == "erase":
            return Act("erase", "DELETE", path, "", entity, key)
        if kind == "cas":
            sent: dict[str, Any] = {"value": f"~{entity}/{name}+{again.replace('/', '.')}~"}
            return Act(kind, "PATCH", path, "", entity, key, None, sent, again)
        content: dict[str, Any]
        if kind == "increment":
            by = self._rng.randint(1, 3)
            content, sent = {"login_count": {"increment": by}}, {"by": by}
        elif kind in ("add", "remove"):
            # Half of the elements are touched in one region only: of these it is known what came last.
            owner = self._rng.choice(["any", self._region])
            element = f"~{entity}/{name}+{owner}.{self._rng.randrange(3)}~"
            content, sent = {"preferences": {kind: [element]}}, {"element": element}
        else:
            field_name = self._rng.choice(["display_name", "locale"])
            # A locale has no room for more than the name of the write.
            value = f"~{entity}/{name}+{again.replace('/', '.')}~" if field_name == "display_name" else again
            content, sent = {field_name: value}, {"field": field_name, "value": value}
        return Act(kind, "PATCH", path, "", entity, key, content, sent, again)

    def _someones(self, entity: str, body: str) -> str:
        """Return the name of a record: mostly of one of the newest, so that clients meet."""
        maker = self._rng.choice(self._makers[entity, body])
        # Others get on about as fast; one who creates nothing goes by how much it has done.
        own = self._made[entity, body] - 1
        made = max(own, 0) if self._made else self._count // 40
        newest = self._rng.random() < 0.8
        number = made - int(self._rng.expovariate(0.7)) if newest else self._rng.randint(0, made)
        return f"{body}.{maker}.{max(number, 0)}"


class RightsPlan:
    """Acts by which rights begin and end, at a low rate, sent to regions in turn.

    Args:
        seed: of the run.
        makers: as of a plan.
        stock: what there is to work on.
        regions: who is asked, per kind of act.
        consent: the zone, and the region to which its people may consent.
        transfers: what may be registered: zone, region, instrument, entities.
        pause_s: how long it rests between two acts, on average.
    """

    def __init__(
        self,
        seed: int,
        makers: Mapping[tuple[str, str], Sequence[str]],
        stock: Stock,
        regions: Mapping[str, Sequence[str]],
        consent: tuple[str, str],
        transfers: Sequence[tuple[str, str, str, tuple[str, ...]]],
        pause_s: float,
    ) -> None:
        self._rng = Random(f"{seed}/rights")
        self._makers = makers
        self._stock = stock
        self._regions = regions
        self._consent = consent
        self._transfers = transfers
        self._pause_s = pause_s
        self._registered = 0
        self._count = 0

    def __iter__(self) -> Iterator[tuple[str, Step]]:
        """Yield a region and what to ask it."""
        while True:
            kind = self._rng.choices(list(_RIGHTS), list(_RIGHTS.values()))[0]
            region = self._rng.choice(self._regions[kind])
            pause_s = self._rng.expovariate(1 / self._pause_s)
            act, body = self._act(kind)
            self._count += 1
            yield region, Step(act, pause_s, False, body)

    def _act(self, kind: str) -> tuple[Act, str]:
        zone, to = self._consent
        if kind in ("grant", "withdraw", "forget"):
            # The newest few of anybody: how far they have come is not known here, and need not be.
            maker = self._rng.choice(self._makers["user_profile", zone])
            name = f"{zone}.{maker}.{self._rng.randrange(1 + self._count // 12)}"
            person = self._stock.key("user_profile", name)
            if kind == "forget":
                return Act("erase", "DELETE", f"subjects/{person}", "", "user_profile", person), zone
            sent = {"tenant_id": self._stock.tenant(zone), "subject_id": person, "to_region": to}
            body = sent | ({"evidence": "form 7"} if kind == "grant" else {})
            path = "consents" if kind == "grant" else "consents/withdraw"
            return Act(kind, "POST", path, "", "consent", person, body, sent), zone
        if kind == "register":
            of_zone, region, instrument, kinds = self._rng.choice(self._transfers)
            note = f"{self._stock.subject} {self._registered}"
            self._registered += 1
            sent = {
                "zone": of_zone,
                "to": region,
                "instrument": instrument,
                "entities": list(kinds),
                "note": note,
            }
            body = sent | {"importer_certified": True}
            return Act(kind, "POST", "transfers", "", "transfer", note, body, sent), of_zone
        if kind == "revoke":
            # Which id it has got is known when it is sent.
            note = f"{self._stock.subject} {self._rng.randrange(max(self._registered, 1))}"
            return Act(
                kind, "POST", "transfers/{id}/revoke", "", "transfer", note, None, {"note": note}
            ), zone
        name = self._rng.choice(sorted(self._stock.movable))
        tenant, target = self._stock.tenant(name), self._rng.choice(self._stock.movable[name])
        path = f"tenants/{tenant}/move"
        return Act("move", "POST", path, "", "tenant", tenant, {"to_zone": target}, {"to_zone": target}), name
