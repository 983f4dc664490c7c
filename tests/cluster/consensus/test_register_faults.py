"""The register while voters are killed, frozen, cut off and lose their votes: what was agreed stays agreed.

A seed replays its schedule: ACGS2_SEEDS=7 ACGS2_STEPS=40 pytest tests/cluster/consensus/test_register_faults.py
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from tests.cluster.local.test_return import agreed

from acgs2.consensus import PaxosRegister, Versioned
from acgs2.consensus.voters import DatabaseVoter
from acgs2.errors import UnavailableError
from acgs2.local.cluster import Cluster

SEEDS = [int(s) for s in os.environ.get("ACGS2_SEEDS", "1").split(",")]
STEPS = int(os.environ.get("ACGS2_STEPS", "14"))
KEYS = ("a", "b")


@dataclass
class History:
    """What proposers were told: which values at which version, and which changes may have been made."""

    told: list[tuple[str, Versioned]] = field(default_factory=list)
    acknowledged: dict[str, list[str]] = field(default_factory=lambda: {k: [] for k in KEYS})
    attempted: set[str] = field(default_factory=set)
    refused: int = 0


@asynccontextmanager
async def proposer(cluster: Cluster, region: str, me: str, seed: int) -> AsyncIterator[PaxosRegister]:
    """A register as the region has it: its own voter directly, the others over its links."""
    state = cluster.state
    dsns = {peer: state.link_dsn(region, peer, "acgs_link") for peer in state.topology.peers(region)}
    voters = {n: DatabaseVoter(d) for n, d in {**dsns, region: state.dsn(region, "acgs_owner")}.items()}
    try:
        yield PaxosRegister(voters, me, timeout_s=1.0, rng=Random(seed))
    finally:
        await asyncio.gather(*(voter.close() for voter in voters.values()))


async def propose(cluster: Cluster, region: str, seed: int, history: History, over: asyncio.Event) -> None:
    rng, number = Random(seed), 0
    async with proposer(cluster, region, f"{region}/{seed}", seed) as register:
        while not over.is_set():
            key, token = rng.choice(KEYS), f"{region}-{seed}-{number}"
            number += 1
            history.attempted.add(token)

            def decide(value: Any, t: str = token) -> Any:
                return value if t in (value or []) else [*(value or []), t]

            try:
                agreed_on = await register.change(key, decide)
            except UnavailableError:
                history.refused += 1
                continue
            history.acknowledged[key].append(token)
            history.told.append((key, agreed_on))


class Nemesis:
    """What happens to voters; at most one is without its votes or dead at a time, so that three can decide."""

    def __init__(self, cluster: Cluster, rng: Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.regions = list(cluster.state.topology.regions)
        self.done: list[str] = []

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            act = self.rng.choice([self.kill, self.freeze, self.cut, self.cut_one_way, self.forget])
            self.done.append(act.__name__)
            await act(self.rng.choice(self.regions))

    async def _rest(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.3, 1.5))  # how long a fault lasts is part of the schedule

    async def _ask(self, action: str, region: str, component: str = "postgres") -> None:
        await asyncio.to_thread(self.cluster.ask, action, region=region, component=component)

    async def kill(self, region: str) -> None:
        await self._ask("kill", region)
        await self._rest()
        await self._ask("start", region)

    async def freeze(self, region: str) -> None:
        await self._ask("freeze", region)
        await self._rest()
        await self._ask("thaw", region)

    async def cut(self, region: str, *, one_way: bool = False) -> None:
        other = self.rng.choice([r for r in self.regions if r != region])
        await asyncio.to_thread(self.cluster.link, "cut", region, other, one_way=one_way)
        await self._rest()
        await asyncio.to_thread(self.cluster.link, "restore", region, other, reset=True)

    async def cut_one_way(self, region: str) -> None:
        await self.cut(region, one_way=True)

    async def forget(self, region: str) -> None:
        """Destroy a voter with its votes, and wait until it has learned them again."""
        await self._ask("kill", region, "all")
        shutil.rmtree(self.cluster.state.data_path(region))
        await self._ask("start", region, "all")
        await asyncio.to_thread(agreed, self.cluster)


def judge(history: History, final: dict[str, Versioned]) -> None:
    """A value that was told at a version is the beginning of every later one, and holds each change once."""
    for key in KEYS:
        versions: dict[int, list[str]] = {}
        for of, told in [*history.told, (key, final[key])]:
            if of == key:
                assert versions.setdefault(told.version, told.value) == told.value, "one version, two values"
                assert told.version == len(told.value) == len(set(told.value)), "a change was made twice"
        last = final[key].value
        for version, value in versions.items():
            assert last[:version] == value, "an agreed value was replaced"
        assert set(history.acknowledged[key]) <= set(last), "an agreed change is gone"
        assert set(last) <= history.attempted


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_agreed_stays_agreed_whatever_happens_to_voters(cluster: Cluster, seed: int) -> None:
    agreed(cluster)
    history, nemesis = History(), Nemesis(cluster, Random(seed))

    async def run() -> dict[str, Versioned]:
        over = asyncio.Event()
        regions = nemesis.regions
        proposers = [
            asyncio.create_task(propose(cluster, r, seed * 10 + n, history, over))
            for n, r in enumerate([*regions, regions[0]])
        ]
        try:
            await nemesis.run(STEPS)
        finally:
            over.set()
            await asyncio.gather(*proposers)
        await asyncio.to_thread(agreed, cluster)
        async with proposer(cluster, regions[0], "judge", 0) as register:
            return {key: await register.read(key) for key in KEYS}

    final = asyncio.run(run())
    print(
        f"seed {seed}: {nemesis.done}; refused {history.refused}; {[len(final[k].value) for k in KEYS]} changes"
    )
    judge(history, final)
    assert sum(len(t) for t in history.acknowledged.values()) > STEPS, (
        "too little was agreed to mean anything"
    )
