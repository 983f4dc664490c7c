"""What happened in a drill and why, in words: from the plans where there are any, else from the answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from acgs2.drill.outages import Outage
from acgs2.drill.report import Report
from acgs2.drill.watch import Watch
from acgs2.plan import Agreed, Plan

__all__ = ["given_up", "happened", "returned", "stepped", "told", "where"]


def happened(report: Report, drilled: Outage, watch: Watch) -> None:
    """Say in a report what became of service and why, and whether that was expected."""
    moves = "; ".join(
        f"{seen.zone} moved from {', '.join(seen.regions['before'])} to {', '.join(seen.regions['after'])}"
        for seen in report.zones
        if seen.regions["after"] and not {*seen.regions["before"]} & {*seen.regions["after"]}
    )
    if watch.agreed is None:
        report.happened = moves or "all zones were answered where they were before"
        report.why_happened = "by edge, pairs and leases alone: no region answers GET /api/v1/failover"
        return
    begun = [plan for plan in watch.plans(report.fault_s) if plan.kind == "failover"]
    # What was begun only once the fault was over did not help anybody, and was not to be begun. One that was
    # stopped before it fenced its region has done nothing.
    plans = [plan for plan in begun if watch.at_s(plan.begun_us) < report.ended_s]
    after = [plan for plan in begun if plan not in plans]
    report.steps_s = stepped(plans, lambda at_us: watch.at_s(at_us) - report.fault_s)
    hit, left = set(drilled.regions), {plan.region for plan in plans if plan.fenced}
    needless = left - hit | {plan.region for plan in after if plan.fenced}
    if plans:
        report.happened = "fails over: " + "; ".join(told(plan) for plan in plans)
        report.why_happened = "; ".join(dict.fromkeys(plan.cause for plan in plans))
    else:
        report.happened = "stays"
        said = {region: watch.judged.get(region, {}).get("why", "") for region in sorted(hit)}
        report.why_happened = "; ".join(f"{region}: {why}" for region, why in said.items() if why)
    if after:
        report.happened += "; once the fault was over: " + "; ".join(told(plan) for plan in after)
    serving = hit & drilled.gone
    moved = {plan.region for plan in plans if plan.state == "closed"} >= serving
    report.as_expected = not needless and (moved if drilled.expected == "fails over" else not left)


def stepped(plans: Iterable[Plan], at_s: Callable[[int], float]) -> dict[str, float]:
    """Return when the last of the plans was done with each kind of step, as `at_s` has it."""
    found: dict[str, float] = {}
    for plan in plans:
        for note in (note for note in plan.notes if note.good):
            kind = str(plan.steps[note.step].kind)
            found[kind] = max(found.get(kind, 0.0), round(at_s(note.at_us), 2))
    return found


def told(plan: Plan) -> str:
    """Return where a plan took what, and how it ended."""
    choices = [
        f"{choice.zone} to {choice.target}" if choice.target else f"{choice.zone} to nobody: no lawful target"
        for choice in plan.choices
    ]
    ended = "" if plan.state == "closed" else f", {plan.state}" + (f" ({plan.why})" if plan.why else "")
    return f"{plan.region}: {', '.join(choices)}{ended}"


def returned(agreed: Agreed, regions: Collection[str]) -> bool:
    """Return whether regions that were left have all of their traffic again."""
    away = {*agreed.plans, *agreed.shares.down, *agreed.shares.weights}
    last = [agreed.last(region) for region in regions]
    return not away & {*regions} and all(
        p is not None and (p.kind, p.state) == ("failback", "closed") for p in last
    )


def given_up(agreed: Agreed, regions: Collection[str]) -> bool:
    """Return whether the failback of one of them was stopped, and none is under way."""
    last = [agreed.last(region) for region in regions if region not in agreed.plans]
    # One whose region relapsed begins again by itself.
    return any(
        p is not None and (p.kind, p.state, p.relapsed) == ("failback", "stopped", False) for p in last
    )


def where(agreed: Agreed, regions: Collection[str]) -> str:
    """Return how far the last plans of regions are, and what is in their way."""
    found: list[str] = []
    for region in sorted(regions):
        plan = agreed.plans.get(region) or agreed.last(region)
        if plan is None:
            found.append(f"{region} has no plan")
            continue
        step = plan.steps[plan.at]
        at = f"{step.kind} {step.value}" if step.value else str(step.kind)
        found.append(
            f"{plan.kind} of {region} is {plan.state} at {at}" + (f": {plan.why}" if plan.why else "")
        )
    return "; ".join(found)
