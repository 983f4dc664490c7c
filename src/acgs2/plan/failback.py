"""Which steps bring a region's traffic back, and what must be true before each of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from acgs2.plan.failover import zones_of
from acgs2.plan.steps import Plan, Step, StepKind
from acgs2.topology import Topology

__all__ = ["Measured", "Standing", "failback", "gate", "readmit"]

#: A share that is right lies within so many standard deviations of what was asked for.
_DEVIATIONS = 4


class Standing(msgspec.Struct, frozen=True):
    """What a region says of itself before it is let in again, beside what is agreed elsewhere.

    `in_force` and `drained` (an operator has it sent no requests) are as the region that leads knows them.
    """

    ready: bool = False
    missing: tuple[str, ...] = ()
    seeded: bool = False
    lag_s: float = 0.0
    equal: bool = False
    differs: str = ""
    governing: dict[str, int] = {}
    in_force: dict[str, int] = {}
    drained: bool = False


class Measured(msgspec.Struct, frozen=True):
    """What was seen while a region had a share.

    Args:
        lag_s: how far it is behind.
        requests: that it answered.
        errors: how many of those were its fault (5xx).
        p99_ms: of what it answered; 0 where nothing was.
        reads: how many of the requests were reads, which are shared by weights; some writes never are.
        reads_of_zones: reads of its zones that all regions answered.
    """

    lag_s: float
    requests: int
    errors: int
    p99_ms: float
    reads: int
    reads_of_zones: int


def failback(region: str, topology: Topology, *, plan_id: str, now_us: int, cause: str, by: str = "") -> Plan:
    """Return the plan that gives a region its traffic back, share by share.

    Args:
        region: that was failed over from.
        topology: shares and limits.
        plan_id: a name that no other plan has.
        now_us: microseconds since the epoch.
        cause: why, in words.
        by: the operator who begins it, nobody where none does.

    Raises:
        InputError: the region serves no clients (`region-serves-nobody`), or there is none of that name
            (`unknown-region`).
    """
    steps = [Step(StepKind.HOLD_DOWN), Step(StepKind.READMIT)]
    for weight in topology.failover.weights:
        steps += [Step(StepKind.WEIGHT, value=weight), Step(StepKind.GATE, value=weight)]
    steps += [Step(StepKind.VERIFY, zone, region) for zone in zones_of(region, topology)]
    return Plan(plan_id, "failback", region, cause, now_us, (*steps, Step(StepKind.CLOSE)), by=by)


def readmit(standing: Standing, topology: Topology) -> Sequence[str]:
    """Return what keeps a region from being let in again; nothing where it may."""
    found: list[str] = []
    if not standing.ready:
        found.append(f"it is not ready: {', '.join(standing.missing) or 'it does not answer'}")
    if not standing.seeded:
        found.append("it has not been given all that it may hold")
    if standing.lag_s > topology.objectives.lag_s:
        found.append(f"it is {standing.lag_s:.1f} s behind, of at most {topology.objectives.lag_s:g}")
    if not standing.equal:
        found.append(f"its records differ from the others': {standing.differs or 'not compared'}")
    if standing.drained:
        found.append("an operator has it sent no requests: `acgs2 traffic restore` undoes that")
    for kind, version in standing.in_force.items():
        if (have := standing.governing.get(kind, 0)) != version:
            found.append(f"it goes by version {have} of {kind}; {version} is in force")
    return found


def gate(measured: Measured, weight: int, topology: Topology) -> Sequence[str]:
    """Return why a region does not get its next share; nothing where it does.

    Too few requests say nothing of errors, times and shares; then lag alone decides.
    """
    limits, found = topology.failover.gate, []
    if measured.lag_s > topology.objectives.lag_s:
        found.append(f"it is {measured.lag_s:.1f} s behind, of at most {topology.objectives.lag_s:g}")
    if measured.requests >= limits.least_requests:
        rate = measured.errors / measured.requests
        if rate > limits.error_rate:
            found.append(f"{rate:.1%} of its answers were errors, of at most {limits.error_rate:.1%}")
        if measured.p99_ms > limits.p99_ms:
            found.append(f"its p99 was {measured.p99_ms:.0f} ms, of at most {limits.p99_ms:g}")
    if measured.reads_of_zones >= limits.least_requests:
        share, asked = measured.reads / measured.reads_of_zones, weight / 100
        most = asked + _DEVIATIONS * math.sqrt(asked * (1 - asked) / measured.reads_of_zones)
        if share > most:  # less is right where most clients are nearer to another region
            found.append(f"{share:.0%} of the reads of its zones came to it, {weight} % should at most")
    return found
