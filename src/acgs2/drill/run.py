"""One drill: load from outside, a fault, and what becomes of both; phase after phase, then judgement."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

from acgs2.drill.clients import DEADLINE_S, Clients, people_of
from acgs2.drill.faults import NotBegun
from acgs2.drill.history import Fault, History
from acgs2.drill.judging import judge_run
from acgs2.drill.lag import lags
from acgs2.drill.measure import PATIENCE_S, Call, calls_of, numbers, zone_seen
from acgs2.drill.outages import Outage, outage
from acgs2.drill.report import Event, Phase, Report
from acgs2.drill.story import given_up, happened, returned, where
from acgs2.drill.watch import Watch
from acgs2.drill.world import World, wait_until
from acgs2.errors import AcgsError, RuntimeFault
from acgs2.local.cluster import Cluster
from acgs2.plan import Agreed, Plan
from acgs2.topology import Topology

__all__ = ["Settings", "run_drill"]

Say = Callable[[Event], None]
#: What a zone has to say that no region may serve.
NO_TARGET = "no-lawful-target"
_LIFETIME_S = 12 * 3600
_WELL_S, _WHOLE_S, _DRAIN_S = 90.0, 120.0, 40.0
#: More than clocks of regions differ, and than a file's time may be behind.
_MARGIN = timedelta(seconds=10)
#: How long a region may take to be let in again, and each of its shares beside the dwell.
_READMIT_S, _SHARE_S = 60.0, 5.0


@dataclass(frozen=True)
class Settings:
    """How a drill is run.

    Args:
        rate_per_s: how many calls begin in a second, over all places.
        steady_s: how long it is looked at before the fault.
        hold_s: how long the fault lasts at least; longer where service is not back.
        limit_s: how long it lasts at most.
        after_s: how long it is looked at at the end.
    """

    rate_per_s: float = 30.0
    steady_s: float = 8.0
    hold_s: float = 12.0
    limit_s: float = 60.0
    after_s: float = 4.0


async def run_drill(
    cluster: Cluster, fault: str, region: str, settings: Settings, say: Say, tick: Callable[[str], None]
) -> Report:
    """Run a drill against a cluster that is up, and return what came of it; the cluster is whole again then.

    Args:
        cluster: whose topology has places.
        fault: its name, one of OUTAGES.
        region: that it is done to; empty for the first one that serves clients.
        settings: rates and times.
        say: told everything that happens, as it happens.
        tick: told every second how service is.

    Raises:
        InputError: the fault or the region cannot be drilled, or nobody is outside.
        RuntimeFault: there is no service to begin with (`not-well`).
    """
    return await _Drill(cluster, fault, region, settings, say, tick).run()


class _Drill:
    def __init__(
        self,
        cluster: Cluster,
        fault: str,
        region: str,
        settings: Settings,
        say: Say,
        tick: Callable[[str], None],
    ) -> None:
        self._topology = cluster.state.topology
        self._region = region or _most_telling(self._topology)
        self._fault = fault
        outage(
            fault, self._topology, self._region, ""
        )  # what cannot be drilled is said before anything begins
        people_of(self._topology)
        self._settings = settings
        self._run = f"d{secrets.token_hex(4)}"
        self._history = History()
        self._world = World(
            cluster,
            self._history,
            "operator@drill",
            lifetime_s=_LIFETIME_S,
            since=datetime.now(UTC) - _MARGIN,
        )
        self._clients = Clients(cluster, self._history, self._run, settings.rate_per_s)
        self._watch = Watch(cluster.state, self._history.now_s, say)
        self._say, self._tick = say, tick
        self._measured_s = 0.0
        self._begun = False
        self._report = Report(fault, [], topology=self._topology.name, rate_per_s=settings.rate_per_s)

    async def run(self) -> Report:
        """Carry everything out."""
        self._report.began_at = datetime.now(UTC).isoformat(timespec="seconds")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._clients)
            with self._phase("preparing"):
                await self._clients.found()
            try:
                await self._beside()
            except* AcgsError as several:
                raise several.exceptions[0] from None
        self._report.seconds = round(self._history.now_s(), 2)
        with self._phase("judgement"):
            await asyncio.to_thread(
                judge_run, self._report, self._world, self._run, self._watch.claims, self._rights
            )
        self._sum_up()
        return self._report

    async def _beside(self) -> None:
        """Go through the phases while clients work, and regions are watched."""
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(work) for work in (self._watch.run(), self._clients.receive(), self._show())
            ]
            working = group.create_task(self._clients.work())
            try:
                await self._phases()
                self._clients.stop()
                await working
                await self._drain()
            finally:
                self._clients.stop()
                for task in beside:
                    task.cancel()

    @contextmanager
    def _phase(self, name: str) -> Iterator[list[str]]:
        """Note a phase; what is put into the list is what came of it."""
        began_s, said = self._history.now_s(), list[str]()
        self._say(Event(round(began_s, 2), "phase", "", name))
        try:
            yield said
        finally:
            self._report.phases.append(
                Phase(name, round(began_s, 2), round(self._history.now_s(), 2), "; ".join(said))
            )

    def _note(self, at_s: float, what: str) -> None:
        event = Event(round(at_s, 2), "fault", self._report.regions[0], what)
        self._watch.events.append(event)
        self._say(event)

    async def _phases(self) -> None:
        settings, report, now_s = self._settings, self._report, self._history.now_s
        with self._phase("steady state"):
            if not await self._until(self._ordinary, _WELL_S):
                raise RuntimeFault(
                    "not-well",
                    "Before any fault clients are not served, or traffic is not where it belongs.",
                    hint="See `acgs2 status` and `acgs2 traffic show`.",
                )
            self._measured_s = now_s()
            await asyncio.sleep(settings.steady_s)
            report.lag = await asyncio.to_thread(self._lags)
            # As they are in force: transfers may have been granted or revoked since the topology was written.
            self._rights = await asyncio.to_thread(self._world.rights)
        self._drilled = drilled = outage(self._fault, self._topology, self._region, self._watch.leader)
        report.regions, report.injected = list(drilled.regions), drilled.injection.did
        report.expected, report.why_expected = drilled.expected, drilled.why
        try:
            await self._outage(drilled)
            await self._recover(drilled)
        except BaseException:
            # Whoever breaks off waits for nothing more, and leaves no fault behind.
            if self._begun:
                await asyncio.to_thread(drilled.injection.end, self._world)
            raise
        with self._phase("failback") as said:
            said.append(await self._failback(drilled))
        await asyncio.sleep(settings.after_s)

    async def _outage(self, drilled: Outage) -> None:
        settings, report, now_s = self._settings, self._report, self._history.now_s
        lawful = self._lawful(drilled)
        with self._phase("fault") as said:
            report.fault_s = round(now_s(), 3)
            self._note(report.fault_s, f"begin: {report.injected}")
            self._begun = True
            try:
                report.bitten = await asyncio.to_thread(drilled.injection.begin, self._world)
            except NotBegun as why:
                report.bitten = None
                said.append(f"not begun: {why}")
            said.append(report.bitten or "not known to have bitten")
        with self._phase("detection") as said:
            if drilled.expected == "fails over" and self._watch.agreed is not None:
                await self._until(self._plans, settings.limit_s)
            said.append(self._detected())
        with self._phase("failover"):
            began_s = report.fault_s
            await asyncio.sleep(max(0.0, began_s + 2 * PATIENCE_S - now_s()))
            left_s = began_s + settings.limit_s - now_s()
            await self._until(lambda: self._well(lawful) and self._planned(), left_s)
            await asyncio.sleep(max(0.0, began_s + settings.hold_s - now_s()))
        with self._phase("verification") as said:
            # Of a zone that nobody may serve only the answer is wanted, and it is given over and over.
            limits = {zone: 2 * DEADLINE_S if zone in lawful else PATIENCE_S for zone in self._topology.zones}
            wrong = await self._clients.verify(limits)
            unlawful = [zone for zone in self._topology.zones if zone not in lawful]
            report.unverified = {zone: what for zone, what in wrong.items() if zone in lawful} | {
                zone: f"it was to answer {NO_TARGET}, and {_answered(wrong.get(zone))}"
                for zone in unlawful
                if wrong.get(zone) != NO_TARGET
            }
            said.append(f"a write was read back in {', '.join(sorted(lawful - set(report.unverified)))}")
            said += [
                f"{zone} answers {NO_TARGET}, as the law has it"
                for zone in unlawful
                if zone not in report.unverified
            ]

    async def _recover(self, drilled: Outage) -> None:
        report, now_s = self._report, self._history.now_s
        with self._phase("recovery") as said:
            report.ended_s = round(now_s(), 3)
            self._note(report.ended_s, f"end: {report.injected}")
            seen = await asyncio.to_thread(drilled.injection.end, self._world)
            if seen:
                said.append(seen)
            done = Fault(
                drilled.name,
                drilled.injection.target,
                report.fault_s,
                report.ended_s,
                report.injected,
                report.bitten,
            )
            self._history.note_fault(done)
            if await asyncio.to_thread(wait_until, self._world.whole, _WHOLE_S, every_s=0.3):
                report.recovered_s = round(now_s() - report.ended_s, 2)
            said.append(
                "every region is ready" if report.recovered_s is not None else "not every region is ready"
            )

    async def _failback(self, drilled: Outage) -> str:
        if self._watch.agreed is None:
            return "skipped: no region answers GET /api/v1/failover"
        regions = {plan.region for plan in self._plans() if plan.fenced}
        if not regions:
            return "nothing was failed over"
        failover = self._topology.failover
        shares_s = len(failover.weights) * (failover.dwell_s + _SHARE_S)
        limit_s = _READMIT_S + failover.interval_s * failover.successes + shares_s
        await self._until(
            lambda: returned(self._agreed(), regions) or given_up(self._agreed(), regions), limit_s
        )
        if not returned(self._agreed(), regions):
            self._report.broken.append(f"failback: {where(self._agreed(), regions)}")
            return "not given back"
        closed_us = [plan.notes[-1].at_us for r in regions if (plan := self._agreed().last(r)) is not None]
        self._report.failback_s = round(self._watch.at_s(max(closed_us)) - self._report.ended_s, 2)
        return f"all shares are given back to {', '.join(sorted(regions))}"

    def _agreed(self) -> Agreed:
        return self._watch.agreed or Agreed()

    def _plans(self) -> list[Plan]:
        # What regions say is since when: clocks of one machine, and a plan is begun after its fault.
        return [plan for plan in self._watch.plans(self._report.fault_s) if plan.kind == "failover"]

    def _planned(self) -> bool:
        return all(plan.state != "open" for plan in self._plans())

    def _detected(self) -> str:
        plans = self._plans()
        if plans:
            at_s = self._watch.at_s(plans[0].begun_us)
            self._report.detection_s = round(at_s - self._report.fault_s, 2)
            return plans[0].cause
        return (
            "no plan was begun"
            if self._watch.agreed is not None
            else "no region answers GET /api/v1/failover"
        )

    def _lawful(self, drilled: Outage) -> set[str]:
        return {zone for zone in self._topology.zones if self._rights.serving(zone) - drilled.gone}

    def _calls(self, until_s: float) -> list[Call]:
        found = calls_of(self._history.operations, until_s=until_s)
        return [call for call in found if call.began_s >= self._measured_s]

    def _lately(self, seconds: float) -> list[Call]:
        """Return the calls of a stretch that ended so long ago that whatever was served has been."""
        now_s = self._history.now_s()
        begin_s, end_s = now_s - PATIENCE_S - seconds, now_s - PATIENCE_S
        # A message is acknowledged some time after it was sent, and its delivery begins only then.
        since_s = begin_s - DEADLINE_S
        newest = takewhile(lambda op: op.invoked_s >= since_s, reversed(self._history.operations))
        return [c for c in calls_of(list(newest), until_s=now_s) if begin_s <= c.began_s < end_s]

    def _well(self, zones: set[str]) -> bool:
        """Return whether all that began in a stretch of two seconds, two seconds ago, was served."""
        own = [call for call in self._lately(PATIENCE_S) if call.zone in zones]
        return all(call.served for call in own) and {call.zone for call in own} == zones

    def _ordinary(self) -> bool:
        """Return whether all zones are served, and no region is left or on its way back."""
        agreed = self._agreed()
        away = agreed.plans or agreed.shares.down or agreed.shares.weights
        return not away and self._well(set(self._topology.zones))

    async def _until(self, condition: Callable[[], object], timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(0.2)
        return True

    async def _show(self) -> None:
        while True:
            await asyncio.sleep(1)
            recent = self._lately(1)
            parts: list[str] = []
            for zone in self._topology.zones:
                own = [call for call in recent if call.zone == zone]
                failed = sum(not call.served for call in own)
                parts.append(f"{zone} {len(own) - failed} served" + (f", {failed} not" if failed else ""))
            self._tick(f"{self._history.now_s():6.1f} s  " + " | ".join(parts))

    async def _drain(self) -> None:
        """Wait until every message that was acknowledged has come."""
        with self._phase("draining"):
            await self._until(self._delivered, _DRAIN_S)

    def _delivered(self) -> bool:
        received = {op.key for op in self._history.operations if op.kind == "receive"}
        sent = {op.key for op in self._history.operations if op.kind == "append" and op.ok}
        return sent <= received

    def _lags(self) -> list[dict[str, Any]]:
        with self._world.databases() as found:
            return lags(self._topology, found, self._settings.steady_s)

    def _sum_up(self) -> None:
        report, topology = self._report, self._topology
        drilled = self._drilled
        lawful = self._lawful(drilled)
        calls = self._calls(report.seconds)
        report.zones = [
            zone_seen(
                zone,
                calls,
                lawful=zone in lawful,
                fault_s=report.fault_s,
                ended_s=report.ended_s,
                until_s=report.seconds,
            )
            for zone in topology.zones
        ]
        lag_s = max((row["p99_ms"] / 1000 for row in report.lag), default=None)
        report.numbers = numbers(
            report.zones,
            topology.objectives,
            lag_s=lag_s,
            canaries=report.canaries,
            found=report.canaries_found,
            misplaced=len(report.misplaced),
        )
        operations = self._history.operations
        report.acknowledged_messages = sum(op.ok and op.kind == "append" for op in operations)
        report.acknowledged_writes = sum(op.ok and op.kind in ("create", "add") for op in operations)
        report.repeats = sum(op.kind == "receive" and op.sent["attempt"] > 1 for op in operations)
        report.failover_s = next(n.value for n in report.numbers if n.name == "failover")
        report.events = sorted(self._watch.events, key=lambda event: event.at_s)
        happened(report, drilled, self._watch)


def _answered(what: str | None) -> str:
    return f"answered {what}" if what else "took a write"


def _most_telling(topology: Topology) -> str:
    """Return a region whose loss tries most: one of a pair, which must lose nothing that was acknowledged."""
    pairs = [pair for zone in topology.zones if (pair := topology.pair_of(zone))]
    return pairs[0][0] if pairs else topology.stacks()[0]
