"""Entity declarations: each replicated kind of record is declared once, in `entities/*.yaml`.

The table, the merge function, the triggers, the API routes and the schemas of the API are all
derived from what this module returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as option
from enum import StrEnum
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from acgs2.errors import EntityError

__all__ = ["Entity", "Field", "FieldType", "Residency", "Rule", "Scope", "Strategy", "entities", "parse"]


class Strategy(StrEnum):
    """How two concurrent versions of one record become one."""

    LAST_WRITE_WINS = "last_write_wins"
    MERGE = "merge"
    VERSIONED = "versioned"
    APPEND_ONLY = "append_only"


class Rule(StrEnum):
    """How one field merges under `Strategy.MERGE`."""

    LATEST = "latest"
    MAX = "max"
    MIN = "min"
    UNION = "union"
    COUNTER = "counter"
    MAP = "map"


class FieldType(StrEnum):
    """What a field holds; the name of its PostgreSQL type is in `SQL_TYPES`."""

    TEXT = "text"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    JSON = "json"
    ENUM = "enum"
    SET = "set"
    COUNTER = "counter"
    MAP = "map"
    UUID = "uuid"


class Residency(StrEnum):
    """Whether records follow their zone or belong to the register that every region holds."""

    ZONE = "zone"
    EVERYWHERE = "everywhere"


class Scope(StrEnum):
    """Who owns a record: it is itself the tenant, it belongs to one, or to the register."""

    ROOT = "root"
    TENANT = "tenant"
    REGISTER = "register"


#: Rules that a field type admits under `Strategy.MERGE`.
_RULES: Mapping[FieldType, frozenset[Rule]] = {
    FieldType.TEXT: frozenset({Rule.LATEST}),
    FieldType.ENUM: frozenset({Rule.LATEST}),
    FieldType.BOOLEAN: frozenset({Rule.LATEST}),
    FieldType.JSON: frozenset({Rule.LATEST}),
    FieldType.UUID: frozenset({Rule.LATEST}),
    FieldType.INTEGER: frozenset({Rule.LATEST, Rule.MAX, Rule.MIN}),
    FieldType.TIMESTAMP: frozenset({Rule.LATEST, Rule.MAX, Rule.MIN}),
    FieldType.SET: frozenset({Rule.UNION}),
    FieldType.COUNTER: frozenset({Rule.COUNTER}),
    FieldType.MAP: frozenset({Rule.MAP}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One declared field.

    `max` is a length in characters for text, a number of elements for sets and maps, and a value
    for integers.
    """

    name: str
    type: FieldType
    rule: Rule = Rule.LATEST
    required: bool = False
    personal: bool = False
    read_only: bool = False
    min: int | None = None
    max: int | None = None
    format: str | None = None
    values: tuple[str, ...] = ()
    default: Any = option(default=None, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One replicated kind of record.

    `subject` names the column with the id of the person whom a record is about: with it a region may hold
    the record by that person's consent. What is `managed` is written by acts of its own, never by plain
    requests. Of two append-only records with one key, `precedence` names the field whose later declared value
    wins before the clock is looked at, and `identity` the one that tells whether they are the same. What is
    `audited` leaves a leaf in the audit log whenever it is written, with these of its fields, and with the
    SHA-256 of those in `audited_digests`; erasures always do, with ids only.
    """

    name: str
    path: str
    strategy: Strategy
    residency: Residency
    scope: Scope
    fields: tuple[Field, ...]
    description: str = ""
    version_field: str | None = None
    subject: str | None = None
    managed: bool = False
    audited: tuple[str, ...] | None = None
    audited_digests: tuple[str, ...] = ()
    precedence: str | None = None
    identity: str | None = None

    def field(self, name: str) -> Field:
        """Return the field of that name.

        Raises:
            KeyError: there is none.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)


