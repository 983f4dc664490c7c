"""One run: clients and nemesis against a fresh cluster, then healing, agreement, and judgement."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from acgs2.drill.checks import Broken, judge
from acgs2.drill.crew import Crew, makers_of
from acgs2.drill.history import History
from acgs2.drill.nemesis import Nemesis, Terrain, plan_faults
from acgs2.drill.plan import RightsPlan, stock_of
from acgs2.drill.settle import calm
from acgs2.drill.states import Final, read_final
from acgs2.drill.workload import Act
from acgs2.drill.world import World, wait_until
from acgs2.local.cluster import Cluster

WEST, CENTRAL, US, SG = "eu-west-1", "eu-central-1", "us-east-1", "ap-southeast-1"
#: Four regions and a witness, so that any two may die: a pair, zones with one home, one that three hold.
TOPOLOGY = """
name: torture
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
  eu-central-1: {country: DE}
  us-east-1: {country: US}
  ap-southeast-1: {country: SG}
  ca-central-1: {country: CA, role: witness}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1, eu-central-1]}
  us: {regulation: ccpa, regions: [us-east-1]}
  sg: {regulation: pdpa, regions: [ap-southeast-1]}
  all: {regulation: gdpr, regions: [eu-west-1, eu-central-1, us-east-1], pair: none}
transfers:
  - {zone: us, to: eu-west-1, instrument: none_required, entities: [tenant, tenant_config, user_profile, agent, audit_event]}
  - {zone: eu, to: us-east-1, instrument: adequacy_dpf, entities: [user_profile], importer_certified: true}
  - {zone: eu, to: ap-southeast-1, instrument: explicit_consent, entities: [user_profile]}
"""
MOVABLE = {"m0": ("eu", "us"), "m1": ("eu", "us")}
HOMES = {"eu": WEST, "us": US, "sg": SG, "all": WEST}
TRANSFERS = (
    ("eu", SG, "scc", ("user_profile", "tenant")),
    ("us", CENTRAL, "none_required", ("tenant", "user_profile")),
    ("all", SG, "scc", ("tenant", "user_profile", "audit_event")),
    ("sg", US, "scc", ("user_profile",)),
)
#: Within this time regions agree by themselves once all is healed, and again after `acgs2 repair` of each.
AGREE_S = 60.0
STILL = [f"all.still.{number}" for number in range(8)]
Say = Callable[[str], None]


@dataclass
class Report:
    """What came of a run."""

    seed: int
    history: History
    final: Final = field(default_factory=Final)
    agreed_s: float | None = None
    repaired: bool = False
    broken: list[Broken] = field(default_factory=list)

    @property
    def outcomes(self) -> dict[str, Counter[str]]:
        """Return how many operations of each kind had which outcome."""
        found: dict[str, Counter[str]] = {}
        for op in self.history.operations:
            found.setdefault(op.kind, Counter())[op.outcome] += 1
        return found

    @property
    def bitten(self) -> set[str]:
        """Return the names of the faults that are known to have bitten."""
        return {fault.name for fault in self.history.faults if fault.bitten}


def torture(cluster: Cluster, seed: int, seconds: float, out: Path, say: Say, *, gap_s: float) -> Report:
    """Run clients and nemesis for a time, heal, wait for agreement, judge; history and states are left in `out`."""
    topology = cluster.state.topology
    history = History(out / "history.jsonl")
    stock = stock_of(topology, f"torture-{seed}", MOVABLE)
    data = tuple(name for name, region in topology.regions.items() if region.role != "witness")
    clients = {f"{region.replace('-', '')}{n}": region for region in data for n in range(3)}
    world = World(cluster, history, stock.subject, lifetime_s=int(seconds) + 3600)
    nemesis = Nemesis(
        world, plan_faults(seed, Terrain(topology, stock, "all", STILL), gap_s=gap_s), _timed(history, say)
    )
    rights = RightsPlan(
        seed,
        makers_of(stock, clients),
        stock,
        {
            **dict.fromkeys(("grant", "withdraw", "forget"), (WEST, CENTRAL)),
            **dict.fromkeys(("register", "revoke"), data),
            "move": (WEST,),
        },
        ("eu", SG),
        TRANSFERS,
        pause_s=1.5,
    )

    async def work() -> None:
        crew = Crew(cluster, stock, clients, seed, history, seconds=seconds, pause_s=0.2)
        try:
            await crew.found(HOMES)
            assert all(await crew.do(WEST, [_still(stock.tenant("all"), stock.key, name) for name in STILL]))
            evil = asyncio.create_task(asyncio.to_thread(nemesis.run, seconds))
            working = asyncio.create_task(crew.work(rights))
            try:
                await asyncio.wait({working}, timeout=seconds)
            finally:
                crew.stop()
                nemesis.stop()
                await asyncio.gather(working, evil)
        finally:
            await crew.close()

    asyncio.run(work())
    say("the time is over: everything is healed")
    nemesis.heal()
    report = Report(seed, history)
    _agree(world, report, say)
    report.final.save(out / "final.json")
    history.close()
    report.broken = judge(history, report.final)
    return report


def _timed(history: History, say: Say) -> Say:
    return lambda text: say(f"{history.now_s():7.1f} s  {text}")


def _still(tenant: str, key: Callable[[str, str], str], name: str) -> Act:
    content = {"display_name": f"~user_profile/{name}+still~"}
    body = {"tenant_id": tenant, **content}
    named = f"user_profile/{name}"
    return Act(
        "create", "POST", "users", "all", "user_profile", key("user_profile", name), body, content, named
    )


def _agree(world: World, report: Report, say: Say) -> None:
    """Wait until the regions agree, by themselves or by the one command; then read everything."""
    began_s = time.monotonic()
    topology = world.state.topology

    agreed = wait_until(lambda: calm(world), AGREE_S, every_s=0.5)
    if not agreed:
        report.repaired = True
        say("no agreement yet: acgs2 repair of every region")
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda r: world.ask(r, "POST", "/api/v1/repair", timeout_s=AGREE_S), world.regions))
        agreed = wait_until(lambda: calm(world), AGREE_S, every_s=0.5)
    if agreed:
        report.agreed_s = round(time.monotonic() - began_s, 1)
    with world.databases() as found:
        report.final = read_final(topology, found)
