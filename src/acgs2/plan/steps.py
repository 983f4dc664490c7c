"""A plan as it is carried out: steps, one after the other, each done once. Pure.

The plan and what the edge goes by are one agreed value: that a step is done and what it does to traffic are
one compare-and-set, so whoever leads next goes on where the last one was, and repeats nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Literal

import msgspec

__all__ = ["Agreed", "Choice", "Note", "Plan", "Shares", "Step", "StepKind", "agreed_of", "document_of"]

_CLOSED_KEPT = 8


class StepKind(StrEnum):
    """What a step does."""

    CONFIRM = "confirm"
    FENCE = "fence"
    CAPACITY = "capacity"
    MESH = "mesh"
    DATABASE = "database"
    INBOXES = "inboxes"
    VERIFY = "verify"
    HOLD_DOWN = "hold-down"
    READMIT = "readmit"
    WEIGHT = "weight"
    GATE = "gate"
    CLOSE = "close"


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step: about a zone and a region where it names them.

    `value` is a share in percent, or to how many nodes the target grows.
    """

    kind: StepKind
    zone: str = ""
    target: str = ""
    value: int = 0


class Candidate(msgspec.Struct, frozen=True):
    """A region that could have taken a zone over, and why it was chosen or not."""

    region: str
    chosen: bool
    why: str


class Choice(msgspec.Struct, frozen=True):
    """Where a zone is served from now on; no target where the law leaves none."""

    zone: str
    target: str | None
    candidates: tuple[Candidate, ...] = ()


class Note(msgspec.Struct, frozen=True):
    """When a step was done (µs since the epoch), by whom, under which term, and what came of it."""

    step: int
    at_us: int
    by: str
    term: int
    said: str = ""
    good: bool = True


class Shares(msgspec.Struct, frozen=True):
    """Regions that take no part, and which percentage others take of what reaches them: else 100."""

    down: tuple[str, ...] = ()
    weights: dict[str, int] = {}

    @property
    def health(self) -> Mapping[str, bool]:
        """Return the same as the routing decision takes it."""
        return dict.fromkeys(self.down, False)

    def without(self, region: str) -> Shares:
        """Return the same with a region taking no part."""
        weights = {r: w for r, w in self.weights.items() if r != region}
        return Shares(tuple(sorted({*self.down, region})), weights)

    def giving(self, region: str, weight: int) -> Shares:
        """Return the same with a region taking a share."""
        weights = {r: w for r, w in self.weights.items() if r != region}
        return Shares(
            tuple(r for r in self.down if r != region), weights | ({region: weight} if weight != 100 else {})
        )


class Plan(msgspec.Struct, frozen=True):
    """A failover or a failback of one region, and how far it is.

    `at` is the number of the current step. A stopped plan is over as well: `why` says what was in its way.
    `by` is the operator who began it; nobody's is what the region that leads began by itself. `relapsed` is
    a failback that was stopped because its region was down again: the next one may begin unasked.
    """

    id: str
    kind: Literal["failover", "failback"]
    region: str
    cause: str
    begun_us: int
    steps: tuple[Step, ...]
    choices: tuple[Choice, ...] = ()
    at: int = 0
    state: Literal["open", "closed", "stopped"] = "open"
    why: str = ""
    notes: tuple[Note, ...] = ()
    by: str = ""
    relapsed: bool = False

    @property
    def current(self) -> Step | None:
        """Return the step that is to be done now, None when it is over."""
        return self.steps[self.at] if self.state == "open" else None

    @property
    def fenced(self) -> bool:
        """Return whether it is a failover that has taken its region out; before that nothing is done."""
        return self.kind == "failover" and any(s.kind is StepKind.FENCE for s in self.steps[: self.at + 1])

    def check_invariants(self) -> None:
        """Raise AssertionError where this is no plan that could have come about."""
        assert 0 <= self.at < len(self.steps), "the current step exists"
        assert self.steps[-1].kind is StepKind.CLOSE, "a plan ends by being closed"
        assert (self.state == "closed") == (
            self.at == len(self.steps) - 1 and any(n.step == self.at for n in self.notes)
        ), "closed means that the last step is done"
        done = [note.step for note in self.notes if note.good]
        assert done == sorted(set(done)), "a step is done once, in order"
        assert done == list(range(len(done))), "no step is left out"
        assert self.state == "stopped" or len(done) == self.at + (self.state == "closed"), (
            "what is before the current step is done"
        )
        weights = [step.value for step in self.steps if step.kind is StepKind.WEIGHT]
        assert weights == sorted(weights), "shares only rise"
        if self.kind == "failover":
            kinds = [step.kind for step in self.steps]
            fence = kinds.index(StepKind.FENCE)
            late = [k for k in kinds[:fence] if k is not StepKind.CONFIRM]
            assert not late, "nothing is done before the region is fenced"

    def effect(self, shares: Shares) -> Shares:
        """Return what traffic goes by once the current step is the current one; safe to repeat."""
        step = self.current
        if step is None:
            return shares
        if step.kind is StepKind.FENCE:
            return shares.without(self.region)
        if step.kind is StepKind.WEIGHT:
            return shares.giving(self.region, step.value)
        return shares


