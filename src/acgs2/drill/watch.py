"""What regions say of themselves and of each other while a drill runs, and when it changed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from acgs2.api.tokens import mint
from acgs2.drill.leaders import Claim
from acgs2.drill.report import Event
from acgs2.local.state import State
from acgs2.plan import Agreed, Plan, agreed_of

__all__ = ["Watch", "plan_events"]

_EVERY_S = 0.4
_ASK_S = 1.0
_LIFETIME_S = 12 * 3600
#: What never comes twice in a row, per region: whether it is ready, whether it governs.
Said = Mapping[str, Any]


class Watch:
    """Looks at every region a few times a second, past links and gateways, and keeps what changed.

    Args:
        state: of a running cluster.
        now_s: the drill's clock.
        say: told every change.
    """

    def __init__(self, state: State, now_s: Callable[[], float], say: Callable[[Event], None]) -> None:
        self._state = state
        self._now_s = now_s
        self._say = say
        self._epoch_s = time.time() - now_s()
        self._known: dict[str, str] = {}
        self._noted: set[tuple[str, int]] = set()
        self.events: list[Event] = []
        #: What is agreed about traffic; None where no region says so, as releases without a controller do.
        self.agreed: Agreed | None = None
        self.judged: Mapping[str, Any] = {}
        self.leader = ""
        self.claims: list[Claim] = []
        token = mint(
            state.path / "secrets" / "signing.json",
            "watch@drill",
            "operator",
            state.topology.name,
            int(time.time()),
            lifetime_s=_LIFETIME_S,
        )
        self._headers = {"authorization": f"Bearer {token}"}

    def at_s(self, at_us: int) -> float:
        """Return a moment since the epoch on the drill's clock."""
        return at_us / 1e6 - self._epoch_s

    def plans(self, since_s: float) -> list[Plan]:
        """Return the plans, open ones too, that were begun since a moment."""
        if self.agreed is None:
            return []
        found = [*self.agreed.closed, *self.agreed.plans.values()]
        return sorted((p for p in found if self.at_s(p.begun_us) >= since_s), key=lambda p: p.begun_us)

    async def run(self) -> None:
        """Look until cancelled."""
        client = httpx.AsyncClient(trust_env=False, timeout=_ASK_S, headers=self._headers)
        async with client as http, asyncio.TaskGroup() as group:
            for region in self._state.topology.regions:
                group.create_task(self._region(http, region))
            group.create_task(self._agreed(http))
            group.create_task(self._inboxes(http))

    async def _get(self, http: httpx.AsyncClient, region: str, path: str) -> httpx.Response | None:
        try:
            return await http.get(self._state.url(region) + path)
        except httpx.HTTPError:
            return None

    async def _region(self, http: httpx.AsyncClient, region: str) -> None:
        while True:
            asked_s = self._now_s()
            answer = await self._get(http, region, "/health")
            body = answer.json() if answer is not None else {}
            missing = ", ".join(name for name, well in body.get("checks", {}).items() if not well)
            state = "does not answer" if not body else f"is not ready: {missing}" if missing else "is ready"
            self._changed(f"{region} state", region, f"{region} {state}")
            if body:
                governs = body.get("governance", {}).get("serving")
                self._changed(
                    f"{region} governs", region, f"{region} {'governs' if governs else 'does not govern'}"
                )
                for zone in self._state.topology.zones:
                    how = "alone, as agreed" if zone in body.get("alone", {}) else "with its pair"
                    if region in self._state.topology.pair_of(zone):
                        what = f"{region} acknowledges zone {zone} {how}"
                        self._changed(f"{zone} alone in {region}", region, what)
                leader = body.get("leader", {})
                if leader.get("held_here"):
                    self.leader = region
                    self.claims.append(Claim(asked_s, self._now_s(), region, leader["term"]))
                    self._changed("leader", region, f"{region} leads, term {leader['term']}")
            await asyncio.sleep(_EVERY_S)

    async def _agreed(self, http: httpx.AsyncClient) -> None:
        while True:
            regions = self._state.topology.regions
            answers = await asyncio.gather(*(self._get(http, r, "/api/v1/failover") for r in regions))
            bodies = {
                region: answer.json()
                for region, answer in zip(regions, answers, strict=True)
                if answer is not None and answer.status_code == 200
            }
            if bodies:
                # The newest of what is agreed is what is agreed; who leads judges.
                self.agreed = agreed_of(max(bodies.values(), key=lambda body: body["version"])["agreed"])
                judged = [body["judged"] for region, body in bodies.items() if body["leader"] == region]
                self.judged = judged[0] if judged else self.judged
                self._learn()
            await asyncio.sleep(_EVERY_S)

    def _learn(self) -> None:
        assert self.agreed is not None
        for region, judged in self.judged.items():
            if judged.get("state") != "unsure":
                self._changed(f"{region} judged", region, f"{region} is held to be {judged.get('state')}")
        for plan in (*self.agreed.closed, *self.agreed.plans.values()):
            for event in plan_events(plan, self.at_s):
                key = (plan.id, event.step)
                if event.at_s >= 0 and key not in self._noted:
                    self._noted.add(key)
                    self._add(event)

    async def _inboxes(self, http: httpx.AsyncClient) -> None:
        newest: dict[str, int] = {}
        while True:
            for region in self._state.topology.stacks():
                answer = await self._get(http, region, "/api/v1/inboxes")
                rows = answer.json()["zones"] if answer is not None and answer.status_code == 200 else []
                for row in rows:
                    if row["generation"] > newest.get(row["zone"], 0):
                        newest[row["zone"]] = row["generation"]
                        what = f"inboxes of {row['zone']} are served by {row['region']}"
                        self._changed(f"{row['zone']} inboxes", row["region"], what)
            await asyncio.sleep(_EVERY_S)

    def _changed(self, key: str, region: str, what: str) -> None:
        before = self._known.get(key)
        self._known[key] = what
        # What was so when it was first looked is how things are, and not an event.
        if before is not None and before != what:
            self._add(Event(round(self._now_s(), 2), "seen", region, what))

    def _add(self, event: Event) -> None:
        self.events.append(event)
        with contextlib.suppress(RuntimeError):
            self._say(event)


def plan_events(plan: Plan, at_s: Callable[[int], float]) -> list[Event]:
    """Return a plan's beginning and its steps as events on the drill's clock; `step` tells them apart."""
    begun = Event(
        round(at_s(plan.begun_us), 2), "plan", plan.region, f"{plan.kind} begun: {plan.cause}", step=-1
    )
    events = [begun]
    for note in plan.notes:
        step = plan.steps[note.step]
        about = " ".join(str(x) for x in (step.kind, step.zone, step.target, step.value or "") if x)
        said = f": {note.said}" if note.said else ""
        what = f"{plan.kind} {about}{said}" if note.good else f"{plan.kind} stopped at {about}{said}"
        events.append(Event(round(at_s(note.at_us), 2), "plan", plan.region, what, step=note.step))
    return events
