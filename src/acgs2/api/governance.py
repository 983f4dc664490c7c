"""What governs this region now, and for how long it may act by it without hearing from a majority again.

A region governs (takes messages in, takes approvals, dispatches) only by documents that a majority has said
are in force, and only within one lease of the start of the last look at which it said so. So whatever a
majority has agreed binds a region that is cut off, too, within one lease: by then it does nothing any more.
Nor does it govern without evidence: while its audit log is not what was signed, it does not either. Nor while
it takes no part in traffic, or does not know whether it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

from acgs2.api.in_force import Governed, Tenants, audit_body, constitution_of, load, read_tenants
from acgs2.api.standing import Participation
from acgs2.audit.status import LogStatus
from acgs2.consensus import KINDS, Document, Documents, boottime_s
from acgs2.errors import AcgsError, RuntimeFault, UnavailableError
from acgs2.logs.write import get_logger
from acgs2.policy import Constitution
from acgs2.store.region import register_key
from acgs2.store.templates import fragments

if TYPE_CHECKING:
    from acgs2.api.region import RegionServer

__all__ = ["CHANNEL", "Governance", "Governed", "run_governance"]

_LOG = get_logger("acgs2.governance")
_QUERIES = fragments("governance.sql")
CHANNEL = "acgs_governance"
#: How often a region looks whether something else is in force.
_LOOK_S = 0.4
#: How long after something that it cannot load a region tries again, if nothing else is in force by then.
_AGAIN_S = 5.0
_RETRY_S = 0.2
Connection = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why this region cannot go by what is in force, what that was, and when it tries again."""

    error: AcgsError
    versions: Mapping[str, int]
    again_s: float


