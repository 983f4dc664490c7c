"""What requests leave in the audit log: a leaf in the transaction that it is about."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import psycopg
from psycopg_pool import PoolTimeout

from acgs2.api.tokens import Principal

if TYPE_CHECKING:
    from acgs2.api.region import RegionServer

__all__ = ["Refusals", "audit", "run_refusals"]

_ENCODER = msgspec.json.Encoder(order="sorted")
_KINDS = 1000
_IN_ONE_LEAF = 100
_EVERY_S = 1.0


async def audit(
    conn: psycopg.AsyncConnection[Any],
    kind: str,
    subject: UUID | None,
    body: Mapping[str, Any],
    tenant: UUID | None = None,
) -> None:
    """Add a leaf; it is in the log if the transaction commits, and only then.

    Args:
        conn: in the transaction that it is about.
        kind: what was done.
        subject: the id that it will be looked for by.
        body: ids, digests, decisions and whole numbers; never a person's data, and no fractions.
        tenant: whose it is, who may read it besides operators and auditors.
    """
    text = _ENCODER.encode(body).decode()
    await conn.execute(b"SELECT acgs.audit(%s, %s, %s, %s)", (kind, subject, text, tenant))


class Refusals:
    """What was refused at the door of what is governed: counted, and audited in one leaf a second.

    One leaf for each would let whoever has no token fill the log. Who asked is known only where a token was
    good.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def note(self, route: str, reference: str, principal: Principal | None) -> None:
        """Count a refusal; beyond a thousand kinds in one second they are told apart no more."""
        who = f"{principal.role} {principal.name}" if principal is not None else ""
        key = (route, reference, who)
        if len(self._counts) >= _KINDS and key not in self._counts:
            key = (route, reference, "others")
        self._counts[key] += 1

    def take(self) -> list[dict[str, Any]]:
        """Return what was counted since the last time, and begin anew."""
        counted, self._counts = self._counts, Counter()
        return [
            {"count": count, "principal": who, "reason": reference, "route": route}
            for (route, reference, who), count in sorted(counted.items())
        ]

    def put_back(self, taken: Sequence[Mapping[str, Any]]) -> None:
        """Count again what could not be audited."""
        for each in taken:
            self._counts[each["route"], each["reason"], each["principal"]] += each["count"]


async def run_refusals(server: RegionServer) -> None:
    """Audit what was refused until cancelled; what an absent database cannot take waits, counted."""
    while True:
        await asyncio.sleep(_EVERY_S)
        refused = server.refusals.take()
        if not refused:
            continue
        try:
            async with server.pool.connection() as conn, conn.transaction():
                for begin in range(0, len(refused), _IN_ONE_LEAF):
                    part = refused[begin : begin + _IN_ONE_LEAF]
                    await audit(conn, "refusals", None, {"refused": part, "region": server.region})
        except (psycopg.Error, PoolTimeout):
            server.refusals.put_back(refused)
