"""Who may not act now: one document of the register. One operator halts; it takes two to go on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal
from uuid import UUID

import msgspec
import rfc8785

from acgs2.errors import ConflictError, InputError, NotFoundError, RefusedError

__all__ = ["RESUME_WITHIN_US", "Halt", "Halts", "Resume"]

Scope = Literal["agent", "tenant", "all"]
#: A request to go on counts for so long; a second operator's that comes later is a first one again.
RESUME_WITHIN_US = 3_600_000_000


class Resume(msgspec.Struct, frozen=True):
    """An operator's wish that a halt ends."""

    by: str
    at_us: int


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """A halt; `target` is an agent's or tenant's id, and empty where everything is halted."""

    id: str
    scope: Scope
    target: str = ""
    reason: str
    by: str
    at_us: int
    resumes: tuple[Resume, ...] = ()


class Halts(msgspec.Struct, frozen=True, dict=True):
    """Every halt in force. A change makes a new document with the next version."""

    version: int = 0
    entries: tuple[Halt, ...] = ()

    @cached_property
    def _index(self) -> Mapping[tuple[str, str], Halt]:
        found: dict[tuple[str, str], Halt] = {}
        for entry in self.entries:
            found.setdefault((entry.scope, entry.target), entry)
        return found

    def of(self, tenant: Any = None, agent: Any = None) -> Halt | None:
        """Return what halts an agent, a tenant, or everybody; the widest first; None where nothing does."""
        if not self.entries:
            return None
        index = self._index
        return (
            index.get(("all", "")) or index.get(("tenant", str(tenant))) or index.get(("agent", str(agent)))
        )

    def halt(self, id: str, scope: Scope, target: str, reason: str, by: str, at_us: int) -> Halts:
        """Return the document with a halt added; the same halt under the same id changes nothing.

        Raises:
            InputError: the target is no id, or no reason is given.
            ConflictError: the id is in use for another halt (`halt-id-reused`).
        """
        made = Halt(
            id=id, scope=scope, target=_target(scope, target), reason=_reason(reason), by=by, at_us=at_us
        )
        for entry in self.entries:
            if entry.id == id:
                if (entry.scope, entry.target) != (made.scope, made.target):
                    raise ConflictError(
                        "halt-id-reused", f"{id} is another halt.", hint="Use a new id.", id=id
                    )
                return self
        return Halts(self.version + 1, (*self.entries, made))

    def resume(self, id: str, by: str, at_us: int) -> Halts:
        """Return the document after an operator wished to end a halt: marked by the first, ended by a second.

        Raises:
            NotFoundError: no such halt is in force (`halt-unknown`).
            RefusedError: the operator has asked already, and it takes another (`second-operator-needed`).
        """
        entry = next((each for each in self.entries if each.id == id), None)
        if entry is None:
            raise NotFoundError(
                "halt-unknown", f"No halt {id} is in force.", hint="`acgs2 halts` lists them."
            )
        standing = tuple(each for each in entry.resumes if at_us - each.at_us < RESUME_WITHIN_US)
        if any(each.by == by for each in standing):
            raise RefusedError(
                "second-operator-needed",
                f"{by} has asked already to end it; it takes another operator.",
                hint="Ask a second operator to resume it within an hour of the first.",
                id=id,
            )
        others = tuple(each for each in self.entries if each.id != id)
        if standing:
            return Halts(self.version + 1, others)
        marked = msgspec.structs.replace(entry, resumes=(*standing, Resume(by, at_us)))
        kept = tuple(marked if each.id == id else each for each in self.entries)
        return Halts(self.version + 1, kept)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the document's RFC 8785 form."""
        return hashlib.sha256(rfc8785.dumps(self.document())).hexdigest()

    def document(self) -> dict[str, Any]:
        """Return the document as plain values."""
        return msgspec.to_builtins(self)

    @classmethod
    def parse(cls, document: Any) -> Halts:
        """Return the halts that a document of plain values holds.

        Raises:
            InputError: it is none (`halts-invalid`).
        """
        try:
            return msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            raise InputError("halts-invalid", f"That is no document of halts: {error}.") from error


def _target(scope: str, target: str) -> str:
    if scope == "all":
        if target:
            raise InputError("halt-invalid", "A halt of everything has no target.", hint="Leave it out.")
        return ""
    if scope not in ("agent", "tenant"):
        raise InputError("halt-invalid", f"{scope} is no scope.", hint="agent, tenant or all.")
    try:
        return str(UUID(target))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            "halt-invalid", f"{target} is no id of an {scope}.", hint="Give its UUID."
        ) from error


def _reason(reason: str) -> str:
    said = reason.strip()
    if not said or len(said) > 2000:
        raise InputError("halt-invalid", "A halt has a reason of 1 to 2000 characters.", hint="Say why.")
    return said
