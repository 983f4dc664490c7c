"""The region's duty as a witness: cosigns others' checkpoints that only grew, and says so where one did not.

The first few regions in an order of their own follow a log closely, told by its database; the others look
from time to time, so that a log is cosigned with those away too, and nobody has to trust the few.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from acgs2.api.region import RegionServer
from acgs2.audit.checkpoint import is_signed_by
from acgs2.audit.cosignature import cosign
from acgs2.audit.keys import OwnKeys, Trusted, key_name, read_own, read_trusted
from acgs2.audit.note import parse_note
from acgs2.audit.remote import Offer, known_there, newest, proof_between, roots, what_came_before
from acgs2.audit.sequencer import OFFERED
from acgs2.audit.witness import Cosign, Known, Proof, Refusal, Refuse, decide
from acgs2.errors import InputError
from acgs2.logs.write import get_logger
from acgs2.store.templates import fragments

__all__ = ["run_witness"]

_LOG = get_logger("acgs2.witness")
_QUERIES = fragments("audit.sql")
#: How many regions follow a log closely: two must cosign, and one may be away.
_CLOSE = 3
#: How often the others look, and how often witnesses compare what they know.
_LOOK_S = 5.0
#: How often a checkpoint that stays is cosigned again: a log that stands still is seen to stand.
_AGAIN_S = 60
_REACH_S = 5.0
_RETRY_S = 1.0


async def run_witness(server: RegionServer) -> None:
    """Witness every other region's log until cancelled."""
    config = server.config
    if config.audit_key_path is None or config.audit_keys_path is None or not config.peer_databases:
        await asyncio.Event().wait()
        return
    own = read_own(Path(config.audit_key_path))
    trusted = read_trusted(Path(config.audit_keys_path))
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                config.owner_database, autocommit=True, connect_timeout=3
            ) as conn:
                witness = _Witness(server, own, trusted, conn)
                await witness.awake()
                async with asyncio.TaskGroup() as group:
                    for peer in config.peer_databases:
                        group.create_task(witness.follow(peer))
        except* psycopg.Error as failed:
            error = failed.exceptions[0]
            _LOG.warning("witness-waits", error=type(error).__name__)
        except* _Forgotten:
            _LOG.warning("witness-forgot")
        await asyncio.sleep(_RETRY_S)


class _Forgotten(Exception):
    """The database has another life than the one whose memory is used."""


