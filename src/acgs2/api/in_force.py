"""What governs, as one value: loaded from agreed documents and tenants' policies, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import psycopg
import rfc8785

from acgs2 import policy
from acgs2.consensus import Document, digest_of
from acgs2.errors import ConstitutionError, PolicyError
from acgs2.policy import Bundle, Constitution, Halts, Judge, Signature
from acgs2.policy.constitution import builtin
from acgs2.store.templates import fragments
from acgs2.topology import Topology

__all__ = [
    "Governed",
    "TenantPolicies",
    "audit_body",
    "constitution_of",
    "first_documents",
    "load",
    "platform_of",
    "read_tenants",
]

_QUERIES = fragments("governance.sql")
#: So many halts are listed in a leaf at most; its digest stands for all of them.
_LISTED = 200


class TenantPolicies(NamedTuple):
    """A tenant's policies as its record has them, and which change of the record that is."""

    policies: str
    groups: Any
    version: int
    mark: tuple[int, str]


Tenants = Mapping[str, TenantPolicies]


@dataclass(frozen=True, slots=True)
class Governed:
    """What is in force in this region from one moment on, until something else is."""

    constitution: Constitution
    judge: Judge
    halts: Halts
    documents: Mapping[str, Document]
    tenants: Tenants

    @property
    def versions(self) -> Mapping[str, int]:
        """Return the version of each agreed document."""
        return {kind: document.version for kind, document in self.documents.items()}


def first_documents(
    topology: Topology, file: Path, keys: Mapping[str, str]
) -> Callable[[], Mapping[str, Any]]:
    """Return what gives the documents that a new cluster is founded on: the same in every region.

    Args:
        topology: names the constitution.
        file: where it lies; if there is nothing, the one that comes with the project is meant.
        keys: amenders' public keys, for those that the file leaves to be filled in.
    """

    @cache
    def first() -> Mapping[str, Any]:
        source = file if file.is_file() else builtin()
        constitution = policy.founded(policy.load(source), keys)
        if constitution.id != topology.constitution.id:
            raise _another(constitution.id, topology.constitution.id)
        return MappingProxyType(
            {
                "constitution": {"document": json.loads(constitution.canonical), "signatures": []},
                "policies": {"text": policy.default_platform()},
                "halts": Halts().document(),
            }
        )

    return first


def constitution_of(document: Document, wanted: str) -> Constitution:
    """Return the constitution that an agreed document holds.

    Raises:
        ConstitutionError: it is none, or another one than is wanted.
    """
    source = f"version {document.version} of the constitution"
    if not isinstance(document.content, dict) or "document" not in document.content:
        raise ConstitutionError("constitution-invalid", f"{source}: it holds no constitution.")
    made = policy.of(document.content["document"], source)
    if made.id != wanted:
        raise _another(made.id, wanted)
    return made


def followed(document: Document, wanted: str, before: Governed | None) -> Constitution:
    """Return the same, if it follows what is in force here by as many signatures as that asks for.

    A region that was away while it was amended more than once takes a majority's word for those in between.

    Raises:
        AcgsError: it is no amendment of what was in force.
    """
    made = constitution_of(document, wanted)
    if before is not None and document.version == before.documents["constitution"].version + 1:
        try:
            given = msgspec.convert(document.content.get("signatures"), list[Signature])
        except msgspec.ValidationError as error:
            raise ConstitutionError("constitution-invalid", "It holds no signatures.") from error
        policy.amendment.check(before.constitution, made, given)
    return made


def load(
    documents: Mapping[str, Document], wanted: str, tenants: Tenants, before: Governed | None
) -> Governed:
    """Return what governs by these documents; what has not changed is taken over from before.

    A tenant whose policies cannot be used has none that permit anything: only its own agents are concerned.

    Args:
        documents: the agreed ones, by kind.
        wanted: the id of the constitution that this region's topology names.
        tenants: tenants' own policies, by id.
        before: what governed until now.

    Raises:
        AcgsError: see `followed`.
        PolicyError: the platform's policies cannot be used.
        InputError: the document of halts is none.
    """
    same = {kind for kind, d in documents.items() if before and before.documents.get(kind) == d}
    if before and "constitution" in same:
        constitution = before.constitution
    else:
        constitution = followed(documents["constitution"], wanted, before)
    if before and {"constitution", "policies"} <= same:
        changed = {t: p for t, p in tenants.items() if before.tenants.get(t) != p}
        gone = {tenant: None for tenant in before.tenants if tenant not in tenants}
        judge = before.judge
        if changed or gone:
            judge = judge.knowing({**_bundles(changed, constitution), **gone})
    else:
        judge = Judge(
            constitution, platform_of(documents["policies"], constitution), _bundles(tenants, constitution)
        )
    halts = before.halts if before and "halts" in same else Halts.parse(documents["halts"].content)
    return Governed(constitution, judge, halts, MappingProxyType(dict(documents)), tenants)


def platform_of(document: Document, constitution: Constitution) -> Bundle:
    """Return the platform's policies that an agreed document holds; raises PolicyError."""
    text = document.content.get("text") if isinstance(document.content, dict) else None
    if not isinstance(text, str):
        raise PolicyError("policy-invalid", "The document of the platform's policies holds no text.")
    return Bundle.load(text, version=document.version, shared=constitution.groups, source="platform policies")


def _bundles(tenants: Tenants, constitution: Constitution) -> Mapping[str, Bundle]:
    found: dict[str, Bundle] = {}
    for tenant, its in tenants.items():
        try:
            found[tenant] = Bundle.load(
                its.policies,
                owner=tenant,
                version=its.version,
                groups=policy.groups_of(its.groups or {}),
                shared=constitution.groups,
            )
        except PolicyError as error:
            found[tenant] = Bundle.unusable(tenant, its.version, error.message)
    return found


async def read_tenants(conn: psycopg.AsyncConnection[Any], known: Tenants) -> Tenants:
    """Return tenants' policies as this region holds them; what is known already, if none has changed."""
    seen = await (await conn.execute(_QUERIES["tenant_policies_seen"].encode())).fetchall()
    if {tenant: (hlc, origin) for tenant, hlc, origin in seen} == {t: p.mark for t, p in known.items()}:
        return known
    rows = await (await conn.execute(_QUERIES["tenant_policies"].encode())).fetchall()
    return MappingProxyType(
        {
            tenant: TenantPolicies(policies, groups, version, (hlc, origin))
            for tenant, policies, groups, version, hlc, origin in rows
        }
    )


def audit_body(document: Document, before: Document | None, region: str) -> str:
    """Return what the audit log says of a document that comes into force: canonical, without its words."""
    said: dict[str, Any] = {"version": document.version, "digest": document.digest, "region": region}
    if document.kind == "constitution":
        said["constitution_digest"] = digest_of(document.content["document"])
    if document.kind == "halts" and before is not None:
        old, new = ({h.id: h for h in Halts.parse(d.content).entries} for d in (before, document))
        begun = [{"id": i, "scope": h.scope, "target": h.target} for i, h in new.items() if i not in old]
        said |= {"halted": begun[:_LISTED], "resumed": [i for i in old if i not in new][:_LISTED]}
    return rfc8785.dumps(said).decode()


def _another(found: str, wanted: str) -> ConstitutionError:
    return ConstitutionError(
        "constitution-mismatch",
        f"The constitution is {found}, and this region's topology names {wanted}.",
        hint="Start the region with the topology of its cluster.",
    )