class Governance:
    """One region's part in being governed.

    Args:
        documents: what is agreed on.
        region: this one.
        constitution: the id of the constitution that this region's topology names.
        lease_s: how long a region may act on what it last heard; the same in every region.
        first: gives what a new cluster is founded on, by kind; raises AcgsError where this region cannot say.
        audit: what is known of this region's audit log.
        part: whether this region takes part.
        patience_s: for how long this region leaves it to others to found a new cluster.
        clock_s: CLOCK_BOOTTIME, or what a test gives.
    """

    def __init__(
        self,
        documents: Documents,
        region: str,
        constitution: str,
        lease_s: float,
        first: Callable[[], Mapping[str, Any]],
        audit: LogStatus,
        part: Participation,
        *,
        patience_s: float = 0.0,
        clock_s: Callable[[], float] = boottime_s,
    ) -> None:
        self.documents = documents
        self.lease_s = lease_s
        self._region = region
        self._constitution = constitution
        self._first = first
        self._audit = audit
        self._part = part
        self._patience_s = patience_s
        self._clock_s = clock_s
        self._vacant_s: float | None = None
        self._governed: Governed | None = None
        self._until_s = float("-inf")
        self._refusal: _Refusal | None = None
        self._heard: Mapping[str, int] = {}
        self._differs: bool | None = None
        self._why = "no majority of voters was heard yet"

    def require(self) -> Governed:
        """Return what is in force; ask before an act, and `still` before its effect is told.

        Raises:
            UnavailableError: this region must not govern now: it cannot load what is in force
                (`constitution-mismatch`), does not know yet what that is (`constitution-unknown`), takes no
                part (`fenced`), its serving lease has run out (`not-governing`), or its audit log is found
                damaged (`audit-damaged`).
        """
        if self._audit.damage:
            raise UnavailableError(
                "audit-damaged",
                f"{self._region} does not govern without evidence. {self._audit.damage}",
                hint="Ask another region; nothing was stored. Operators: see docs/audit.md.",
            )
        if (fenced := self._part.fenced()) is not None:
            raise fenced
        if self._refusal is not None:
            raise UnavailableError(
                "constitution-mismatch",
                f"{self._region} cannot go by what is in force: {self._refusal.error.message}",
                hint=f"Ask another region. {self._refusal.error.hint}".strip(),
                reason=self._refusal.error.reference,
            )
        if self._governed is None:
            raise UnavailableError(
                "constitution-unknown",
                f"{self._region} does not know yet what is in force: {self._why}.",
                hint="Try again in a moment, or ask another region; nothing was stored.",
            )
        if self.lease_left_s() <= 0:
            raise UnavailableError(
                "not-governing",
                f"{self._region} has not heard from a majority for {self.lease_s:g} s, and does not govern.",
                hint="Ask another region, or wait until this one is connected again; nothing was stored.",
            )
        return self._governed

    async def authority(self) -> Constitution:
        """Return the constitution by which it is decided who may change what is in force.

        Most often it is known; else a majority is asked, for what cannot be loaded must be mendable.

        Raises:
            UnavailableError: there is no majority, or none yet that was founded.
            ConstitutionError: it is not one that this region knows.
        """
        try:
            return self.require().constitution
        except UnavailableError:
            found = await self.documents.fetch("constitution")
            if found is None:
                raise
            return constitution_of(found, self._constitution)

    def still(self, governed: Governed) -> bool:
        """Return whether this region may still act, and by the same constitution, policies and halts."""
        return self._refusal is None and self._governed is governed and self.lease_left_s() > 0

    def lease_left_s(self) -> float:
        """Return for how long this region may act without hearing from a majority again; 0 if not at all."""
        if self._refusal is not None or self._audit.damage:
            return 0.0
        return min(max(0.0, self._until_s - self._clock_s()), self._part.left_s())

    @property
    def mismatch(self) -> str | None:
        """Return why this region cannot go by what is in force, None if it can or does not know that yet."""
        return self._refusal.error.message if self._refusal is not None else None

    @property
    def known(self) -> Governed | None:
        """Return what was in force when this region last knew; to be shown, never to be acted by."""
        return self._governed

    def status(self) -> dict[str, Any]:
        """Return what health says of it."""
        known = self._governed
        return {
            "serving": self.lease_left_s() > 0,
            "lease_left_ms": round(self.lease_left_s() * 1000),
            "lease_ms": round(self.lease_s * 1000),
            "mismatch": self.mismatch,
            "fenced": fenced.message if (fenced := self._part.fenced()) is not None else None,
            "constitution": {
                "id": known.constitution.id,
                "version": known.constitution.version,
                "digest": known.constitution.digest,
            }
            if known is not None
            else None,
            "versions": dict(known.versions) if known is not None else {},
            "file_differs": self._differs,
            "halts": len(known.halts.entries) if known is not None else 0,
        }

    async def step(self, conn: Connection) -> None:
        """Look at what is in force, and go by it.

        Args:
            conn: to this region's database, as acgs_owner.

        Raises:
            UnavailableError: no majority answers; what was in force stays so until the lease runs out.
            psycopg.Error: the region's database does not take a note of it.
        """
        began_s = self._clock_s()
        pointer = await self.documents.read_pointer()
        if any(kind not in pointer for kind in KINDS):
            if not self._may_found(began_s):
                return
            pointer = await self.documents.found(self._first())
        known = self._governed
        tenants = await read_tenants(conn, known.tenants if known is not None else {})
        if self._refused(pointer):
            return
        if known is None or self._heard != pointer or tenants is not known.tenants:
            try:
                await self._put_in_force(conn, pointer, tenants)
            except AcgsError as error:
                if isinstance(error, UnavailableError):
                    raise
                self._refuse(error, pointer)
                return
        self._refusal = None
        self._until_s = began_s + self.lease_s

    def _may_found(self, now_s: float) -> bool:
        """Return whether to found the cluster, which does no harm twice but is slower for all who contend."""
        self._why = "nothing was founded yet"
        self._vacant_s = now_s if self._vacant_s is None else self._vacant_s
        return now_s - self._vacant_s >= self._patience_s

    def _refused(self, pointer: Mapping[str, int]) -> bool:
        known = self._refusal
        return known is not None and known.versions == pointer and self._clock_s() < known.again_s

    def _refuse(self, error: AcgsError, pointer: Mapping[str, int]) -> None:
        if self._refusal is None or self._refusal.error.message != error.message:
            _LOG.error("constitution-mismatch", reason=error.reference, message=error.message)
        self._refusal = _Refusal(error, dict(pointer), self._clock_s() + _AGAIN_S)

    async def _put_in_force(self, conn: Connection, pointer: Mapping[str, int], tenants: Tenants) -> None:
        """Load what has changed, note it, and go by all of it from one moment on."""
        for kind, version in self._heard.items():
            if pointer[kind] < version:
                raise _gone_back("behind", kind, pointer[kind])
        have = self._governed.documents if self._governed is not None else {}
        wanted = [kind for kind in KINDS if kind not in have or pointer[kind] > have[kind].version]
        fetched = await asyncio.gather(*(self.documents.fetch(kind) for kind in wanted))
        new = [document for document in fetched if document is not None]
        ahead = {d.kind: d.version for d in new if d.version > pointer[d.kind]}
        if ahead:
            pointer = await self.documents.raise_to(ahead)
        governed = load({**have, **{d.kind: d for d in new}}, self._constitution, tenants, self._governed)
        await _note(conn, self._region, new, have)
        self._governed, self._heard = governed, dict(pointer)
        for document in new:
            names = {"kind": document.kind, "version": document.version}
            await conn.execute(_QUERIES["bound"].encode(), names)
            _LOG.warning("in-force", kind=document.kind, version=document.version, digest=document.digest)
        self._compare(governed)

    def _compare(self, governed: Governed) -> None:
        """Say whether this region was started with another constitution than the one that is in force."""
        try:
            differs = self._first()["constitution"] != governed.documents["constitution"].content
        except AcgsError as error:
            _LOG.warning("constitution-file", error=error.reference, message=error.message)
            return
        if differs and not self._differs:
            _LOG.warning(
                "constitution-file-differs",
                version=governed.constitution.version,
                digest=governed.constitution.digest,
            )
        self._differs = differs

    def unheard(self, error: Exception) -> None:
        """Note why what is in force is not known, for whoever asks."""
        self._why = error.message.rstrip(".") if isinstance(error, AcgsError) else "nobody answers in time"


