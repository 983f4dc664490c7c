"""What happened in a drill and why, in words: from the plans where there are any, else from the answers."""

from __future__ import annotations

from acgs2.drill.outages import Outage
from acgs2.drill.report import Report
from acgs2.drill.watch import Watch
from acgs2.plan import Plan

__all__ = ["happened"]


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
    plans = [plan for plan in watch.plans(report.fault_s) if plan.kind == "failover"]
    hit, others = set(drilled.regions), [plan.region for plan in plans if plan.region not in drilled.regions]
    if plans:
        report.happened = "fails over: " + "; ".join(told(plan) for plan in plans)
        report.why_happened = "; ".join(watch.why_down.get(p.region) or p.cause for p in plans)
    else:
        report.happened = "stays"
        said = {region: watch.judged.get(region, {}).get("why", "") for region in sorted(hit)}
        report.why_happened = "; ".join(f"{region}: {why}" for region, why in said.items() if why)
    serving = hit & drilled.gone
    moved = {plan.region for plan in plans if plan.state == "closed"} >= serving
    report.as_expected = not others and (moved if drilled.expected == "fails over" else not plans)


def told(plan: Plan) -> str:
    """Return where a plan took what, and how it ended."""
    choices = [
        f"{choice.zone} to {choice.target}" if choice.target else f"{choice.zone} to nobody: no lawful target"
        for choice in plan.choices
    ]
    ended = "" if plan.state == "closed" else f", {plan.state}" + (f" ({plan.why})" if plan.why else "")
    return f"{plan.region}: {', '.join(choices)}{ended}"
