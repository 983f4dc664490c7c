"""The policies of the platform or of one tenant: checked, parsed once, in force as a whole."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import cedarpy
import msgspec
import rfc8785
from cedarpy import pst
from pydantic import TypeAdapter, ValidationError

from acgs2.errors import PolicyError
from acgs2.policy.constitution import Group, Name
from acgs2.policy.documents import explained
from acgs2.policy.scan import Piece, refused, scan
from acgs2.policy.verdict import Hold
from acgs2.policy.walk import keys_asked, problem_of

__all__ = ["PLATFORM", "Bundle", "Policy", "default_platform", "groups_of", "schema", "schema_text"]

#: The owner of the policies that hold for everybody.
PLATFORM = "platform"
_ANNOTATIONS = ("id", "deliberate", "reason")
_ID = re.compile(r"[a-z][a-z0-9-]{0,99}")
_GROUPS = TypeAdapter(Mapping[Name, Group])


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One policy as it is written; `hold` is set where it holds a message instead of refusing it."""

    owner: str
    id: str
    effect: str
    line: int
    text: str
    reason: str = ""
    hold: Hold | None = None

    @property
    def name(self) -> str:
        """Return what it is called in a verdict."""
        return self.id if self.owner == PLATFORM else f"{self.owner}/{self.id}"

    @property
    def sentence(self) -> str:
        """Return what it says when it decides."""
        does = f"holds it for {self.hold.group}" if self.hold else f"{self.effect}s it"
        return self.reason or f"The policy {self.name} {does}."


class Bundle:
    """The policies of one owner, in force as a whole. Two of the same digest and owner are equal."""

    def __init__(
        self,
        owner: str,
        version: int,
        digest: str,
        policies: Mapping[str, Policy],
        parsed: Mapping[str, pst.Template],
        own_holds: Mapping[str, Hold] | None = None,
        broken: str = "",
    ) -> None:
        """Take what `load` has checked; `policies` and `parsed` are by Cedar's own names."""
        self.owner, self.version, self.digest, self.broken = owner, version, digest, broken
        self.by_name = policies
        self.own_holds: Mapping[str, Hold] = own_holds or {}
        self.parsed = parsed
        self.metadata_keys = frozenset(key for each in parsed.values() for key in keys_asked(each))

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Return the policies in the order in which they are written."""
        return tuple(self.by_name.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bundle) and (self.owner, self.version, self.digest, self.broken) == (
            other.owner,
            other.version,
            other.digest,
            other.broken,
        )

    def __hash__(self) -> int:
        return hash((self.owner, self.digest))

    @classmethod
    def load(
        cls,
        text: str,
        *,
        owner: str = PLATFORM,
        version: int = 1,
        groups: Mapping[str, Group] | None = None,
        shared: Mapping[str, Group] | None = None,
        source: str = "",
    ) -> Bundle:
        """Return the policies of a text, if all of them can be taken.

        Args:
            text: Cedar.
            owner: `platform`, or the tenant's id.
            version: which version of the owner's policies it is.
            groups: the owner's own groups of approvers, for `@deliberate`; the platform has none.
            shared: the constitution's groups, which everybody may name; an own one of that name comes first.
            source: what errors call the text.

        Raises:
            PolicyError: it is not Cedar, does not fit the schema, or is not as docs/policies.md says; the
                message names the line.
        """
        source = source or f"policies of {owner}"
        pieces = scan(text, source)
        parsed = _parsed(text, pieces, source)
        holds = _holds(owner, groups or {}, shared or {})
        policies = {
            name: _policy(owner, template, piece, holds, source)
            for (name, template), piece in zip(parsed.items(), pieces, strict=True)
        }
        _distinct(policies, source)
        _check_schema(text, policies, source)
        own = {hold.group: hold for hold in _holds(owner, groups or {}, {}).values()}
        return cls(owner, version, _digest(text, groups or {}), policies, parsed, own)

    @classmethod
    def unusable(cls, owner: str, version: int, why: str) -> Bundle:
        """Return the bundle of an owner whose policies cannot be used: whatever it is asked, it denies."""
        return cls(owner, version, hashlib.sha256(why.encode()).hexdigest(), {}, {}, broken=why)


@cache
def schema_text() -> str:
    """Return the schema as it is written."""
    return (resources.files("acgs2.policy") / "schema.cedarschema").read_text(encoding="utf-8")


@cache
def schema() -> cedarpy.Schema:
    """Return the schema that policies are checked against."""
    return cedarpy.Schema.from_str(schema_text())


def default_platform() -> str:
    """Return the platform policies that come with the project."""
    return (resources.files("acgs2.policy") / "platform.cedar").read_text(encoding="utf-8")


def groups_of(document: Any, source: str = "groups") -> Mapping[str, Group]:
    """Return a tenant's groups of approvers from plain values: name to `{approvals, members}`.

    Raises:
        PolicyError: they are none.
    """
    try:
        return _GROUPS.validate_python(document)
    except ValidationError as error:
        raise explained(error, source, {}, Group.model_fields, PolicyError, "groups-invalid") from error


def _digest(text: str, groups: Mapping[str, Group]) -> str:
    plain = {name: group.model_dump(mode="json") for name, group in groups.items()}
    return hashlib.sha256(rfc8785.dumps({"policies": text, "groups": plain})).hexdigest()


def _parsed(text: str, pieces: tuple[Piece, ...], source: str) -> Mapping[str, pst.Template]:
    """Return what Cedar reads, by Cedar's names, in the order of the text."""
    try:
        nodes = cedarpy.PolicySet.from_str(text).to_pst()
    except ValueError as error:
        raise _unreadable(pieces, source, str(error)) from error
    if nodes.templates:
        names = sorted([*nodes.static_policies, *nodes.templates], key=_number)
        line = pieces[names.index(next(iter(nodes.templates)))].line
        raise refused(source, line, "a template", "Write a policy without ?principal and ?resource.")
    return {name: nodes.static_policies[name] for name in sorted(nodes.static_policies, key=_number)}


