"""Voters that are regions' databases, reached over the links; and a voter that learns its votes again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from acgs2.consensus.register import Answer, Promise, VoterAway
from acgs2.consensus.votes import Ballot, Members, Vote
from acgs2.store.templates import fragments

__all__ = ["DatabaseVoter", "relearn"]

_QUERIES = fragments("votes.sql")
#: How many calls to one voter are under way at once, each over a connection of its own.
_CONNECTIONS = 3
_CALL_S = 5.0
T = TypeVar("T")


class DatabaseVoter:
    """One voter; its calls are never broken off half-way, so that connections stay usable."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._idle: list[psycopg.AsyncConnection] = []
        self._turn = asyncio.Semaphore(_CONNECTIONS)
        self._calls: set[asyncio.Task[Any]] = set()

    async def look(self, key: str) -> tuple[Vote, Members]:
        """Return what the voter remembers, without a promise, and who votes; raises VoterAway."""
        p_n, p_by, a_n, a_by, value, epoch, who = await self._row("look", {"key": key})
        return Vote(_ballot(p_n, p_by), _ballot(a_n, a_by), value), _members(epoch, who)

    async def prepare(self, key: str, ballot: Ballot, members: Members) -> Promise:
        """Ask for a promise; raises VoterAway."""
        names = {"key": key, "n": ballot.n, "by": ballot.by, **_set(members)}
        life, ok, p_n, p_by, a_n, a_by, value, epoch, who = await self._row("prepare", names)
        return Promise(life, ok, Vote(_ballot(p_n, p_by), _ballot(a_n, a_by), value), _members(epoch, who))

    async def accept(self, key: str, ballot: Ballot, value: Any, life: str, members: Members) -> Answer:
        """Ask to accept on a promise of a life; raises VoterAway."""
        names = {"key": key, "n": ballot.n, "by": ballot.by, "value": Jsonb(value), "life": life}
        ok, p_n, p_by, epoch, who = await self._row("accept", {**names, **_set(members)})
        return Answer(ok, _ballot(p_n, p_by), _members(epoch, who))

    async def who(self) -> Members:
        """Return who votes, as far as this region knows; raises VoterAway."""
        return _members(*await self._row("who", {}))

    async def votes_for(self, region: str) -> tuple[Members, list[Any]]:
        """Return who votes and all that the voter remembers, for one that forgot.

        It gives way: what is under way at it has to be begun anew. Raises VoterAway if it has forgotten too.
        """
        epoch, who, votes = await self._row("votes", {"region": region})
        return _members(epoch, who), votes

    async def enroll(self, members: Members) -> bool:
        """Make it a voter that never voted, unless it is one of these; raises VoterAway."""
        return bool((await self._row("enroll", _set(members)))[0])

    async def keys(self) -> list[str]:
        """Return the keys that it has votes for; raises VoterAway."""
        return (await self._row("keys", {}))[0]

    async def close(self) -> None:
        """Close the connections, once what is under way has ended."""
        await asyncio.gather(*self._calls, return_exceptions=True)
        while self._idle:
            await self._idle.pop().close()

    async def _row(self, query: str, names: Mapping[str, Any]) -> Any:
        # One who stops waiting for a turn takes none: nothing piles up before a voter that is cut off.
        await self._turn.acquire()
        # Whoever asked may stop waiting; the call itself is finished, so that the connection stays usable.
        call = asyncio.ensure_future(self._call(query, names))
        self._calls.add(call)
        call.add_done_callback(self._ended)
        return await asyncio.shield(call)

    def _ended(self, call: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # looked at: whoever asked may have a majority by now, and not want it

    async def _call(self, query: str, names: Mapping[str, Any]) -> Any:
        conn: psycopg.AsyncConnection | None = None
        try:
            async with asyncio.timeout(_CALL_S):
                conn = await self._connection()
                row = await (await conn.execute(_QUERIES[query].encode(), names)).fetchone()
        except (psycopg.Error, TimeoutError) as error:
            if isinstance(error, psycopg.OperationalError | TimeoutError) and conn is not None:
                await conn.close()
            raise VoterAway(str(error)) from error
        finally:
            if conn is not None and not conn.closed:
                self._idle.append(conn)
            self._turn.release()
        if row is None:
            raise VoterAway("the database knows no voters")
        return row

    async def _connection(self) -> psycopg.AsyncConnection:
        while self._idle:
            conn = self._idle.pop()
            if not conn.closed:
                return conn
        return await psycopg.AsyncConnection.connect(self._dsn, autocommit=True, connect_timeout=3)


def _set(members: Members) -> dict[str, Any]:
    return {"epoch": members.epoch, "names": list(members.names)}


def _ballot(n: int | None, by: str | None) -> Ballot | None:
    return Ballot(n, by) if n is not None and by is not None else None


def _members(epoch: int | None, names: Sequence[str] | None) -> Members:
    return Members(epoch or 0, tuple(names or ()))


async def relearn(mine: psycopg.AsyncConnection, region: str, others: Mapping[str, DatabaseVoter]) -> bool:
    """Let a database that has forgotten its votes learn them from others; return whether it votes now.

    It needs to hear as many others as make a majority of all, and disturbs nobody before it knows that it
    votes and that so many can be reached.

    Args:
        mine: the database, as acgs_owner.
        region: its region.
        others: every other region that may vote.
    """
    told = await _heard({name: voter.who() for name, voter in others.items()})
    members = max(told.values(), key=lambda m: m.epoch, default=Members(0, ()))
    if region not in members.names or len(told.keys() & {*members.names}) < members.enough:
        return False
    answers = await _heard({n: others[n].votes_for(region) for n in members.names if n in others})
    latest = max((m for m, _ in answers.values()), key=lambda m: m.epoch, default=members)
    if latest != members or len(answers) < members.enough:
        return False
    known = [row for _, votes in answers.values() for row in votes]
    await mine.execute(_QUERIES["adopt"].encode(), {"known": Jsonb(known), **_set(members)})
    return True


async def _heard(calls: Mapping[str, Coroutine[Any, Any, T]]) -> dict[str, T]:
    """Return the answers of those who answered."""
    answers = await asyncio.gather(*calls.values(), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, VoterAway):
            raise answer
    return {name: a for name, a in zip(calls, answers, strict=True) if not isinstance(a, BaseException)}
