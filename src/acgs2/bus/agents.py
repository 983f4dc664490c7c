"""What verdicts need to know of agents: remembered, and always checked against the database when stored."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from acgs2.policy import AgentFacts

__all__ = ["Agents", "Known"]


class Known(msgspec.Struct, frozen=True):
    """An agent as it was in its version `hlc`."""

    key: UUID
    tenant_id: UUID
    zone: str
    facts: AgentFacts
    hlc: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Known:
        """Return the agent that a row of acgs.agent says."""
        facts = AgentFacts.of(row["key"], row["tenant_id"], row["zone"], row)
        return cls(row["key"], row["tenant_id"], row["zone"], facts, row["hlc"])


class Agents:
    """Agents by id, the most recently asked for.

    Nobody is told that an agent changed: who stores what was judged by an older version is told so, forgets
    it, and judges again.

    Args:
        load: returns the agents of some ids that exist here.
        size: how many are remembered.
    """

    def __init__(
        self, load: Callable[[Sequence[UUID]], Awaitable[Sequence[Known]]], size: int = 50_000
    ) -> None:
        self._load = load
        self._size = size
        self._known: OrderedDict[UUID, Known] = OrderedDict()
        self._asked: dict[UUID, asyncio.Future[Known | None]] = {}

    async def get(self, key: UUID) -> Known | None:
        """Return an agent, None if there is none here; asked for at the same time it is loaded once.

        Raises:
            psycopg.Error: the database does not say.
        """
        known = self._known.get(key)
        if known is not None:
            return known
        if (asked := self._asked.get(key)) is None:
            asked = self._asked[key] = asyncio.ensure_future(self._fetch(key))
            asked.add_done_callback(lambda _: self._asked.pop(key, None))
        return await asyncio.shield(asked)

    def forget(self, *keys: UUID | None) -> None:
        """Forget agents that have changed."""
        for key in keys:
            if key is not None:
                self._known.pop(key, None)

    async def _fetch(self, key: UUID) -> Known | None:
        found = await self._load([key])
        if not found:
            return None
        if len(self._known) >= self._size:
            self._known.popitem(last=False)
        self._known[key] = found[0]
        return found[0]
