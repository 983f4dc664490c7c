"""The register over voters' databases does what every register must."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from random import Random
from typing import Any

import psycopg
import pytest
from tests.behaviours.register import RegisterBehaviours
from tests.cluster.conftest import Server
from tests.cluster.consensus.test_register import FIVE, Voters

from acgs2.consensus import PaxosRegister
from acgs2.topology import parse


class Databases:
    """Voters whose databases are in one server: one is away when it is not asked, frozen when it is locked."""

    def __init__(self, voters: Voters) -> None:
        self._voters = voters
        self._frozen: dict[str, psycopg.Connection[Any]] = {}

    @property
    def members(self) -> Sequence[str]:
        return list(self._voters.dsns)

    @asynccontextmanager
    async def register(self, me: str) -> AsyncIterator[PaxosRegister]:
        yield self._voters.register(me, Random(me).getrandbits(32))

    def kill(self, member: str) -> None:
        self._voters.away.add(member)

    def start(self, member: str) -> None:
        self._voters.away.discard(member)

    def freeze(self, member: str) -> None:
        self._frozen[member] = psycopg.connect(self._voters.dsns[member])
        self._frozen[member].execute(b"LOCK TABLE acgs.vote IN ACCESS EXCLUSIVE MODE")

    def thaw(self, member: str) -> None:
        self._frozen.pop(member).close()


@pytest.fixture
def group(server: Server) -> Iterator[Databases]:
    with server.regions(parse(FIVE), linked=False) as names, ExitStack() as stack:
        owners = {r: stack.enter_context(server.connect(n, "acgs_owner")) for r, n in names.items()}
        yield Databases(Voters(server, dict(names), owners))


class TestDatabases(RegisterBehaviours):
    pass