def parse(text: str, source: str = "<entity>") -> Entity:
    """Read one declaration.

    Raises:
        EntityError: it contradicts itself; the message names the file and the field.
    """
    raw = yaml.safe_load(text)
    description = " ".join(line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#"))
    try:
        fields = tuple(_field(name, spec, raw) for name, spec in raw["fields"].items())
        entity = Entity(
            name=raw["entity"],
            path=raw["path"],
            strategy=Strategy(raw["strategy"]),
            residency=Residency(raw["residency"]),
            scope=Scope(raw["scope"]),
            fields=fields,
            description=description,
            version_field=raw.get("version_field"),
            subject=raw.get("subject"),
            managed=bool(raw.get("managed", False)),
            audited=tuple(sorted(raw["audited"])) if "audited" in raw else None,
            audited_digests=tuple(sorted(raw.get("audited_digests", ()))),
            precedence=raw.get("precedence"),
            identity=raw.get("identity"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EntityError(
            "entity-invalid",
            f"{source}: {error}",
            hint="Compare it with a declaration that works, such as user_profile.yaml.",
            file=source,
        ) from error
    _check(entity, source)
    return entity


def _field(name: str, spec: Mapping[str, Any], raw: Mapping[str, Any]) -> Field:
    kind = FieldType(spec["type"])
    rule = Rule(spec.get("rule", "latest"))
    if raw["strategy"] == Strategy.MERGE and rule not in _RULES[kind]:
        raise ValueError(f"field {name}: a {kind} cannot merge by {rule}")
    known = {f for f in Field.__dataclass_fields__ if f not in ("name", "type", "rule", "values")}
    unknown = set(spec) - known - {"type", "rule", "values"}
    if unknown:
        raise ValueError(f"field {name}: unknown keys {sorted(unknown)}")
    return Field(
        name=name,
        type=kind,
        rule=rule,
        values=tuple(spec.get("values", ())),
        **{key: spec[key] for key in known if key in spec},
    )


def _check(entity: Entity, source: str) -> None:
    problem = None
    if entity.strategy is Strategy.VERSIONED:
        if entity.version_field not in {f.name for f in entity.fields}:
            problem = "a versioned entity names the field that holds its version"
    elif entity.version_field:
        problem = "only a versioned entity has a version_field"
    if entity.strategy is not Strategy.MERGE:
        crdt = {FieldType.SET, FieldType.COUNTER, FieldType.MAP}
        if any(f.type in crdt for f in entity.fields):
            problem = "sets, counters and maps need the merge strategy"
    if entity.strategy is not Strategy.APPEND_ONLY and (entity.precedence or entity.identity):
        problem = "only an append_only entity has a precedence or an identity"
    if entity.precedence not in (None, *(f.name for f in entity.fields if f.type is FieldType.ENUM)):
        problem = "precedence is a field of type enum"
    if entity.identity not in (None, *(f.name for f in entity.fields)):
        problem = "identity is a field"
    if entity.subject not in (None, "key", *(f.name for f in entity.fields if f.type is FieldType.UUID)):
        problem = "subject is `key` or a field of type uuid"
    known = {f.name: f for f in entity.fields}
    if any(
        name not in known or known[name].personal
        for name in (*(entity.audited or ()), *entity.audited_digests)
    ):
        problem = "what is audited are fields, and none that is personal: a log is never erased"
    for field in entity.fields:
        if field.personal and (field.rule is not Rule.LATEST or field.type is not FieldType.TEXT):
            problem = (
                f"personal field {field.name} must be text that merges by latest, so that it can be sealed"
            )
    if problem:
        raise EntityError("entity-invalid", f"{source}: {problem}", file=source)


@cache
def entities() -> Mapping[str, Entity]:
    """Return every declared entity by name, in the order in which they may be created."""
    folder: Traversable = resources.files("acgs2.model") / "entities"
    found = [parse(f.read_text(), f.name) for f in folder.iterdir() if f.name.endswith(".yaml")]
    order = {Scope.REGISTER: 0, Scope.ROOT: 1, Scope.TENANT: 2}
    found.sort(key=lambda e: (order[e.scope], e.name))
    return {entity.name: entity for entity in found}
