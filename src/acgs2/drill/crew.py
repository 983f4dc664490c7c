"""Several clients at once that carry their plans out against a running cluster until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from acgs2.api.tokens import mint
from acgs2.drill.history import History
from acgs2.drill.plan import Plan, RightsPlan, Step, Stock
from acgs2.drill.workload import Act, Client
from acgs2.local.cluster import Cluster

__all__ = ["Crew", "makers_of"]


def makers_of(stock: Stock, clients: Mapping[str, str]) -> dict[tuple[str, str], list[str]]:
    """Return who creates records of an entity in a body of data: names of clients."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, region in clients.items():
        for entity, bodies in stock.makes[region].items():
            for body in bodies:
                found.setdefault((entity, body), []).append(name)
    return found


class Crew:
    """Clients with their plans; what they learn while they work (ids, moved tenants) is shared among them.

    Args:
        cluster: a running cluster.
        stock: what there is to work on.
        clients: name of each client, and its region.
        seed: of the run.
        history: where everything is recorded.
        seconds: for how long their tokens have to be good.
        pause_s: how long a client thinks between two acts, on average.
    """

    def __init__(
        self,
        cluster: Cluster,
        stock: Stock,
        clients: Mapping[str, str],
        seed: int,
        history: History,
        *,
        seconds: float,
        pause_s: float,
    ) -> None:
        self._stock = stock
        self._stop = asyncio.Event()
        state = cluster.state
        token = mint(
            state.path / "secrets" / "signing.json",
            stock.subject,
            "operator",
            state.topology.name,
            int(time.time()),
            lifetime_s=int(seconds) + 3600,
        )
        makers = makers_of(stock, clients)

        def made(region: str, name: str) -> Client:
            return Client(region, state.url(region), token, history, name=name, timeout_s=8.0)

        self._workers = [
            (made(region, name), Plan(seed, name, region, makers, stock, pause_s))
            for name, region in clients.items()
        ]
        self._officers = {region: made(region, f"officer-{region}") for region in state.topology.regions}
        self._zones = dict(stock.bodies)
        self._transfers: dict[str, tuple[str, str]] = {}

    async def found(self, homes: Mapping[str, str], timeout_s: float = 60.0) -> None:
        """Create every body's tenant in a home region and wait until it is wherever it is worked on."""
        async with asyncio.timeout(timeout_s):
            for body, zone in self._stock.bodies.items():
                key = self._stock.tenant(body)
                name = {"name": f"~tenant/{body}+name~"}
                act = Act(
                    "create",
                    "POST",
                    "tenants",
                    zone,
                    "tenant",
                    key,
                    name,
                    name,
                    idempotency_key=f"tenant/{body}",
                )
                while not (await self._officers[homes[zone]].do(act)).ok:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)  # another process, here and below
                for region, access in self._stock.access.items():
                    if body in access["tenant"] and zone in access["tenant"]:
                        while not await self._officers[region].sees(f"tenants/{key}"):  # noqa: ASYNC110
                            await asyncio.sleep(0.05)

    async def work(self, rights: RightsPlan | None) -> None:
        """Work until stopped."""
        jobs = [self._work(client, plan) for client, plan in self._workers]
        if rights is not None:
            jobs.append(self._see_to_rights(rights))
        await asyncio.gather(*jobs)

    def stop(self) -> None:
        """Have everybody stop after what they are about."""
        self._stop.set()

    async def close(self) -> None:
        """Close all connections."""
        for client in [*(c for c, _ in self._workers), *self._officers.values()]:
            await client.close()

    async def do(self, region: str, acts: Sequence[Act]) -> list[bool]:
        """Carry single acts out; returns which were acknowledged."""
        return [(await self._officers[region].do(act)).ok for act in acts]

    async def _think(self, pause_s: float) -> bool:
        """Wait, and return whether to go on."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stop.wait()
        return not self._stop.is_set()

    async def _work(self, client: Client, plan: Plan) -> None:
        for step in plan:
            if not await self._think(step.pause_s):
                return
            act = replace(step.act, zone=self._zones[step.body_of])
            if act.kind == "cas":
                await self._compare_and_set(client, act)
                continue
            done = await client.do(act)
            if done.outcome == "info" and step.repeats and await self._think(0.2):
                await client.do(act)

    async def _compare_and_set(self, client: Client, act: Act) -> None:
        seen = await client.do(Act("read", "GET", act.path, act.zone, act.entity, act.key))
        if not seen.ok:
            return
        record = seen.answer["record"]
        sent = {**act.sent, "expects": record["config_version"], "based_on": record["settings"]["is"]}
        body = {"settings": {"is": act.sent["value"]}}
        await client.do(replace(act, body=body, sent=sent, if_match=seen.answer["etag"]))

    async def _see_to_rights(self, rights: RightsPlan) -> None:
        for region, step in rights:
            if not await self._think(step.pause_s):
                return
            act = replace(step.act, zone=self._zones[step.body_of])
            if act.kind == "revoke":
                known = self._transfers.get(act.key)
                if known is None:
                    continue
                act = replace(act, path=act.path.format(id=known[0]), zone=known[1])
            done = await self._officers[region].do(act)
            if done.ok:
                self._learn(step, act, str(done.answer["record"].get("id", "")))

    def _learn(self, step: Step, act: Act, known: str) -> None:
        if act.kind == "register":
            self._transfers[act.key] = known, act.zone
        elif act.kind == "move":
            self._zones[step.body_of] = str(act.sent["to_zone"])
