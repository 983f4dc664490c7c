"""The region's duty to its own audit log: order, checkpoints, and who vouches for them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from acgs2.api.region import RegionServer
from acgs2.audit.checkpoint import Checkpoint
from acgs2.audit.cosignature import cosigned_at_s, line
from acgs2.audit.keys import Trusted, read_own, read_trusted
from acgs2.audit.note import Note
from acgs2.audit.remote import known_there
from acgs2.audit.sequencer import COSIGNED, Before, Looked, Sequencer
from acgs2.audit.status import enough
from acgs2.errors import RuntimeFault
from acgs2.logs.write import get_logger
from acgs2.store.templates import fragments

__all__ = ["run_audit"]

_LOG = get_logger("acgs2.audit")
_QUERIES = fragments("audit.sql")
#: How often a checkpoint is cut while leaves come; how often a region looks that has had none for a while.
_CUT_S = 0.1
_IDLE_S = 0.4
_IDLE_AFTER_S = 2.0
#: What witnesses are shown changes at most so often, and stays at most so long where too few cosign.
_OFFER_US = 200_000
_STALE_US = 2_000_000
#: A leaf that waits longer for its place is an incident: a transaction runs too long.
_LAG_US = 5_000_000
_LAG_LOOK_S = 2.5
#: How often the end of the log is read anew, and held against what was signed.
_CHECK_S = 10.0
_REACH_S = 3.0
#: How many cosignatures are looked at again at a start.
_RECENT = 64


async def run_audit(server: RegionServer) -> None:
    """Cut checkpoints while leaves come until cancelled; an absent database is waited for."""
    config = server.config
    if config.audit_key_path is None or config.audit_keys_path is None:
        _LOG.warning("audit-without-keys")
        await asyncio.Event().wait()
        return
    duty = _Duty(
        server,
        Sequencer(read_own(Path(config.audit_key_path)).log),
        read_trusted(Path(config.audit_keys_path)),
    )
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                config.owner_database, autocommit=True, connect_timeout=3
            ) as conn:
                await duty.run(conn)
        except psycopg.Error as error:
            _LOG.warning("audit-waits", error=type(error).__name__, sqlstate=error.sqlstate)
        await asyncio.sleep(_IDLE_S)


class _Duty:
    """One server's way through its log."""

    def __init__(self, server: RegionServer, sequencer: Sequencer, trusted: Trusted) -> None:
        self._server = server
        self._sequencer = sequencer
        self._trusted = trusted
        self._status = server.audit
        self._status.needed = enough(len(server.config.peer_databases))
        self._seen = 0
        self._looked_for_lag_s = 0.0
        #: When (monotonic) the log was found to be what was signed.
        self._whole_s = float("-inf")

    async def run(self, conn: psycopg.AsyncConnection) -> None:
        """Go on until the connection breaks."""
        await conn.execute(f"LISTEN {COSIGNED}".encode())
        begun: str | None = None
        busy_s = time.monotonic()
        while True:
            life = self._server.life
            if life is None or self._server.replaced:
                await asyncio.sleep(_CUT_S)
                continue
            if begun != life.incarnation:
                if not await self._begin(conn, life.incarnation, life.seeded):
                    await asyncio.sleep(_IDLE_S)
                    continue
                begun = life.incarnation
            looked = await self._sequencer.look(conn)
            if looked is not None and await self._step(conn, looked):
                busy_s = time.monotonic()
            idle = time.monotonic() - busy_s > _IDLE_AFTER_S
            async for _ in conn.notifies(timeout=_IDLE_S if idle else _CUT_S, stop_after=1):
                busy_s = time.monotonic()

    async def _begin(self, conn: psycopg.AsyncConnection, incarnation: str, seeded: bool) -> bool:
        """Begin this life's log unless it has begun; False while nobody can be asked what came before."""
        origin = f"{self._sequencer.signer.key.name}/{incarnation}"
        row = await (await conn.execute(_QUERIES["log_of"].encode(), {"origin": origin})).fetchone()
        if row is not None:
            return True
        peers = list(self._server.config.peer_databases)
        heard = [a for a in await asyncio.gather(*(self._heard(p) for p in peers)) if a is not None]
        if not heard and peers and not seeded:
            return False
        told = [before for answer in heard for before in answer]
        before = max(told, key=lambda b: (b[0], b[1].size), default=None)
        if await self._sequencer.begin(conn, incarnation, before[1] if before else None):
            _LOG.info("audit-log-began", incarnation=incarnation, before=before[1].origin if before else None)
        return True

    async def _heard(self, peer: str) -> list[tuple[int, Before]] | None:
        """Return what a witness cosigned of this region's logs, with when; None where it does not say."""
        try:
            async with asyncio.timeout(_REACH_S), self._server.peers.using(peer) as there:
                known = await known_there(there)
        except (psycopg.Error, TimeoutError):
            return None
        return [
            (k.time_s, Before(k.checkpoint.origin, k.checkpoint.size, k.checkpoint.root, peer))
            for region, k in known
            if region == self._server.region
        ]

    async def _step(self, conn: psycopg.AsyncConnection, looked: Looked) -> bool:
        """Do what there is to do; return whether there was anything."""
        status = self._status
        if status.origin != looked.origin:
            status.begin(looked.log, looked.origin)
            self._whole_s = float("-inf")
            self._seen = max(0, looked.cosignatures - _RECENT)
        size, busy = looked.size, looked.waiting
        if await self._whole(conn) and looked.waiting:
            size = await self._cut(conn, size)
        busy = busy and not status.damage
        status.grew(size)
        if looked.cosignatures > self._seen:
            await self._count(conn, looked.log)
            busy = True
        await self._offer(conn, looked, size)
        if time.monotonic() - self._looked_for_lag_s > _LAG_LOOK_S:
            self._looked_for_lag_s = time.monotonic()
            await self._lag(conn)
        return busy

    async def _whole(self, conn: psycopg.AsyncConnection) -> bool:
        """Return whether the log is what was signed; looked at now and then, and always while it is not."""
        damage = self._status.damage
        if not damage and time.monotonic() - self._whole_s < _CHECK_S:
            return True
        try:
            if not await self._sequencer.check(conn):
                return not damage
        except RuntimeFault as error:
            await self._damaged(conn, error)
            return False
        self._whole_s = time.monotonic()
        if damage:
            _LOG.warning("audit-whole-again")
            self._status.damage = ""
            await self._incident(conn, "audit-damaged", {}, wrong=False)
        return True

    async def _cut(self, conn: psycopg.AsyncConnection, size: int) -> int:
        try:
            while cut := await self._sequencer.cut(conn):
                size = cut.checkpoint.size
                if not cut.full:
                    break
        except RuntimeFault as error:
            await self._damaged(conn, error)
        return size

    async def _damaged(self, conn: psycopg.AsyncConnection, error: RuntimeFault) -> None:
        if not self._status.damage:
            _LOG.error("audit-damaged", reason=error.message)
        self._status.damage = error.message
        await self._incident(conn, "audit-damaged", {"reason": error.message})

    async def _count(self, conn: psycopg.AsyncConnection, log: int) -> None:
        """Check the cosignatures that have come, and count those that are right."""
        names = {"log": log, "after": self._seen}
        rows = await (await conn.execute(_QUERIES["cosignatures"].encode(), names)).fetchall()
        keys = self._trusted.witnesses(self._status.origin)
        for number, size, root, witness, time_s, signature in rows:
            self._seen = number
            text = Checkpoint(self._status.origin, size, bytes(root)).text
            mine = [key for key in keys if key.name == witness]
            notes = [(k, Note(text, (line(k, time_s, bytes(signature)),))) for k in mine]
            if any(cosigned_at_s(note, key) is not None for key, note in notes):
                self._status.count(size, witness, time_s)
            else:
                await self._incident(conn, "audit-cosignature-invalid", {"witness": witness, "size": size})

    async def _offer(self, conn: psycopg.AsyncConnection, looked: Looked, size: int) -> None:
        """Show witnesses a newer checkpoint, once enough have cosigned the last one or it is stale."""
        settled = looked.offered is None or (
            looked.offered_for_us >= _OFFER_US
            and (self._status.witnessed >= looked.offered or looked.offered_for_us >= _STALE_US)
        )
        if settled and size > (looked.offered or 0):
            await self._sequencer.offer(conn, looked.log, size)

    async def _lag(self, conn: psycopg.AsyncConnection) -> None:
        row = await (await conn.execute(_QUERIES["oldest_waiting"].encode())).fetchone()
        self._status.lag_us = max(0, row[0]) if row else 0
        late = self._status.lag_us > _LAG_US
        await self._incident(conn, "audit-lags", {"holder": row[1] if row else None}, wrong=late)

    async def _incident(
        self, conn: psycopg.AsyncConnection, kind: str, detail: dict[str, Any], *, wrong: bool = True
    ) -> None:
        names = {"kind": kind, "source": self._server.region, "origin": self._status.origin}
        names |= {"detail": Jsonb(detail), "wrong": wrong}
        row = await (await conn.execute(_QUERIES["incident"].encode(), names)).fetchone()
        if row and row[0] and wrong:
            _LOG.error(kind, **detail)