async def _note(conn: Connection, region: str, new: list[Document], have: Mapping[str, Document]) -> None:
    """Note versions that come into force, with their leaves, before anything is done by them."""
    async with conn.transaction():
        for document in new:
            body = audit_body(document, have.get(document.kind), region)
            names = {
                "kind": document.kind,
                "version": document.version,
                "digest": document.digest,
                "document": Jsonb(document.content),
                "subject": register_key("governance", document.kind),
                "body": body,
            }
            row = await (await conn.execute(_QUERIES["put_in_force"].encode(), names)).fetchone()
            if row is not None and row[0] is not None:
                raise _gone_back(row[0], document.kind, document.version)


def _gone_back(how: str, kind: str, version: int) -> RuntimeFault:
    return RuntimeFault(
        f"governance-{how}",
        f"Version {version} of {kind} is not what follows what this region had in force.",
        hint="The register went back or was replaced: see docs/governance.md.",
        kind=kind,
        version=version,
    )


async def run_governance(server: RegionServer) -> None:
    """Keep to what is in force until cancelled; an absent database or majority is waited for."""
    away = False
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                server.config.owner_database, autocommit=True, connect_timeout=3
            ) as conn:
                away = False
                await conn.execute(f"LISTEN {CHANNEL}".encode())
                await _governed(server, conn)
        except psycopg.Error as error:
            if not away:
                _LOG.warning("governance-away", error=type(error).__name__, sqlstate=error.sqlstate)
            away = True
        await asyncio.sleep(_RETRY_S)


async def _governed(server: RegionServer, conn: Connection) -> None:
    governance, heard = server.governance, True
    while True:
        began_s = boottime_s()
        try:
            # A look that is not answered within a lease says nothing any more.
            async with asyncio.timeout(governance.lease_s / 2):
                await governance.step(conn)
            heard = True
        except (AcgsError, TimeoutError) as error:
            governance.unheard(error)
            if heard:
                _LOG.warning("not-heard", error=getattr(error, "reference", "timeout"))
            heard = False
        rest_s = max(_LOOK_S - (boottime_s() - began_s), 0.01)
        async for _ in conn.notifies(timeout=rest_s, stop_after=1):
            pass
