"""Begins plans and carries them out, in the region that leads and in no other.

What is decided is pure (acgs2.plan); what is agreed is one value of the register. The leader asks
`leader.held(term)` before a step and again before it notes that it is done: whoever leads next goes on from
what is agreed, and a note about a step that is past changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

from acgs2.api.actors import acted
from acgs2.api.audited import audit
from acgs2.api.hands import DownAgain, Hands, InTheWay, to_be_tried_again, unknown
from acgs2.api.observers import told
from acgs2.api.synthetic import Synthetic
from acgs2.api.views import Views, lags_s
from acgs2.consensus import boottime_s
from acgs2.errors import UnavailableError
from acgs2.logs.write import get_logger
from acgs2.plan import (
    Agreed,
    Circumstances,
    Judged,
    Note,
    Plan,
    StepKind,
    due,
    failback,
    failover,
    judge,
)

if TYPE_CHECKING:
    from acgs2.api.region import RegionServer

__all__ = ["Controller", "run_controller"]

_LOG = get_logger("acgs2.failover")
_TICK_S = 0.25
_AGAIN_S = 0.5
#: For how long after its own start a region begins no plan by itself.
_STARTING_S = 15.0


class Controller:
    """One region's part in failover: idle until it leads."""

    def __init__(self, server: RegionServer) -> None:
        self._server = server
        self.views = Views(server.neighbours)
        self.judged: Mapping[str, Judged] = {}
        self._synthetic = Synthetic(server)
        self._hands = Hands(server, self._synthetic, self._circumstances, lambda: self.views.known)
        self._began_s = boottime_s()
        self._carrying: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._leaves: set[asyncio.Task[None]] = set()
        #: The term in which this region has heard all that those who led before it have agreed on.
        self._heard_in = 0

    @property
    def waits_for(self) -> Mapping[str, str]:
        """Return what the plan of a region waits for, where it waits."""
        return self._hands.waits_for

    async def step(self) -> None:
        """Begin what is to be begun, and see to it that every plan is carried out.

        What is agreed is asked for once a term. From then on this region knows its own changes at once, and
        those of operators in other regions within a look of `run_standing`. What it begins meanwhile rests on
        what is that old, and is judged anew by the compare-and-set that opens it.

        Raises:
            UnavailableError: no majority answers.
        """
        server = self._server
        if not server.leader.held():
            self._drop()
            return
        term = server.leader.term
        if self._heard_in != term:
            await server.participation.look()
            self._heard_in = term
        if server.topology.failover.automatic:
            await self._begin(server.participation.agreed, term)
        for plan in server.participation.agreed.plans.values():
            known = self._carrying.get(plan.region)
            if known is None or known[0] != plan.id or known[1].done():
                if known is not None:
                    known[1].cancel()
                task = asyncio.create_task(self._carry(plan, term))
                self._carrying[plan.region] = (plan.id, task)

    async def watch(self) -> None:
        """Keep what is held of regions fresh; who does not lead holds nothing of them."""
        if self._server.leader.held():
            await self.look()
        else:
            self.judged = {}

    async def look(self) -> None:
        """Judge all regions by what is known, and ask all anew."""
        server = self._server
        self.views.take(await told(server), boottime_s())
        self.views.ask()
        voters = server.members()
        self.judged = judge(
            voters, server.topology.regions, self.views.observations(), server.topology.failover
        )

    def plan(
        self,
        kind: str,
        region: str,
        agreed: Agreed,
        cause: str,
        *,
        by: str = "",
        outside: Collection[StepKind] = (),
    ) -> Plan:
        """Return the plan of a failover or failback as it would be begun now; raises InputError.

        `by` is the operator who asks for it, `outside` are steps that others than this server's actors would
        carry out.
        """
        topology, now_us = self._server.topology, time.time_ns() // 1000
        plan_id = str(uuid4())
        if kind == "failback":
            return failback(region, topology, plan_id=plan_id, now_us=now_us, cause=cause, by=by)
        return failover(
            region,
            self._circumstances(agreed),
            plan_id=plan_id,
            now_us=now_us,
            cause=cause,
            by=by,
            outside={kind for actor in self._server.actors for kind in actor.kinds} | {*outside},
        )

    async def begin(self, plan: Plan) -> Agreed:
        """Agree on a plan; raises UnavailableError."""
        ended: Plan | None = None

        def opened(known: Agreed) -> Agreed:
            nonlocal ended
            then = known.opened(plan)
            if then is not known:
                ended = known.plans.get(plan.region)
            return then

        _, agreed = await self._server.participation.change(opened)
        if agreed.plans.get(plan.region) == plan:
            _LOG.warning("plan-begun", plan=plan.id, kind=plan.kind, region=plan.region, cause=plan.cause)
            for over in (p for p in agreed.closed if ended is not None and p.id == ended.id):
                self._leave(over, over.state, over.why)
            self._leave(plan, "begun", plan.cause)
        return agreed

    async def rehearse(self, plan: Plan) -> list[str]:
        """Return what a plan would do outside, call by call; nothing is done."""
        actors = self._server.actors
        return [line for step in plan.steps for line in await acted(actors, plan, step, dry_run=True)]

    async def _begin(self, agreed: Agreed, term: int) -> None:
        server = self._server
        new = {r for r in server.topology.stacks() if r in self.judged and self.judged[r].state == "up"}
        if new - {*agreed.served}:
            _, agreed = await server.participation.change(lambda known: known.serving(new))
        if boottime_s() - self._began_s < _STARTING_S:
            return  # who has just started may have started with all others
        for region in server.topology.stacks():
            judged = self.judged.get(region)
            if judged is None or not server.leader.held(term):
                continue
            if (kind := due(agreed, judged)) is not None:
                await self.begin(self.plan(kind, region, agreed, judged.why))

    async def _carry(self, plan: Plan, term: int) -> None:
        """Carry a plan out, step by step, for as long as this region leads in this term."""
        server = self._server
        while (step := plan.current) is not None and server.leader.held(term):
            good, relapsed = True, False
            try:
                said = await self._hands.act(plan, step, lambda: server.leader.held(term))
            except InTheWay as reason:
                said, good, relapsed = str(reason), False, isinstance(reason, DownAgain)
            except Exception as error:  # noqa: BLE001 - whatever a step or an actor says ends in the plan
                if not to_be_tried_again(error):
                    said, good = unknown(error), False
                else:
                    _LOG.info("step-again", plan=plan.id, step=step.kind, error=unknown(error))
                    await asyncio.sleep(_AGAIN_S)
                    continue
            if not server.leader.held(term):
                return
            note = Note(plan.at, time.time_ns() // 1000, server.region, term, said, good)
            try:
                _, agreed = await server.participation.change(_noting(plan, note, relapsed))
            except UnavailableError as error:
                _LOG.info("step-not-agreed", plan=plan.id, step=step.kind, error=error.reference)
                await asyncio.sleep(_AGAIN_S)
                continue
            _LOG.warning(
                "step-done" if good else "plan-stopped",
                plan=plan.id,
                region=plan.region,
                step=step.kind,
                zone=step.zone,
                target=step.target,
                said=said,
            )
            following = agreed.plans.get(plan.region)
            if following is None or following.id != plan.id:
                # What was stopped by a failover that began meanwhile has its leaf from there.
                for over in (p for p in agreed.closed if p.id == plan.id and note in p.notes):
                    self._leave(over, over.state, over.why or said)
                return
            plan = following

    def _leave(self, plan: Plan, what: str, why: str) -> None:
        """Have a leaf written of how a plan began or ended.

        Nobody waits for it: with its database away, the region that leads would stand still.
        """
        leaf = asyncio.create_task(self._audit(plan, what, why))
        self._leaves.add(leaf)
        leaf.add_done_callback(self._leaves.discard)

    async def _audit(self, plan: Plan, what: str, why: str) -> None:
        """Leave the leaf; the plan itself is agreed on, and stands without."""
        body = {
            "by": plan.by,
            "cause": plan.cause,
            "kind": plan.kind,
            "plan": plan.id,
            "region": plan.region,
            "targets": {choice.zone: choice.target for choice in plan.choices},
            "what": what,
            "why": why,
        }
        try:
            async with self._server.pool.connection() as conn:
                await audit(conn, "failover", None, body)
        except psycopg.Error as error:
            _LOG.warning("plan-not-audited", plan=plan.id, error=type(error).__name__)

    def _circumstances(self, agreed: Agreed | None = None) -> Circumstances:
        """Return what is known now, with what is agreed as this region last heard it, or as it is given."""
        server = self._server
        shares = (agreed or server.participation.agreed).shares
        return Circumstances(server.topology, server.rights, self.judged, shares, lags_s(self.views.known))

    def _drop(self) -> None:
        for _, task in self._carrying.values():
            task.cancel()
        self._carrying.clear()

    async def close(self) -> None:
        """Carry nothing out any more."""
        self._drop()
        await asyncio.gather(*self._leaves, return_exceptions=True)
        await self.views.close()
        await self._synthetic.close()


def _noting(plan: Plan, note: Note, relapsed: bool) -> Callable[[Agreed], Agreed]:
    """Return the change that a step makes: the plan goes on, or it is stopped."""
    if note.good:
        return lambda known: known.advanced(plan, note)
    return lambda known: known.stopped(plan, note, relapsed=relapsed)


async def run_controller(server: RegionServer) -> None:
    """Do what the leader does until cancelled; others wait."""
    controller = server.controller
    try:
        async with asyncio.TaskGroup() as group:
            # Beside each other: what is held of regions does not grow old while a majority is waited for.
            group.create_task(_again_and_again(controller.watch))
            group.create_task(_again_and_again(controller.step))
    finally:
        await controller.close()


async def _again_and_again(act: Callable[[], Awaitable[None]]) -> None:
    while True:
        began_s = boottime_s()
        with contextlib.suppress(UnavailableError):
            await act()
        await asyncio.sleep(max(0.05, began_s + _TICK_S - boottime_s()))