def _number(name: str) -> int:
    return int(name.removeprefix("policy"))


def _unreadable(pieces: tuple[Piece, ...], source: str, why: str) -> PolicyError:
    line = pieces[-1].line if pieces else 1
    for piece in pieces:
        try:
            cedarpy.PolicySet.from_str(piece.text).to_pst()
        except ValueError as error:
            line, why = piece.line, str(error)
            break
    return refused(
        source, line, f"not Cedar: {why.rstrip('.')}", "See https://docs.cedarpolicy.com for the syntax."
    )


def _policy(
    owner: str, template: pst.Template, piece: Piece, holds: Mapping[str, Hold], source: str
) -> Policy:
    notes, line = template.annotations, piece.line
    for name in notes:
        if name not in _ANNOTATIONS:
            near = difflib.get_close_matches(name, _ANNOTATIONS, n=1)
            hint = f"Did you mean @{near[0]}?" if near else f"Known: @{', @'.join(_ANNOTATIONS)}."
            raise refused(source, line, f"unknown annotation @{name}", hint)
    id = notes.get("id", "")
    if not _ID.fullmatch(id):
        what = f"@id({id!r}) is no id" if id else "a policy without @id"
        raise refused(source, line, what, 'Name it: @id("lower-case-words").')
    group = notes.get("deliberate")
    if group is not None and template.effect != "forbid":
        raise refused(source, line, f"{id}: @deliberate on a permit", "Only a forbid holds: write `forbid`.")
    if group is not None and group not in holds:
        near = difflib.get_close_matches(group, holds, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(holds)) or 'none'}."
        raise refused(source, line, f"{id}: there is no group {group!r} of approvers", hint)
    problem = problem_of(template)
    if problem:
        raise refused(source, line, f"{id}: {problem[0]}", problem[1])
    return Policy(
        owner=owner,
        id=id,
        effect=template.effect,
        line=line,
        text=piece.text,
        reason=notes.get("reason", ""),
        hold=holds[group] if group is not None else None,
    )


def _holds(owner: str, groups: Mapping[str, Group], shared: Mapping[str, Group]) -> Mapping[str, Hold]:
    """Return what each name of a group means to the owner: members of a tenant's group are the tenant's."""
    ours = {
        name: Hold(f"{owner}/{name}", group.approvals, tuple(f"{owner}\n{each}" for each in group.members))
        for name, group in groups.items()
    }
    return {name: Hold(name, group.approvals, group.members) for name, group in shared.items()} | ours


def _distinct(policies: Mapping[str, Policy], source: str) -> None:
    seen: dict[str, int] = {}
    for policy in policies.values():
        if policy.id in seen:
            raise refused(
                source,
                policy.line,
                f"{policy.id} is there twice, first in line {seen[policy.id]}",
                "Give each policy an id of its own.",
            )
        seen[policy.id] = policy.line


def _check_schema(text: str, policies: Mapping[str, Policy], source: str) -> None:
    found = cedarpy.validate_policies(text, schema())
    for error in found.errors:
        policy = policies.get(error.policy_id)
        line, id = (policy.line, policy.id) if policy else (1, "")
        said = error.error.removeprefix(f"for policy `{error.policy_id}`, ").rstrip(".")
        raise refused(
            source, line, f"{id}: {said}", "`acgs2 policy schema` shows what policies may speak of."
        )
    if not found.validation_passed:
        raise refused(source, 1, "it does not fit the schema", "`acgs2 policy schema` shows the schema.")
