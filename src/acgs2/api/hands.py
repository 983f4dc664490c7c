"""What the steps of a plan do: each either returns what came of it, or says what is in its way.

None of them changes traffic: that is part of the agreed value, with the plan itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from acgs2.api.actors import acted
from acgs2.api.views import View, measured
from acgs2.consensus import boottime_s
from acgs2.consensus.lease import MARGIN
from acgs2.errors import AcgsError, RefusedError, UnavailableError
from acgs2.plan import Circumstances, Judged, Plan, Step, StepKind, gate, readmit, retarget

if TYPE_CHECKING:
    from acgs2.api.region import RegionServer
    from acgs2.api.synthetic import Synthetic

__all__ = ["DownAgain", "Hands", "InTheWay"]

_POLL_S = 0.1
#: For how many looks a region that has its share may say nothing of itself.
_HEARD = 3
_ASKED_S = 0.4
_CONFIRM_S = 60.0
_INBOXES_S = 20.0
_VERIFY_S = 120.0
#: For how long what is outside may be away before its part of a plan is given up.
_OUTSIDE_S = 600.0


class InTheWay(Exception):
    """Why a plan does not go on."""


class DownAgain(InTheWay):
    """The region that was on its way back is down again."""


class Hands:
    """Carries out single steps for the leader.

    Args:
        server: the region that leads.
        synthetic: makes requests as clients do.
        circumstances: what is known now.
        views: what regions said of themselves last.
    """

    def __init__(
        self,
        server: RegionServer,
        synthetic: Synthetic,
        circumstances: Callable[[], Circumstances],
        views: Callable[[], Mapping[str, View]],
    ) -> None:
        self._server = server
        self._synthetic = synthetic
        self._circumstances = circumstances
        self._views = views
        #: Region to what its plan waits for.
        self.waits_for: dict[str, str] = {}
        #: When this leader first knew of a fence, by its CLOCK_BOOTTIME: the next one counts anew.
        self._fenced_s: dict[str, float] = {}
        #: Since when what is outside has not done its part, by plan and step.
        self._away_s: dict[tuple[str, int], float] = {}
        self._acts: Mapping[StepKind, Callable[[Plan, Step], Awaitable[str]]] = {
            StepKind.CONFIRM: self._confirm,
            StepKind.FENCE: self._fence,
            StepKind.INBOXES: self._inboxes,
            StepKind.VERIFY: self._verify,
            StepKind.HOLD_DOWN: self._hold_down,
            StepKind.READMIT: self._readmit,
            StepKind.WEIGHT: self._weight,
            StepKind.GATE: self._gate,
            StepKind.CLOSE: self._close,
        }

    async def act(self, plan: Plan, step: Step, leads: Callable[[], bool]) -> str:
        """Do a step and return what came of it.

        Args:
            plan: whose step it is.
            step: what to do.
            leads: whether this region leads in the same term still; else nothing more is done outside.

        Raises:
            InTheWay: the plan is to be stopped.
            UnavailableError: it can be tried again.
        """
        try:
            said = [await act(plan, step)] if (act := self._acts.get(step.kind)) is not None else []
            return "; ".join([*said, *await self._outside(plan, step, leads)])
        finally:
            self.waits_for.pop(plan.region, None)

    async def _outside(self, plan: Plan, step: Step, leads: Callable[[], bool]) -> list[str]:
        """Have whoever acts on the world outside do its part, for whoever takes over by what is known now."""
        known = (plan.id, plan.at)
        judged = self._circumstances().judged.get(step.target)
        if step.kind in (StepKind.CAPACITY, StepKind.MESH) and judged is not None and judged.state == "down":
            return [f"{step.target} is away itself"]
        if step.kind is StepKind.DATABASE and not (step := self._now(plan, step)).target:
            return [f"nobody may take over zone {step.zone} any more"]
        try:
            said = await acted(self._server.actors, plan, step, dry_run=False, leads=leads)
        except UnavailableError as error:
            if boottime_s() - self._away_s.setdefault(known, boottime_s()) > _OUTSIDE_S:
                raise InTheWay(error.message) from error
            raise
        self._away_s.pop(known, None)
        return said

    async def _confirm(self, plan: Plan, _: Step) -> str:
        if plan.by:
            return "an operator decided"
        deadline_s = boottime_s() + _CONFIRM_S
        while True:
            judged = self._held(plan)
            if judged is not None and judged.state == "down":
                return judged.why
            why = judged.why if judged is not None else "nothing is heard of it"
            # That a majority was not heard lately says nothing: one that is well will be seen to be up.
            if (judged is not None and judged.state == "up") or boottime_s() > deadline_s:
                raise InTheWay(f"{plan.region} is not down any more: {why}")
            self.waits_for[plan.region] = why
            await asyncio.sleep(_POLL_S)

    async def _fence(self, plan: Plan, _: Step) -> str:
        """See to it that the region cannot govern any more; where nothing is promoted nobody has to wait."""
        self._fenced_s[plan.id] = boottime_s()
        if any(step.kind is StepKind.DATABASE for step in plan.steps):
            return await self._over(plan)
        return "it takes no part any more, and stops governing within a lease"

    async def _over(self, plan: Plan) -> str:
        """Wait until the region says that it is fenced, or its lease has run out for certain."""
        began_s = self._fenced_s.setdefault(plan.id, boottime_s())
        lease_s = MARGIN * self._server.governance.lease_s
        while (waited_s := boottime_s() - began_s) < lease_s:
            view = self._views().get(plan.region)
            if view is not None and view.fenced and view.heard_s >= began_s:
                return f"it knows that it is fenced, after {waited_s:.1f} s"
            await asyncio.sleep(_POLL_S)
        return f"its serving lease cannot run any more, after {lease_s:.1f} s"

    def _now(self, plan: Plan, step: Step) -> Step:
        """Return a step about whoever takes its zone over by what is known now."""
        if plan.kind != "failover":
            return step
        return retarget(step, plan.region, self._circumstances())

    def _held(self, plan: Plan) -> Judged | None:
        """Return what a majority holds of a plan's region now, None if nothing is heard."""
        return self._circumstances().judged.get(plan.region)

    async def _inboxes(self, plan: Plan, step: Step) -> str:
        """Wait until another region serves the zone's inboxes; which one, is theirs to agree on."""
        deadline_s = boottime_s() + _INBOXES_S
        while boottime_s() < deadline_s:
            if not self._now(plan, step).target:
                return f"nobody may serve them: {step.target} is away itself"
            value = (await self._server.register.read(f"inbox/{step.zone}")).value or {}
            holder = value.get("holder")
            if holder not in (None, plan.region):
                return f"served by {holder} in generation {value['term']}"
            await asyncio.sleep(_POLL_S)
        raise InTheWay(f"nobody took over the inboxes of zone {step.zone} in {_INBOXES_S:g} s")

    async def _verify(self, plan: Plan, step: Step) -> str:
        """Write and read through the edge as a client does; or see it refuse, where the law leaves nobody."""
        deadline_s = boottime_s() + _VERIFY_S
        while True:
            try:
                return await self._synthetic.verify(plan, self._now(plan, step))
            except UnavailableError as error:
                judged = self._held(plan)
                asked_for = plan.kind == "failback" or bool(plan.by)
                if judged is not None and judged.state == "up" and not asked_for:
                    # Whoever was to take over is away itself: the region is let in again instead.
                    raise InTheWay(f"{plan.region} is up again. {error.message}") from error
                if boottime_s() > deadline_s:
                    raise InTheWay(error.message) from error
                self.waits_for[plan.region] = error.message
                await asyncio.sleep(_POLL_S)

    async def _hold_down(self, plan: Plan, _: Step) -> str:
        while True:
            self._still_up(plan)
            judged = self._held(plan)
            if judged is not None and judged.state == "up":
                return judged.why
            self.waits_for[plan.region] = judged.why if judged is not None else "nothing is heard of it"
            await asyncio.sleep(_POLL_S)

    async def _readmit(self, plan: Plan, _: Step) -> str:
        """Wait until the region has all that it must have, for as long as it is up."""
        while True:
            self._still_up(plan)
            view = self._views().get(plan.region)
            lacking = ["nothing is heard of it"]
            if view is not None and view.fresh(self._server.topology.failover.interval_s):
                lacking = await self._lacking(plan, view)
                left = plan.region in self._server.participation.agreed.traffic.down
                if left and not view.fenced:  # what it says of itself does not count from when it was left
                    lacking.append("it does not know yet that it was left")
                if not lacking:
                    return "ready, seeded, level, equal to the others, and governed by what is in force"
            self.waits_for[plan.region] = "; ".join(lacking)
            await asyncio.sleep(_ASKED_S)

    async def _lacking(self, plan: Plan, view: View) -> list[str]:
        """Return what a region lacks to take part."""
        # Asked of a majority: who leads may be behind itself.
        in_force = dict(await self._server.governance.documents.read_pointer())
        drained = plan.region in self._server.participation.agreed.operator.down
        standing = msgspec.structs.replace(view.standing, in_force=in_force, drained=drained)
        return list(readmit(standing, self._server.topology))

    async def _lacking_still(self, plan: Plan) -> list[str]:
        """Return what a region still lacks a few looks later: what is in force may have changed just now."""
        deadline_s = boottime_s() + _HEARD * self._server.topology.failover.interval_s
        while (
            lacking := await self._lacking(plan, self._views()[plan.region])
        ) and boottime_s() < deadline_s:
            self._still_up(plan)
            await asyncio.sleep(_ASKED_S)
        return lacking

    def _still_up(self, plan: Plan) -> None:
        """Raise DownAgain if a region is down again."""
        judged = self._held(plan)
        if judged is not None and judged.state == "down":
            raise DownAgain(f"{plan.region} is down again: {judged.why}")

    async def _weight(self, plan: Plan, step: Step) -> str:
        return f"{plan.region} takes {step.value} % of what reaches it"

    async def _gate(self, plan: Plan, step: Step) -> str:
        """Let the region have its share for a while, and look at how it did."""
        topology = self._server.topology
        zones = [z for z, zone in topology.zones.items() if plan.region in zone.regions]
        before = await self._heard_again(plan, {})
        until_s = boottime_s() + topology.failover.dwell_s
        while boottime_s() < until_s:
            self._still_up(plan)
            await asyncio.sleep(_POLL_S)
        after = await self._heard_again(plan, before)
        if plan.region not in before or plan.region not in after:
            raise InTheWay(f"{plan.region} said nothing of itself meanwhile")
        # A region that falls silent makes this one seem behind for a moment: the last look at lag counts.
        lacking = await self._lacking_still(plan)
        lag_s = self._views()[plan.region].standing.lag_s
        seen = msgspec.structs.replace(measured(before, after, plan.region, zones), lag_s=lag_s)
        if found := [*gate(seen, step.value, topology), *lacking]:
            raise InTheWay("; ".join(dict.fromkeys(found)))
        share = f"{seen.reads / seen.reads_of_zones:.0%}" if seen.reads_of_zones else "none"
        return (
            f"{seen.requests} requests, {seen.errors} errors, p99 {seen.p99_ms:.0f} ms, "
            f"{share} of the reads of its zones, {seen.lag_s:.2f} s behind"
        )

    async def _heard_again(self, plan: Plan, before: Mapping[str, View]) -> Mapping[str, View]:
        """Return what regions say now, the plan's among them only if it has said something since."""
        since_s = before[plan.region].heard_s if plan.region in before else 0.0
        interval_s = self._server.topology.failover.interval_s
        deadline_s = boottime_s() + _HEARD * interval_s
        while True:
            views = dict(self._views())
            own = views.get(plan.region)
            if own is not None and own.heard_s > since_s and own.fresh(interval_s):
                return views
            if boottime_s() > deadline_s:
                return {name: view for name, view in views.items() if name != plan.region}
            self._still_up(plan)
            await asyncio.sleep(_POLL_S)

    async def _close(self, plan: Plan, _: Step) -> str:
        over = await self._over(plan) if plan.kind == "failover" else ""
        self._fenced_s.pop(plan.id, None)
        took_s = time.time() - plan.begun_us / 1e6
        return f"{plan.kind} of {plan.region} took {took_s:.1f} s" + (f"; {over}" if over else "")


def to_be_tried_again(error: Exception) -> bool:
    """Return whether a step that failed this way may be tried again by the same leader."""
    if isinstance(error, RefusedError):
        return False
    return isinstance(error, UnavailableError | httpx.HTTPError | OSError | TimeoutError)


def unknown(error: Any) -> str:
    """Return an error as a reason."""
    return error.message if isinstance(error, AcgsError) else f"{type(error).__name__}: {error}"