class _Witness:
    """What is known of others' logs, as the database has it on disk."""

    def __init__(
        self, server: RegionServer, own: OwnKeys, trusted: Trusted, conn: psycopg.AsyncConnection
    ) -> None:
        self._server = server
        self._own = own
        self._trusted = trusted
        self._conn = conn
        self._known: dict[str, tuple[str, Known]] = {}

    async def awake(self) -> None:
        """Have this life's memory: its own, or what most of the others know."""
        while (await self._value("forgotten")) is not False:
            if self._server.life is None or not await self._relearn():
                await asyncio.sleep(_RETRY_S)
        self._known = {k.checkpoint.origin: (r, k) for r, k in await known_there(self._conn)}

    async def _relearn(self) -> bool:
        """Learn from a majority of the others what they know, so as never to contradict it."""
        peers = list(self._server.config.peer_databases)
        answers = await asyncio.gather(*(self._asked(peer) for peer in peers))
        heard = [a for a in answers if a is not None]
        if len(heard) < len(peers) // 2 + 1:
            return False
        told = [
            {
                "origin": known.checkpoint.origin,
                "region": region,
                "size": known.checkpoint.size,
                "root": known.checkpoint.root.hex(),
                "note": known.note,
                "time_s": known.time_s,
            }
            for answer in heard
            for region, known in answer
            if region != self._server.region and self._is_genuine(known)
        ]
        await self._conn.execute(_QUERIES["relearn"].encode(), {"known": Jsonb(told)})
        _LOG.info("witness-learned", logs=len(told), of=len(heard))
        return True

    async def _asked(self, peer: str) -> list[tuple[str, Known]] | None:
        try:
            async with asyncio.timeout(_REACH_S), self._server.peers.using(peer) as there:
                return await known_there(there)
        except (psycopg.Error, TimeoutError):
            return None

    def _is_genuine(self, known: Known) -> bool:
        try:
            note = parse_note(known.note)
            keys = self._trusted.of_log(known.checkpoint.origin)
            return note.text == known.checkpoint.text and any(is_signed_by(note, key) for key in keys)
        except InputError:
            return False

    async def follow(self, peer: str) -> None:
        """Follow one region's log until cancelled; one that is away is waited for."""
        close = peer_rank(self._server.region, peer, self._server.topology.regions) < _CLOSE
        compared_s = time.monotonic()
        while True:
            with contextlib.suppress(psycopg.OperationalError, psycopg.InterfaceError, TimeoutError):
                if self._conn.closed:
                    raise _Forgotten
                if close:
                    await self._follow_closely(peer)
                else:
                    async with self._server.peers.using(peer) as there:
                        await self._look(there, peer)
            if self._conn.closed:
                raise _Forgotten
            if time.monotonic() - compared_s > _LOOK_S:
                compared_s = time.monotonic()
                await self._compare(peer)
            await asyncio.sleep(_RETRY_S if close else _LOOK_S)

    async def _follow_closely(self, peer: str) -> None:
        dsn = self._server.config.peer_databases[peer]
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=3) as there:
            compared_s = time.monotonic()
            await there.execute(f"LISTEN {OFFERED}".encode())
            while True:
                await self._look(there, peer)
                told = [n async for n in there.notifies(timeout=_LOOK_S, stop_after=1)]
                if time.monotonic() - compared_s > _LOOK_S or not told:
                    compared_s = time.monotonic()
                    await self._compare(peer)

    async def _look(self, there: psycopg.AsyncConnection, peer: str) -> None:
        """Look at a log's newest checkpoint, and cosign it if that is right."""
        if self._server.clock_apart or self._server.replaced or self._server.life is None:
            return
        async with asyncio.timeout(_REACH_S):
            offer = await newest(there)
            if offer is None:
                return
            origin = offer.checkpoint.origin
            topology = self._server.topology
            if not origin.startswith(key_name(topology.domain, topology.name, peer) + "/"):
                return
            note = offer.signed_by(self._trusted.of_log(origin))
            if note is None:
                await self._incident("audit-signature-invalid", peer, origin, {"text": offer.checkpoint.text})
                return
            _, known = self._known.get(origin, (peer, None))
            now_s = await self._value("now") // 1_000_000
            same = known is not None and known.checkpoint == offer.checkpoint
            if same and known is not None and 0 <= now_s - known.time_s < _AGAIN_S:
                return
            proof = await self._proof(there, peer, offer, known)
        answer = decide(known, note, proof, now_s)
        if isinstance(answer, Refuse):
            await self._refused(peer, answer)
            return
        await self._cosign(there, peer, answer)

    async def _proof(
        self, there: psycopg.AsyncConnection, peer: str, offer: Offer, known: Known | None
    ) -> Proof:
        size = offer.checkpoint.size
        if known is None:
            await self._succeeds(there, peer, offer)
            return Proof()
        old = known.checkpoint.size
        return (await proof_between(there, offer.log, old, size) or Proof()) if old < size else Proof()

    async def _succeeds(self, there: psycopg.AsyncConnection, peer: str, offer: Offer) -> None:
        """See whether a new log owns up to all that was cosigned of the one before it."""
        mine = [known for region, known in self._known.values() if region == peer]
        last = max(mine, key=lambda k: k.time_s, default=None)
        if last is None:
            return
        before = await what_came_before(there, offer) or {}
        was = last.checkpoint
        owns_up = before.get("origin") == was.origin and int(before.get("size", 0)) >= was.size
        if not owns_up or (before["size"] == was.size and before.get("root") != was.root.hex()):
            detail = {"known": last.note, "offered": offer.checkpoint.text, "says": before}
            await self._incident("audit-truncated", peer, offer.checkpoint.origin, detail)

    async def _cosign(self, there: psycopg.AsyncConnection, peer: str, answer: Cosign) -> None:
        known = answer.known
        checkpoint = known.checkpoint
        names: dict[str, Any] = {"origin": checkpoint.origin, "size": checkpoint.size, "time_s": known.time_s}
        remembered = {**names, "region": peer, "root": checkpoint.root, "note": known.note}
        # On disk first: a cosignature that the witness could forget could be contradicted by its next.
        if not await self._value("remember", **remembered):
            raise _Forgotten
        self._known[checkpoint.origin] = (peer, known)
        signature = cosign(checkpoint.text, self._own.witness, known.time_s)
        async with asyncio.timeout(_REACH_S):
            given = {**names, "witness": self._own.witness.key.name, "signature": signature}
            await there.execute(_QUERIES["give"].encode(), given)

    async def _refused(self, peer: str, answer: Refuse) -> None:
        known, offered = answer.evidence
        origin = offered.partition("\n")[0]
        if answer.reason is Refusal.CLOCK:
            return
        await self._incident(answer.reason, peer, origin, {"known": known, "offered": offered})

    async def _incident(self, kind: str, peer: str, origin: str, detail: dict[str, Any]) -> None:
        names = {"kind": kind, "source": peer, "origin": origin, "detail": Jsonb(detail), "wrong": True}
        if await self._value("incident", **names):
            _LOG.error(kind, peer=peer, origin=origin)

    async def _compare(self, peer: str) -> None:
        """Compare what another witness knows with what this one does: a log may show them different trees."""
        for region, theirs in await self._asked(peer) or ():
            origin = theirs.checkpoint.origin
            if origin not in self._known or not self._is_genuine(theirs):
                continue
            mine = self._known[origin][1]
            if mine.checkpoint == theirs.checkpoint:
                continue
            told = (mine.checkpoint, theirs.checkpoint)
            sizes = [c.size for c in told]
            try:
                async with asyncio.timeout(_REACH_S), self._server.peers.using(region) as there:
                    offer = await newest(there)
                    if (
                        offer is None
                        or offer.checkpoint.origin != origin
                        or offer.checkpoint.size < max(sizes)
                    ):
                        continue
                    have = await roots(there, offer.log, sizes)
            except (psycopg.Error, TimeoutError):
                continue
            if have is not None and have != [c.root for c in told]:
                await self._incident(
                    "audit-fork", region, origin, {"known": mine.note, "offered": theirs.note}
                )

    async def _value(self, query: str, **names: Any) -> Any:
        row = await (await self._conn.execute(_QUERIES[query].encode(), names)).fetchone()
        return row[0] if row else None


def peer_rank(witness: str, log: str, regions: Any) -> int:
    """Return a region's place among those that may witness a log: an order that differs from log to log."""

    def weight(name: str) -> bytes:
        return hashlib.sha256(f"{log}\n{name}".encode()).digest()

    return sum(weight(name) < weight(witness) for name in regions if name != log)
