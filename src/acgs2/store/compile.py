"""Compiles entity declarations to SQL: table, stamp and capture triggers, merge function.

The rules are those of `acgs2.merge`; a property test holds both equal on a real PostgreSQL.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from acgs2.model.entity import Entity, Field, FieldType, Rule, Scope, Strategy
from acgs2.store.templates import fragments, read, render

__all__ = ["SYSTEM_COLUMNS", "columns_of", "compile_dispatch", "compile_entity"]

#: Columns that every entity has, in the order in which they travel; residency is each region's own.
SYSTEM_COLUMNS = ("key", "zone", "sent_to", "hlc", "origin", "vv", "erased", "rights", "meta")

_SQL_TYPES: Mapping[FieldType, str] = {
    FieldType.TEXT: "text",
    FieldType.INTEGER: "bigint",
    FieldType.BOOLEAN: "boolean",
    FieldType.TIMESTAMP: "timestamptz",
    FieldType.JSON: "jsonb",
    FieldType.ENUM: "text",
    FieldType.SET: "text[]",
    FieldType.COUNTER: "bigint",
    FieldType.MAP: "jsonb",
    FieldType.UUID: "uuid",
}
_JOINED = (Rule.UNION, Rule.MAP, Rule.COUNTER)


def columns_of(entity: Entity) -> tuple[str, ...]:
    """Return the columns that travel between regions: system, owner, fields."""
    owner = ("tenant_id",) if entity.scope is Scope.TENANT else ()
    return SYSTEM_COLUMNS + owner + tuple(f.name for f in entity.fields)


def compile_entity(entity: Entity) -> str:
    """Return the SQL that makes one entity: its table is created or extended, its functions replaced."""
    values = {
        "entity": entity.name,
        "description": entity.description,
        "residency": entity.residency,
        "strategy": entity.strategy,
        "scope": entity.scope,
        "columns": _table_columns(entity),
        "known": " ".join(columns_of(entity)),
        "indexes": _indexes(entity),
        "subject": f"'{entity.subject}'" if entity.subject else "NULL",
        **_stamp(entity),
        **_capture(entity),
        **_rights(entity),
        "digested": ", ".join(
            f"c.{name}" for name in columns_of(entity) if name not in ("sent_to", "rights")
        ),
        "content": ", ".join(f"c.{f.name}" for f in entity.fields),
    }
    templates = ("table", "stamp", "capture", "rights", "digest")
    parts = [render(read(f"entity/{name}.sql"), values) for name in templates]
    parts.append(render(read("entity/merge.sql"), _merge(entity)))
    return "\n".join(parts)


def compile_dispatch(entities: Iterable[Entity]) -> str:
    """Return the SQL of the function that merges a batch of any of these entities."""
    branches = "\n        ".join(
        f"WHEN '{e.name}' THEN PERFORM acgs.merge_{e.name}(batch, holders);" for e in entities
    )
    return render(read("entity/dispatch.sql"), {"branches": branches})


def _fragment(name: str, **values: str) -> str:
    return render(fragments("entity/fragments.sql")[name], values)


def _table_columns(entity: Entity) -> str:
    lines = [
        f"ALTER TABLE acgs.{entity.name} ADD COLUMN IF NOT EXISTS {name} {kind};"
        for name, kind in (
            *((("tenant_id", "uuid"),) if entity.scope is Scope.TENANT else ()),
            *((f.name, "acgs.personal" if f.personal else _SQL_TYPES[f.type]) for f in entity.fields),
        )
    ]
    return "\n".join(lines)


def _indexes(entity: Entity) -> str:
    columns = "tenant_id, key" if entity.scope is Scope.TENANT else "zone, key"
    return (
        f"CREATE INDEX IF NOT EXISTS {entity.name}_list ON acgs.{entity.name} ({columns}) WHERE NOT erased;"
    )


def _stamp(entity: Entity) -> dict[str, str]:
    identity = ["key", "zone", *(["tenant_id"] if entity.scope is Scope.TENANT else [])]
    names = [f.name for f in entity.fields]
    if entity.strategy is Strategy.MERGE:
        pieces = [_fragment(f"stamp_{f.rule}", f=f.name) for f in entity.fields]
    elif entity.strategy is Strategy.VERSIONED:
        pieces = [_fragment("stamp_versioned", f=str(entity.version_field), entity=entity.name)]
    elif entity.strategy is Strategy.APPEND_ONLY:
        pieces = [_fragment("stamp_append_only", entity=entity.name)]
    else:
        pieces = []
    required = [f.name for f in entity.fields if f.required]
    required += ["tenant_id"] if entity.scope is Scope.TENANT else []
    return {
        "missing": " OR ".join(f"NEW.{name} IS NULL" for name in required) or "false",
        "required": json.dumps(required),
        "identity_new": ", ".join(f"NEW.{c}" for c in identity),
        "identity_old": ", ".join(f"OLD.{c}" for c in identity),
        "erase": " ".join(f"NEW.{name} := NULL;" for name in names),
        "fields": "\n    ".join("\n".join(pieces).splitlines()),
    }


def _rights(entity: Entity) -> dict[str, str]:
    """Return what differs by record: who its subject is and whether it follows a tenant."""
    of_tenant = entity.scope is Scope.TENANT
    stamped = [_fragment("stamp_epoch")] if of_tenant else []
    stamped += [_fragment("stamp_subject", f=entity.subject)] if entity.subject else []
    return {
        "rights": "\n        ".join("\n".join(stamped).splitlines()) or "NULL;",
        "follow": _fragment("follow_tenant", entity=entity.name) if of_tenant else "",
        "rights_now": _fragment("rights_now", f=entity.subject) if entity.subject else "t.rights",
        "withdrawn": _fragment("withdrawn", f=entity.subject) if entity.subject else "'{}'::jsonb",
    }


def _capture(entity: Entity) -> dict[str, str]:
    after = "after_register" if entity.scope is Scope.REGISTER else None
    after = "after_consent" if entity.name == "consent" else after
    return {
        "journal_columns": ", ".join(f"c.{name}" for name in columns_of(entity)),
        "owner_join": _fragment("owner_join") if entity.scope is Scope.TENANT else "",
        "misplaced": "o.zone <> c.zone" if entity.scope is Scope.TENANT else "false",
        "after": _fragment(after) if after else "",
        **_audit(entity),
    }


def _audit(entity: Entity) -> dict[str, str]:
    """Return how writes of an entity leave leaves in the audit log: all of them, or erasures only."""
    fields = [f for f in entity.fields if f.name in (entity.audited or ())]
    values = ", ".join(
        [f"'{f.name}', {_audited_value(f)}" for f in fields]
        + [f"'{name}_digest', {_fragment('audited_digest', f=name)}" for name in entity.audited_digests]
    )
    every = entity.audited is not None
    leaf = _fragment(
        "audit_leaf",
        entity=entity.name,
        tenant={Scope.TENANT: "c.tenant_id", Scope.ROOT: "c.key"}.get(entity.scope, "NULL"),
        values=f"acgs.canonical(jsonb_build_object({values}))" if values else "'{}'",
        only="true" if every else "c.erased",
    )
    return {"audit": leaf if every else "", "audit_erased": "" if every else leaf}


def _audited_value(field: Field) -> str:
    """Return a field as it is in a leaf: times as whole microseconds, for their text depends on settings."""
    if field.type is FieldType.TIMESTAMP:
        return f"(extract(epoch FROM c.{field.name}) * 1000000)::bigint"
    return f"c.{field.name}"


def _merge(entity: Entity) -> dict[str, str]:
    columns = columns_of(entity)
    common = {
        "entity": entity.name,
        "strategy": str(entity.strategy),
        "columns": ", ".join(columns),
        "incoming_columns": ", ".join(f"i.{name}" for name in columns),
        "replacements": ", ".join(
            f"{name} = i.{name}" for name in columns if name not in ("key", "sent_to", "rights")
        ),
    }
    return common | (_merge_fields(entity) if entity.strategy is Strategy.MERGE else _merge_whole(entity))


def _merge_whole(entity: Entity) -> dict[str, str]:
    names = [f.name for f in entity.fields]
    ranks = {f"{side}_rank": _rank(entity, side) for side in "il"}
    lateral = _fragment(f"wins_{entity.strategy}", f=entity.version_field or "", **ranks) + " AS i_wins"
    compared = [n for n in (entity.identity, entity.precedence) if n] if entity.identity else names

    def json_object(side: str) -> str:
        return "jsonb_build_object(" + ", ".join(f"'{n}', {side}.{n}" for n in names) + ")"

    conflict = _fragment(
        "conflict_whole",
        entity=entity.name,
        lateral=lateral,
        l_object=json_object("l"),
        i_object=json_object("i"),
        l_data=", ".join(f"l.{n}" for n in compared) + ", 0",
        i_data=", ".join(f"i.{n}" for n in compared) + ", 0",
        concurrent="" if entity.strategy is Strategy.APPEND_ONLY else _fragment("concurrent"),
    )
    assigned = [_fragment("assign_whole", f=n) for n in ("hlc", "origin", *names)]
    return {"lateral": lateral, "conflict": conflict, "assignments": ",\n        ".join(assigned)}


def _rank(entity: Entity, side: str) -> str:
    if entity.precedence is None:
        return "0"
    values = ",".join(entity.field(entity.precedence).values)
    return _fragment("rank", values=f"{{{values}}}", side=side, f=entity.precedence)


def _merge_fields(entity: Entity) -> dict[str, str]:
    latest = [f for f in entity.fields if f.rule is Rule.LATEST]
    laterals = ["l.erased OR i.erased AS gone", "(i.hlc, i.origin) > (l.hlc, l.origin) AS i_wins"]
    laterals += [_fragment(f"lateral_{f.rule}", f=f.name) for f in entity.fields if _has_meta(f)]
    lateral = ", ".join(laterals)
    rows = (
        ", ".join(
            f"('{f.name}', w.later_{f.name}, l.meta -> '{f.name}', i.meta -> '{f.name}', "
            f"to_jsonb(l.{f.name}), to_jsonb(i.{f.name}))"
            for f in latest
        )
        or "(NULL::text, NULL::boolean, NULL::jsonb, NULL::jsonb, NULL::jsonb, NULL::jsonb)"
    )
    meta = ["l.meta"]
    for field in entity.fields:
        if field.rule is Rule.LATEST:
            meta.append(_fragment("meta_latest", f=field.name))
        elif field.rule in _JOINED:
            meta.append(_fragment("meta_joined", f=field.name))
    assigned = [_fragment("assign_whole", f=n) for n in ("hlc", "origin")]
    assigned += [_fragment(f"assign_{f.rule}", f=f.name) for f in entity.fields]
    assigned.append(f"meta = CASE WHEN w.gone THEN '{{}}' ELSE {' || '.join(meta)} END")
    conflict = _fragment("conflict_fields", entity=entity.name, lateral=lateral, values=rows)
    return {"lateral": lateral, "conflict": conflict, "assignments": ",\n        ".join(assigned)}


def _has_meta(field: Field) -> bool:
    return field.rule is Rule.LATEST or field.rule in _JOINED
