"""Voters that are regions' databases, reached over the links; and a voter that learns its votes again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from acgs2.consensus.register import Answer, Promise, VoterAway
from acgs2.consensus.votes import Ballot, Vote, majority
from acgs2.store.templates import fragments

__all__ = ["DatabaseVoter", "relearn"]

_QUERIES = fragments("votes.sql")
Connect = Callable[[], Awaitable[psycopg.AsyncConnection]]


class DatabaseVoter:
    """One voter; its calls go one after the other over one connection, and are never broken off half-way."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._conn: psycopg.AsyncConnection | None = None
        self._lock = asyncio.Lock()

    async def look(self, key: str) -> Vote:
        """Return what the voter remembers, without a promise; raises VoterAway."""
        return _vote(*(await self._row("look", {"key": key})))

    async def prepare(self, key: str, ballot: Ballot) -> Promise:
        """Ask for a promise; raises VoterAway."""
        names = {"key": key, "n": ballot.n, "by": ballot.by}
        life, ok, *vote = await self._row("prepare", names)
        return Promise(life, ok, _vote(*vote))

    async def accept(self, key: str, ballot: Ballot, value: Any, life: str) -> Answer:
        """Ask to accept on a promise of a life; raises VoterAway."""
        names = {"key": key, "n": ballot.n, "by": ballot.by, "value": Jsonb(value), "life": life}
        ok, p_n, p_by = await self._row("accept", names)
        return Answer(ok, Ballot(p_n, p_by) if p_n is not None else None)

    async def votes_for(self, region: str) -> list[Any]:
        """Return everything the voter remembers, for one that forgot; raises VoterAway if it did too."""
        return (await self._row("votes", {"region": region}))[0]

    async def close(self) -> None:
        """Close the connection."""
        async with self._lock:
            if self._conn is not None:
                await self._conn.close()

    async def _row(self, query: str, names: Mapping[str, Any]) -> Any:
        # Whoever asked may stop waiting; the call itself is finished, so that the connection stays usable.
        return await asyncio.shield(asyncio.ensure_future(self._call(query, names)))

    async def _call(self, query: str, names: Mapping[str, Any]) -> Any:
        async with self._lock:
            try:
                async with asyncio.timeout(5):
                    if self._conn is None or self._conn.closed:
                        self._conn = await psycopg.AsyncConnection.connect(
                            self._dsn, autocommit=True, connect_timeout=3
                        )
                    return await (await self._conn.execute(_QUERIES[query].encode(), names)).fetchone()
            except (psycopg.Error, TimeoutError) as error:
                if isinstance(error, psycopg.OperationalError | TimeoutError) and self._conn is not None:
                    await self._conn.close()
                raise VoterAway(str(error)) from error


def _vote(p_n: int | None, p_by: str, a_n: int | None, a_by: str, value: Any) -> Vote:
    return Vote(
        Ballot(p_n, p_by) if p_n is not None else None, Ballot(a_n, a_by) if a_n is not None else None, value
    )


async def relearn(
    mine: psycopg.AsyncConnection, region: str, others: Mapping[str, DatabaseVoter], voters: int
) -> bool:
    """Let a database that has forgotten its votes learn them from others; return whether it votes now.

    Args:
        mine: the database, as acgs_owner.
        region: its region.
        others: the other voters.
        voters: how many voters there are, this one included; as many others as a majority of all.
    """
    answers = await asyncio.gather(
        *(voter.votes_for(region) for voter in others.values()), return_exceptions=True
    )
    heard = [a for a in answers if isinstance(a, list)]
    if len(heard) < majority(voters):
        return False
    known = [row for answer in heard for row in answer]
    await mine.execute(_QUERIES["adopt"].encode(), {"known": Jsonb(known)})
    return True