class Agreed(msgspec.Struct, frozen=True):
    """All that is agreed on about where traffic goes: what plans did, what operators set, and the plans.

    `served` are regions that were seen to serve once: one that never came up is not failed over from.
    Every change is from one such value to the next; one that was made already changes nothing.
    """

    traffic: Shares = Shares()
    operator: Shares = Shares()
    served: tuple[str, ...] = ()
    plans: dict[str, Plan] = {}
    closed: tuple[Plan, ...] = ()

    @property
    def shares(self) -> Shares:
        """Return what the edge goes by: whom either takes out is out; of two shares the smaller counts."""
        weights = dict(self.traffic.weights)
        for region, weight in self.operator.weights.items():
            weights[region] = min(weight, weights.get(region, 100))
        return Shares(tuple(sorted({*self.traffic.down, *self.operator.down})), weights)

    def last(self, region: str) -> Plan | None:
        """Return the last plan of a region that is over."""
        return next((plan for plan in reversed(self.closed) if plan.region == region), None)

    def opened(self, plan: Plan) -> Agreed:
        """Begin a plan; a failover stops a failback of its region, all else that is open stays."""
        had = self.plans.get(plan.region)
        if had is not None and plan.kind in (had.kind, "failback"):
            return self
        if any(plan.id == other.id for other in self.closed):
            return self
        why = f"it is left again: {plan.cause}"
        base = self if had is None else self._over(_stopped(had, why, relapsed=not plan.by))
        return msgspec.structs.replace(
            base, plans={**base.plans, plan.region: plan}, traffic=plan.effect(base.traffic)
        )

    def advanced(self, plan: Plan, note: Note) -> Agreed:
        """Note the current step of a plan as done and go on to the next, with what that does to traffic."""
        known = self._known(plan)
        if known is None:
            return self
        if known.at == len(known.steps) - 1:
            return self._over(msgspec.structs.replace(known, state="closed", notes=(*known.notes, note)))
        following = msgspec.structs.replace(known, at=known.at + 1, notes=(*known.notes, note))
        return msgspec.structs.replace(
            self,
            plans={**self.plans, known.region: following},
            traffic=following.effect(self.traffic),
        )

    def stopped(self, plan: Plan, note: Note, *, relapsed: bool = False) -> Agreed:
        """Give a plan up at its current step; a failback goes back to the last good share.

        Args:
            plan: as the caller knows it; if it has gone on since, nothing changes.
            note: at which step, by whom and why.
            relapsed: whether its region is down again.
        """
        known = self._known(plan)
        if known is None:
            return self
        known = msgspec.structs.replace(known, notes=(*known.notes, note))
        over = self._over(_stopped(known, note.said, relapsed=relapsed))
        if known.kind == "failover":
            return over
        good = _last_good(known)
        traffic = over.traffic.giving(known.region, good) if good else over.traffic.without(known.region)
        return msgspec.structs.replace(over, traffic=traffic)

    def serving(self, regions: Collection[str]) -> Agreed:
        """Note that regions were seen to serve."""
        return msgspec.structs.replace(self, served=tuple(sorted({*self.served, *regions})))

    def set_by_operator(self, shares: Shares) -> Agreed:
        """Take over what operators want."""
        return msgspec.structs.replace(self, operator=shares)

    def check_invariants(self) -> None:
        """Raise AssertionError where this is no value that could have come about."""
        for region, plan in self.plans.items():
            plan.check_invariants()
            assert plan.region == region, "a plan is kept under its region"
            assert plan.state == "open", "what is over is not among the open ones"
            if plan.fenced:
                assert region in self.traffic.down, "whom a failover has fenced takes no part"
        assert not {*self.traffic.down} & {*self.traffic.weights}, "who takes no part has no share"
        assert all(plan.state != "open" for plan in self.closed), "what is over is over"

    def _known(self, plan: Plan) -> Plan | None:
        """Return the plan as it is agreed, if that is where the caller thinks it is."""
        known = self.plans.get(plan.region)
        return known if known is not None and (known.id, known.at) == (plan.id, plan.at) else None

    def _over(self, plan: Plan) -> Agreed:
        open_plans = {r: p for r, p in self.plans.items() if r != plan.region}
        over = (*self.closed, plan)
        # The last of a region is never forgotten: it says whether the region comes back unasked.
        last = {p.region: p.id for p in over}
        older = [p for p in over[:-_CLOSED_KEPT] if last[p.region] == p.id]
        return msgspec.structs.replace(self, plans=open_plans, closed=(*older, *over[-_CLOSED_KEPT:]))


def _stopped(plan: Plan, why: str, *, relapsed: bool) -> Plan:
    return msgspec.structs.replace(plan, state="stopped", why=why, relapsed=relapsed)


def _last_good(plan: Plan) -> int:
    """Return the last share whose gate was passed, 0 if none was."""
    passed = [s.value for s in plan.steps[: plan.at] if s.kind is StepKind.GATE]
    return passed[-1] if passed else 0


def document_of(agreed: Agreed) -> Any:
    """Return the value as plain JSON values."""
    return msgspec.to_builtins(agreed)


def agreed_of(document: Mapping[str, Any] | None) -> Agreed:
    """Return the value that a document says; nothing was ever agreed on where there is none.

    Raises:
        msgspec.ValidationError: it is none of ours.
    """
    return msgspec.convert(document, Agreed) if document is not None else Agreed()
