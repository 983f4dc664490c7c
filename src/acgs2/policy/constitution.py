"""The constitution: what governs, who may do what, and the digest that everyone must name alike.

Its digest is SHA-256 over the RFC 8785 form of the document as it is written: what YAML reads, nothing filled
in, nothing left out. Comments, order of keys, and ways to write one number make no difference to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic import model_validator as check

from acgs2.errors import ConstitutionError
from acgs2.policy.documents import Lines, explained, read
from acgs2.policy.features import Impact, Section, Thousandths

__all__ = [
    "ACTS",
    "Amender",
    "Constitution",
    "Group",
    "Role",
    "builtin",
    "founded",
    "load",
    "of",
    "parse",
]

Act = Literal[
    "send", "claim", "read", "propose", "approve",
    "halt", "resume", "amend", "set_policies", "administer", "audit",
]  # fmt: skip
ACTS: tuple[str, ...] = Act.__args__
RoleName = Literal["proposer", "approver", "operator", "auditor", "agent", "service"]
Name = Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9-]{0,62}$")]
#: What an approver or amender is called: the name of its principal, the subject of its tokens.
Person = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+:/-]{0,199}$")]
Text = Annotated[str, Field(strict=True, min_length=1, max_length=4000)]
Count = Annotated[int, Field(strict=True, ge=1, le=1000)]
Key = Annotated[str, Field(strict=True, pattern=r"^(local|ed25519:[A-Za-z0-9_-]{43})$")]

#: The key of an amender whose key the cluster gives when it is founded.
LOCAL = "local"


class Role(Section):
    """What a role may do, and which roles nobody may have beside it in the same matter."""

    may: tuple[Act, ...]
    excludes: tuple[RoleName, ...] = ()


class Thresholds(Section):
    """From where on something else happens."""

    impact: Thousandths


class Deliberation(Section):
    """How long a message is held, and for whom if no policy says."""

    deadline_s: Annotated[int, Field(strict=True, ge=1, le=7 * 86400)]
    group: Name


class Group(Section):
    """People of whom so many must approve."""

    approvals: Count
    members: tuple[Person, ...] = Field(min_length=1, max_length=1000)

    @check(mode="after")
    def _reachable(self) -> Self:
        if len(set(self.members)) < len(self.members):
            raise ValueError("a member is named twice")
        if self.approvals > len(self.members):
            raise ValueError(f"{self.approvals} approvals of {len(self.members)} members cannot be had")
        return self


class Amender(Section):
    """Someone who may sign amendments, and the Ed25519 key that they sign with."""

    name: Person
    key: Key


class AmendmentRule(Section):
    """How many of whom must sign."""

    approvals: Count
    amenders: tuple[Amender, ...] = Field(min_length=1, max_length=100)

    @check(mode="after")
    def _reachable(self) -> Self:
        names = {each.name for each in self.amenders}
        keys = [each.key for each in self.amenders if each.key != LOCAL]
        if len(names) < len(self.amenders):
            raise ValueError("an amender is named twice")
        if len(set(keys)) < len(keys):
            raise ValueError("two amenders have one key")
        if self.approvals > len(self.amenders):
            raise ValueError(f"{self.approvals} signatures of {len(self.amenders)} amenders cannot be had")
        return self


class Constitution(Section):
    """One version of the constitution, as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    id: Annotated[str, Field(strict=True, pattern=r"^[0-9a-f]{16}$")]
    version: Annotated[int, Field(strict=True, ge=1, le=2**31)]
    preamble: Text
    rules: Mapping[Name, Text] = Field(min_length=1, max_length=200)
    roles: Mapping[RoleName, Role]
    thresholds: Thresholds
    deliberation: Deliberation
    groups: Mapping[Name, Group]
    amendment: AmendmentRule
    impact: Impact

    _canonical: bytes = PrivateAttr(default=b"")

    @check(mode="after")
    def _consistent(self) -> Self:
        missing = [name for name in RoleName.__args__ if name not in self.roles]
        if missing:
            raise ValueError(f"roles say nothing about {', '.join(missing)}")
        if self.deliberation.group not in self.groups:
            raise ValueError(f"deliberation.group: there is no group {self.deliberation.group}")
        return self

    @property
    def canonical(self) -> bytes:
        """Return the document in the form that is hashed and sent."""
        return self._canonical

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of `canonical`, in hexadecimal."""
        return hashlib.sha256(self._canonical).hexdigest()

    @property
    def founded(self) -> bool:
        """Return whether every amender has a key of its own."""
        return all(amender.key != LOCAL for amender in self.amendment.amenders)

    def permits(self, role: str, act: str) -> bool:
        """Return whether a role may do something."""
        found = self.roles.get(role)  # type: ignore[call-overload]
        return found is not None and act in found.may

    def exclusions(self, roles: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """Return the pairs among some roles that nobody may have together in one matter."""
        held = sorted(set(roles))
        return tuple(
            (a, b)
            for number, a in enumerate(held)
            for b in held[number + 1 :]
            if self._excludes(a, b) or self._excludes(b, a)
        )

    def _excludes(self, a: str, b: str) -> bool:
        found = self.roles.get(a)  # type: ignore[call-overload]
        return found is not None and b in found.excludes


def builtin() -> Path:
    """Return the path of the constitution that comes with the project."""
    packaged = Path(str(resources.files("acgs2"))) / "topologies" / "constitution.yaml"
    checkout = Path(__file__).resolve().parents[3] / "topologies" / "constitution.yaml"
    return packaged if packaged.is_file() else checkout


def load(path: str | Path | None = None) -> Constitution:
    """Read a constitution, by default the one that comes with the project.

    Raises:
        ConstitutionError: it cannot be read or is no constitution; `context` has file, line and path.
    """
    file = Path(path) if path is not None else builtin()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConstitutionError(
            "constitution-unreadable",
            f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.",
            hint="A topology names its constitution by a path beside it: `constitution: {path: ...}`.",
            file=str(file),
        ) from error
    return parse(text, str(file))


def parse(text: str, source: str = "constitution.yaml") -> Constitution:
    """Read a constitution from text.

    Raises:
        ConstitutionError: it is none.
    """
    raw, lines = read(text, source, ConstitutionError, "constitution-invalid")
    return of(raw, source, lines)


def of(document: Any, source: str = "constitution", lines: Lines | None = None) -> Constitution:
    """Return the constitution that a document of plain values is.

    Raises:
        ConstitutionError: it is none.
    """
    try:
        made = Constitution.model_validate(document)
        made._canonical = rfc8785.dumps(document)
        return made
    except ValidationError as error:
        raise explained(
            error, source, lines or {}, _known(), ConstitutionError, "constitution-invalid"
        ) from error
    except (rfc8785.CanonicalizationError, UnicodeError) as error:
        raise ConstitutionError(
            "constitution-invalid",
            f"{source}: it has no canonical form: {error}.",
            hint="Numbers below 2^53 and well-formed text only.",
            file=source,
        ) from error


def founded(constitution: Constitution, keys: Mapping[str, str]) -> Constitution:
    """Return the constitution with the keys of its amenders put in: what a new cluster is founded on.

    Args:
        constitution: the document; an amender's `key: local` is to be filled in, other keys stay.
        keys: amender to `ed25519:...`.

    Raises:
        ConstitutionError: an amender has no key there (`amender-without-key`), or what is made is wrong.
    """
    document = json.loads(constitution.canonical)
    for amender in document["amendment"]["amenders"]:
        if amender["key"] != LOCAL:
            continue
        if keys.get(amender["name"], LOCAL) == LOCAL:
            raise ConstitutionError(
                "amender-without-key",
                f"The amender {amender['name']} has no key.",
                hint="Write its public key into the document, or give it when the cluster is founded.",
                amender=amender["name"],
            )
        amender["key"] = keys[amender["name"]]
    return of(document)


def _known() -> set[str]:
    def names(model: type[BaseModel]) -> set[str]:
        return {*model.model_fields, *(name for below in model.__subclasses__() for name in names(below))}

    return names(Section)
