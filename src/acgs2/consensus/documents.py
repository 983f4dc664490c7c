"""Documents that the voters agree on: each under its own key, and one small pointer to all their versions.

Whoever governs reads the pointer several times a second, by a majority, and a document only when the pointer
has moved. A change is two steps: the document, then the pointer. Whoever dies in between leaves a document
ahead of its pointer, and whoever finds one raises the pointer; both steps may be repeated by anyone.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import rfc8785

from acgs2.consensus.register import Register
from acgs2.errors import RuntimeFault

__all__ = ["KINDS", "POINTER", "Document", "Documents", "digest_of"]

#: What is agreed on, each under a key of this name.
KINDS = ("constitution", "policies", "halts")
POINTER = "governance"
Versions = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Document:
    """One version of an agreed document; versions begin with 1 and rise by 1."""

    kind: str
    version: int
    digest: str
    content: Any


def digest_of(content: Any) -> str:
    """Return the SHA-256 of a document's canonical JSON (RFC 8785), in hex."""
    return hashlib.sha256(rfc8785.dumps(content)).hexdigest()


class Documents:
    """The documents of one register.

    Args:
        register: where they are agreed on.
    """

    def __init__(self, register: Register) -> None:
        self._register = register

    async def read_pointer(self) -> Versions:
        """Return the version of each document that is in force, as a majority has it; empty before the first.

        One round to a majority where nothing is under way. A change whose pointer was raised before the
        reading began is in it. Raises UnavailableError.
        """
        return MappingProxyType((await self._register.read(POINTER)).value or {})

    async def fetch(self, kind: str) -> Document | None:
        """Return a document as it is agreed now, None if there is none yet.

        It may be newer than the pointer that was read before; who goes by it raises the pointer first.

        Raises:
            UnavailableError: no majority answers.
            RuntimeFault: its content is not what its digest says (`document-damaged`).
        """
        return _document(kind, (await self._register.read(kind)).value)

    async def change(self, kind: str, decide: Callable[[Document | None], Any]) -> Document:
        """Change a document, and return it once it is in force.

        Args:
            kind: which.
            decide: from the document as it is, None where there is none, to its new content; the same
                content leaves it as it is. May be called more than once, must not have effects, and may
                raise to refuse: then nothing is changed.

        Raises:
            UnavailableError: no majority answers, or others kept changing it; the change may yet come about,
                and `decide` must know its own effect when it is asked again.
        """

        agreed = await self._agree(kind, decide)
        await self.raise_to({kind: agreed.version})
        return agreed

    async def found(self, contents: Mapping[str, Any]) -> Versions:
        """Agree on the first version of every document that has none, and return what is in force.

        Every region brings the same; should one differ, the first stands.
        """
        first = await asyncio.gather(*(self._agree(k, _unless_there(c)) for k, c in contents.items()))
        return await self.raise_to({document.kind: document.version for document in first})

    async def mend(self) -> Versions:
        """Raise the pointer to where documents are that were changed by one who did not get to it."""
        pointer = await self.read_pointer()
        there = {kind: await self.fetch(kind) for kind in KINDS}
        ahead = {k: d.version for k, d in there.items() if d is not None and d.version > pointer.get(k, 0)}
        return await self.raise_to(ahead) if ahead else pointer

    async def _agree(self, kind: str, decide: Callable[[Document | None], Any]) -> Document:
        """Change a document without raising the pointer; see `change`."""

        def next_value(value: Any) -> Any:
            now = _document(kind, value)
            content = decide(now)
            if now is not None and digest_of(content) == now.digest:
                return value
            version = now.version + 1 if now is not None else 1
            return {"version": version, "digest": digest_of(content), "document": content}

        agreed = _document(kind, (await self._register.change(kind, next_value)).value)
        assert agreed is not None
        return agreed

    async def raise_to(self, versions: Versions) -> Versions:
        """Raise the pointer to versions that are agreed, and return it; it never goes back."""

        def higher(value: Any) -> Any:
            known = value or {}
            return {**known, **{kind: max(n, known.get(kind, 0)) for kind, n in versions.items()}}

        return (await self._register.change(POINTER, higher)).value


def _unless_there(content: Any) -> Callable[[Document | None], Any]:
    return lambda now: content if now is None else now.content


def _document(kind: str, value: Any) -> Document | None:
    if value is None:
        return None
    found = Document(kind, value["version"], value["digest"], value["document"])
    if digest_of(found.content) != found.digest:
        raise RuntimeFault(
            "document-damaged",
            f"Version {found.version} of {kind} is not what its digest says.",
            hint="Compare the register's votes in all regions; nothing is governed by a damaged document.",
            kind=kind,
            version=found.version,
        )
    return found
