"""From an operator's halt to the last region that goes by it, beside one change of a register in the same run.

    python benchmarks/halt.py [--rounds 40] [--cuts 5] [--topology local] [--json]

Regions take turns in being asked. Each region is looked at from outside, at its own server, every 20 ms; a halt is
everywhere when the last of them shows it. The baseline is one agreed change of a register, from where the halt
was asked for; a halt needs two of them (the document, then the pointer), and a look by every other region.

With --cuts, the region that is farthest away is cut off from all others, a halt is made elsewhere, and it is timed
until the region that cannot hear of it stops governing: at most one lease after the halt was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from clusters import bearer, running, say

from acgs2.consensus import PaxosRegister
from acgs2.consensus.voters import DatabaseVoter
from acgs2.local.cluster import Cluster
from acgs2.topology import locate

_LOOK_S = 0.02


class Clients:
    """A client at every region's own server, and a register as each region would use it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.regions = list(cluster.state.topology.regions)
        headers = {"authorization": f"Bearer {bearer(cluster)}"}
        self._http = {
            r: httpx.AsyncClient(base_url=cluster.state.url(r), headers=headers, timeout=20)
            for r in self.regions
        }
        self._voters = {me: self._seen_from(me) for me in self.regions}
        self.registers = {me: PaxosRegister(voters, f"bench/{me}") for me, voters in self._voters.items()}

    def _seen_from(self, me: str) -> dict[str, DatabaseVoter]:
        state = self.cluster.state
        return {
            r: DatabaseVoter(state.dsn(r, "acgs_owner") if r == me else state.link_dsn(me, r, "acgs_link"))
            for r in self.regions
        }

    async def send(self, region: str, method: str, path: str, body: Any = None) -> Any:
        answer = await self._http[region].request(method, path, json=body)
        answer.raise_for_status()
        return answer.json()

    async def governs(self, region: str) -> bool:
        return (await self._http[region].get("/health/governing")).status_code == 200

    async def until(self, region: str, *, governs: bool) -> None:
        """Wait until a region governs, or does not."""
        while await self.governs(region) is not governs:  # noqa: ASYNC110 - a server is looked at, not a task
            await asyncio.sleep(_LOOK_S)

    async def until_shown(self, region: str, reason: str, began_s: float) -> float:
        """Return after how many ms a region shows a halt."""
        while True:
            looked_s = time.perf_counter()
            if any(each["reason"] == reason for each in await self.send(region, "GET", "/api/v1/halts")):
                return (time.perf_counter() - began_s) * 1000
            await asyncio.sleep(max(0.0, looked_s + _LOOK_S - time.perf_counter()))

    async def end_all(self) -> None:
        for each in await self.send(self.regions[0], "GET", "/api/v1/halts"):
            for by in ("ann", "bo"):
                await self._resume(each["id"], by)

    async def _resume(self, number: str, by: str) -> None:
        from acgs2.api.tokens import mint

        state = self.cluster.state
        key = state.path / "secrets" / "signing.json"
        token = mint(key, by, "operator", state.topology.name, int(time.time()))
        answer = await self._http[self.regions[0]].post(
            f"/api/v1/halts/{number}/resume",
            json={"wait": True},
            headers={"authorization": f"Bearer {token}"},
        )
        answer.raise_for_status()

    async def close(self) -> None:
        for client in self._http.values():
            await client.aclose()
        for voters in self._voters.values():
            for voter in voters.values():
                await voter.close()


async def connected(clients: Clients, rounds: int) -> dict[str, Any]:
    """Halt again and again; return how long that took by where it was asked for."""
    asked_of = list(clients.cluster.state.topology.stacks())
    took: dict[str, list[float]] = {"baseline_change": [], "halt_answered": [], "halt_in_all_regions": []}
    by_region: dict[str, list[float]] = {region: [] for region in asked_of}
    for me in asked_of:  # connections over the links are made before anything is timed
        await clients.registers[me].change(f"bench/{me}", lambda v: (v or 0) + 1)
    for number in range(rounds):
        me, reason = asked_of[number % len(asked_of)], f"round {number}"
        began_s = time.perf_counter()
        await clients.registers[me].change(f"bench/{me}", lambda v: (v or 0) + 1)
        took["baseline_change"].append((time.perf_counter() - began_s) * 1000)
        began_s = time.perf_counter()
        looks = [asyncio.create_task(clients.until_shown(r, reason, began_s)) for r in clients.regions]
        await clients.send(me, "POST", "/api/v1/halts", {"scope": "all", "reason": reason})
        took["halt_answered"].append((time.perf_counter() - began_s) * 1000)
        last_ms = max(await asyncio.gather(*looks))
        took["halt_in_all_regions"].append(last_ms)
        by_region[me].append(last_ms)
        await clients.end_all()
    return {
        "rounds": rounds,
        **{name: _percentiles(values) for name, values in took.items()},
        "p50_ms_in_all_regions_by_where_it_was_asked": {
            region: round(statistics.median(values), 1) for region, values in by_region.items() if values
        },
    }


@contextmanager
def cut_off(cluster: Cluster, region: str) -> Iterator[None]:
    others = [r for r in cluster.state.topology.regions if r != region]
    for other in others:
        cluster.link("cut", region, other)
    try:
        yield
    finally:
        for other in others:
            cluster.link("restore", region, other)


async def isolated(clients: Clients, cuts: int) -> dict[str, Any]:
    """Cut the farthest region off and halt elsewhere; return for how long it still governed, and came back."""
    cluster = clients.cluster
    far = cluster.state.topology.stacks()[-1]
    at = next(r for r in clients.regions if r != far)
    stopped, back = [], []
    for number in range(cuts):
        with cut_off(cluster, far):
            began_s = time.perf_counter()
            await clients.send(at, "POST", "/api/v1/halts", {"scope": "all", "reason": f"cut {number}"})
            await clients.until(far, governs=False)
            stopped.append((time.perf_counter() - began_s) * 1000)
        began_s = time.perf_counter()
        await clients.until(far, governs=True)
        back.append((time.perf_counter() - began_s) * 1000)
        shown = await clients.send(far, "GET", "/api/v1/halts")
        if not any(each["reason"] == f"cut {number}" for each in shown):
            raise SystemExit(f"{far} governs without the halt that a majority made")
        await clients.end_all()
    lease_ms = cluster.state.topology.failover.failures * cluster.state.topology.failover.interval_s * 1000
    return {
        "cuts": cuts,
        "region": far,
        "lease_ms": lease_ms,
        "governed_after_a_halt_elsewhere_at_most_ms": round(max(stopped), 1),
        "governed_after_a_halt_elsewhere_p50_ms": round(statistics.median(stopped), 1),
        "governs_again_after_the_links_are_back_p50_ms": round(statistics.median(back), 1),
    }


async def measure(cluster: Cluster, rounds: int, cuts: int) -> dict[str, Any]:
    clients = Clients(cluster)
    try:
        for region in clients.regions:
            await clients.until(region, governs=True)
        found: dict[str, Any] = {"connected": await connected(clients, rounds)}
        say("connected regions done")
        if cuts:
            found["isolated"] = await isolated(clients, cuts)
        return found
    finally:
        await clients.close()


def _percentiles(took_ms: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(took_ms, n=100, method="inclusive")
    return {"p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1), "max_ms": round(max(took_ms), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cuts", type=int, default=5)
    parser.add_argument("--topology", default="local")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with running(locate(given.topology).read_text(encoding="utf-8")) as cluster:
        found = asyncio.run(measure(cluster, given.rounds, given.cuts))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
