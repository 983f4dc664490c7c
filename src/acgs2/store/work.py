"""What a region's worker runs, over and over, each step one short transaction that says how much it did."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg

__all__ = ["CHANNEL", "STEPS", "work"]

#: The channel on which the database says that there is something to do.
CHANNEL = "acgs_work"
#: In the order in which they follow from one another; the report is last, when nothing else is left.
STEPS = (
    b"SELECT acgs.move_step(500)",
    b"SELECT acgs.handover_step()",
    b"SELECT acgs.sweep_step(500)",
    b"SELECT acgs.emit_due(50)",
    b"SELECT acgs.provision_step(500)",
    b"SELECT acgs.report_done()",
)


async def work(conn: psycopg.AsyncConnection) -> AsyncIterator[int]:
    """Do everything that is due, yielding after every round how many records or entries it did.

    Raises:
        psycopg.Error: a step failed; what it was to do is still due.
    """
    while True:
        done = 0
        for step in STEPS:
            row = await (await conn.execute(step)).fetchone()
            done += int(row[0]) if row else 0
        if not done:
            return
        yield done
