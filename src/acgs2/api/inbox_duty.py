"""What a region does for its inboxes unasked: contend for them, wake who waits, tell the others, tidy up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg

from acgs2.bus.desk import Counted, Desk, Receiver, tidied
from acgs2.bus.inboxes import Inboxes
from acgs2.errors import ForbiddenError
from acgs2.logs.write import get_logger
from acgs2.plan.inboxes import order
from acgs2.store.templates import fragments

if TYPE_CHECKING:
    from acgs2.api.region import RegionServer

__all__ = ["inboxes_for", "run_inboxes"]

_LOG = get_logger("acgs2.inboxes")
_QUERIES = fragments("delivery.sql")
_TICK_S = 0.2
_RETRY_S = 0.5
#: How often all deliveries are looked through for what nobody asks for.
_TIDY_S = 30.0


def inboxes_for(server: RegionServer) -> Inboxes:
    """Return the inboxes of a region."""

    def candidates(zone: str) -> tuple[str, ...]:
        homes = server.topology.zones[zone].regions if zone in server.topology.zones else ()
        lawful = order(homes, server.rules.residency.get(("message", zone), ()))
        agreed = server.participation.agreed
        # Whom nobody is sent to comes in only where all others are out as well; whom a plan fenced, never.
        taking = tuple(region for region in lawful if region not in agreed.shares.down)
        return taking or tuple(region for region in lawful if region not in agreed.traffic.down)

    def governed(receiver: Receiver) -> None:
        """Where governance is asked: before dispatch, and before its reply."""
        halt = server.governance.require().halts.of(str(receiver.tenant), str(receiver.agent))
        if halt is not None:
            raise ForbiddenError(
                "halted",
                f"{halt.scope} is halted: {halt.reason}.",
                hint="Two operators can resume it: `acgs2 halts` lists what is halted.",
                halt=halt.id,
            )

    async def record(zone: str, generation: int, serving: bool) -> bool:
        try:
            async with await psycopg.AsyncConnection.connect(
                server.config.owner_database, autocommit=True, connect_timeout=2
            ) as conn:
                names = {"zone": zone, "generation": generation, "serving": serving}
                await conn.execute(_QUERIES["serve"].encode(), names)
        except psycopg.Error as error:
            _LOG.warning("inboxes-not-recorded", zone=zone, error=type(error).__name__)
            return False
        return True

    return Inboxes(
        Desk(server.pool, Counted(server.metrics.redelivered, server.metrics.acknowledged)),
        server.register,
        server.region,
        server.topology.failover.failures * server.topology.failover.interval_s,
        candidates=candidates,
        endpoints=server.endpoints,
        fit=lambda: (
            server.life is not None
            and server.life.seeded
            and not server.replaced
            and not server.behind
            and not server.audit.damage
            and server.standing is not None
            and server.participation.fenced() is None
        ),
        governed=governed,
        record=record,
    )


async def run_inboxes(server: RegionServer) -> None:
    """Do all of it until cancelled; an absent database is waited for."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_sit(server, group))
        group.create_task(server.inboxes.desk.run_tell())
        group.create_task(_listen(server))
        group.create_task(_tidy(server))


async def _sit(server: RegionServer, group: asyncio.TaskGroup) -> None:
    """Contend for the inboxes of every zone whose agents may be known here."""
    sitting: set[str] = set()
    while True:
        for zone in server.rules.pairs:
            if zone not in sitting and server.region in server.rules.residency.get(("message", zone), ()):
                sitting.add(zone)
                group.create_task(server.inboxes.seat(zone).run())
        await asyncio.sleep(_TICK_S)


async def _listen(server: RegionServer) -> None:
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                server.config.database, autocommit=True, connect_timeout=3
            ) as conn:
                await server.inboxes.desk.listen(conn)
        except psycopg.Error:
            await asyncio.sleep(_RETRY_S)


async def _tidy(server: RegionServer) -> None:
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                server.config.owner_database, autocommit=True, connect_timeout=3
            ) as conn:
                await conn.execute(_QUERIES["maintain"].encode())
                async for _ in tidied(conn):
                    await asyncio.sleep(0)
        except psycopg.Error as error:
            _LOG.info("inboxes-not-tidied", error=type(error).__name__, sqlstate=error.sqlstate)
        await asyncio.sleep(_TIDY_S)
