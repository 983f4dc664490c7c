"""The register over Debian's etcd does what every register must, and what only etcd can get wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

import pytest
from tests.behaviours.register import RegisterBehaviours
from tests.conformance.etcd import Etcd

from acgs2.consensus import EtcdRegister


class Members:
    """The members of an etcd as a group that agrees."""

    def __init__(self, etcd: Etcd) -> None:
        self.etcd = etcd
        self.kill, self.start, self.freeze, self.thaw = etcd.kill, etcd.start, etcd.freeze, etcd.thaw

    @property
    def members(self) -> Sequence[str]:
        return self.etcd.members

    @asynccontextmanager
    async def register(self, me: str) -> AsyncIterator[EtcdRegister]:
        made = EtcdRegister(self.etcd.endpoints, "test", rng=Random(me))
        try:
            yield made
        finally:
            await made.close()


@pytest.fixture
def group(etcd: Etcd) -> Members:
    return Members(etcd)


class TestEtcd(RegisterBehaviours):
    pass
