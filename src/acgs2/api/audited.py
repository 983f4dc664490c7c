"""What requests leave in the audit log: a leaf in the transaction that it is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
import psycopg

__all__ = ["audit"]

_ENCODER = msgspec.json.Encoder(order="sorted")


async def audit(
    conn: psycopg.AsyncConnection[Any], kind: str, subject: UUID | None, body: Mapping[str, Any]
) -> None:
    """Add a leaf; it is in the log if the transaction commits, and only then.

    Args:
        conn: in the transaction that it is about.
        kind: what was done.
        subject: the id that it will be looked for by.
        body: ids, digests, decisions and whole numbers; never a person's data, and no fractions.
    """
    await conn.execute(b"SELECT acgs.audit(%s, %s, %s)", (kind, subject, _ENCODER.encode(body).decode()))
