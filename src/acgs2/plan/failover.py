"""Which steps take a region's service elsewhere, and where: only where the law allows. Pure.

The guide's script asked one probe, moved all data to one region and promoted a database. Here a majority
decides, a target is lawful for its zone or there is none, and the region is fenced before anything else
is done.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from acgs2.errors import InputError
from acgs2.plan.observations import Judged
from acgs2.plan.rights import Rights
from acgs2.plan.steps import Agreed, Candidate, Choice, Plan, Shares, Step, StepKind
from acgs2.topology import Topology

__all__ = ["Circumstances", "choose", "due", "failover", "retarget", "zones_of"]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """By what a target is chosen, as far as it is known at one moment.

    Args:
        topology: regions, zones and limits.
        rights: who may hold what.
        judged: what a majority holds of every region.
        shares: who takes no part already.
        lag_s: how far a region is behind, where that is known.
    """

    topology: Topology
    rights: Rights
    judged: Mapping[str, Judged] = field(default_factory=dict)
    shares: Shares = field(default_factory=Shares)
    lag_s: Mapping[str, float] = field(default_factory=dict)


def due(agreed: Agreed, judged: Judged) -> Literal["failover", "failback"] | None:
    """Return what is to be begun for a region by what is held of it; most often nothing.

    A region that is neither up nor down stays where it is, left or not: so one that comes and goes is left
    once, and let in again when it stays. Nor is one brought back unasked after that was given up, or that an
    operator has left.
    """
    region = judged.region
    if region not in agreed.served:
        return None
    plan, out = agreed.plans.get(region), region in agreed.traffic.down
    if judged.state == "down":
        returning = plan is not None and plan.kind == "failback"
        return "failover" if returning or (plan is None and not out) else None
    if judged.state == "up" and out and plan is None:
        last = agreed.last(region)
        if last is None:
            return "failback"
        given_up = (last.kind, last.state) == ("failback", "stopped") and not last.relapsed
        return None if given_up or (last.kind == "failover" and last.by) else "failback"
    return None


def failover(
    region: str,
    now: Circumstances,
    *,
    plan_id: str,
    now_us: int,
    cause: str,
    by: str = "",
    outside: Collection[StepKind] = (),
) -> Plan:
    """Return the plan that moves away what a region serves.

    Args:
        region: that is down, or is to be left.
        now: by what targets are chosen.
        plan_id: a name that no other plan has.
        now_us: microseconds since the epoch.
        cause: why, in words.
        by: the operator who begins it, nobody where none does.
        outside: what somebody can do to the world outside: capacity, mesh, database.

    Raises:
        InputError: the region serves no clients (`region-serves-nobody`), or there is none of that name
            (`unknown-region`).
    """
    choices = tuple(choose(zone, region, now) for zone in zones_of(region, now.topology))
    targets = sorted({choice.target for choice in choices if choice.target is not None})
    steps = [Step(StepKind.CONFIRM), Step(StepKind.FENCE)]
    if StepKind.DATABASE in outside:
        steps += [Step(StepKind.DATABASE, c.zone, c.target) for c in choices if c.target is not None]
    if StepKind.CAPACITY in outside:
        scale_to = now.topology.failover.scale_to
        steps += [Step(StepKind.CAPACITY, target=target, value=scale_to) for target in targets]
    if StepKind.MESH in outside:
        steps += [Step(StepKind.MESH, target=target) for target in targets]
    steps += [Step(StepKind.INBOXES, c.zone, c.target) for c in choices if c.target is not None]
    steps += [Step(StepKind.VERIFY, c.zone, c.target or "") for c in choices]
    return Plan(plan_id, "failover", region, cause, now_us, (*steps, Step(StepKind.CLOSE)), choices, by=by)


def choose(zone: str, leaving: str, now: Circumstances) -> Choice:
    """Return who takes a zone over: its other home regions first, then the nearest that may serve it."""
    homes = now.topology.zones[zone].regions
    near = list(now.topology.distances[leaving])
    limit_s = now.topology.failover.lag_limit_s
    order = [home for home in homes if home in near] + [r for r in near if r not in homes]
    serving = now.rights.serving(zone)
    candidates: list[Candidate] = []
    target: str | None = None
    for region in order:
        if region == leaving:
            continue
        why = ""
        judged, behind_s = now.judged.get(region), now.lag_s.get(region, 0.0)
        if region not in serving:
            why = f"may not hold all that belongs to zone {zone}"
        elif judged is not None and judged.state == "down":
            why = f"is down: {judged.why}"
        elif region in now.shares.down:
            why = "takes no part: it is drained or was failed over from"
        elif behind_s > limit_s:
            why = f"is {behind_s:.1f} s behind, of at most {limit_s:g}"
        elif target is not None:
            why = f"may serve it; {target} comes first"
        else:
            target = region
            why = "a home region of the zone" if region in homes else "the nearest that may serve the zone"
        candidates.append(Candidate(region, target == region, why))
    return Choice(zone, target, tuple(candidates))


def retarget(step: Step, leaving: str, now: Circumstances) -> Step:
    """Return a step of a failover about who takes its zone over now.

    Who was to may have died since; where nobody could, somebody may have caught up.
    """
    judged = now.judged.get(step.target)
    gone = step.target in now.shares.down or (judged is not None and judged.state == "down")
    if step.target and not gone:
        return step
    return msgspec.structs.replace(step, target=choose(step.zone, leaving, now).target or "")


def zones_of(region: str, topology: Topology) -> list[str]:
    """Return the zones that a region is a home of; raises InputError where it serves nobody or is unknown."""
    if region not in topology.regions:
        raise InputError(
            "unknown-region",
            f"There is no region {region}.",
            hint=f"Regions: {', '.join(topology.regions)}.",
        )
    if region not in topology.stacks():
        raise InputError(
            "region-serves-nobody",
            f"{region} is a witness: it votes and serves no clients, so nothing is moved.",
            hint=f"Regions that serve: {', '.join(topology.stacks())}.",
        )
    return [name for name, zone in topology.zones.items() if region in zone.regions]
