"""What a history says of service: how many calls were served, how fast, and when service was back. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from acgs2.drill.history import Operation
from acgs2.drill.report import Bucket, Number, ZoneSeen
from acgs2.local.latency import spread
from acgs2.topology import Objectives

__all__ = ["MONTH_S", "PATIENCE_S", "Call", "buckets", "calls_of", "numbers", "restored_s", "zone_seen"]

#: A call that takes longer than this was not served, whatever it brings in the end.
PATIENCE_S = 2.0
#: What objectives of availability are counted over.
MONTH_S = 30 * 86400.0
_KINDS: Mapping[str, str] = {"read": "read", "create": "write", "add": "write", "append": "message"}


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its client saw it; `took_s` is infinite where it did not succeed.

    A delivery is one as well: it begins when its message is acknowledged, and ends when it is received.
    """

    zone: str
    place: str
    kind: str
    began_s: float
    took_s: float
    region: str = ""
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Return whether it succeeded, however late."""
        return self.took_s != float("inf")

    @property
    def served(self) -> bool:
        """Return whether it succeeded in time."""
        return self.took_s <= PATIENCE_S

    @property
    def ended_s(self) -> float:
        """Return when it succeeded."""
        return self.began_s + self.took_s


def calls_of(operations: Iterable[Operation], *, until_s: float = float("inf")) -> list[Call]:
    """Return the calls of a history in the order in which they began.

    Args:
        operations: of the history.
        until_s: a message that was acknowledged in the last moments before this, and was not received, may
            be on its way, and is no call yet.
    """
    found: list[Call] = []
    received: dict[str, float] = {}
    for op in operations:
        if op.kind == "receive":
            received.setdefault(op.key, op.completed_s)
    for op in operations:
        if op.kind not in _KINDS:
            continue
        took_s = op.completed_s - op.invoked_s if op.ok else float("inf")
        problem = str(op.answer.get("problem", "")) or ("" if op.ok else "no-answer")
        found.append(
            Call(
                op.zone, op.client, _KINDS[op.kind], op.invoked_s, took_s, op.region, "" if op.ok else problem
            )
        )
        if op.kind == "append" and op.ok:
            ended_s = received.get(op.key, float("inf"))
            if ended_s == float("inf") and op.completed_s + PATIENCE_S > until_s:
                continue
            late_s = max(0.0, ended_s - op.completed_s)
            what = "" if late_s <= PATIENCE_S else "not-delivered" if late_s == float("inf") else "late"
            found.append(Call(op.zone, op.client, "delivery", op.completed_s, late_s, "", what))
    return sorted(found, key=lambda call: call.began_s)


def restored_s(calls: Sequence[Call], fault_s: float, until_s: float) -> float | None:
    """Return how long after the fault the first call succeeded from which on every call was served.

    Only calls that began in between count. 0 where all were served; None where the last ones were not.
    """
    during = [call for call in calls if fault_s <= call.began_s < until_s]
    bad = [call.began_s for call in during if not call.served]
    if not bad:
        return 0.0
    good = [call.ended_s for call in during if call.began_s > max(bad)]
    return round(min(good) - fault_s, 3) if good else None


def buckets(calls: Sequence[Call], until_s: float, width_s: float = 1.0) -> list[Bucket]:
    """Return what was seen second by second."""
    found: dict[int, list[Call]] = {}
    for call in calls:
        found.setdefault(int(call.began_s // width_s), []).append(call)
    made: list[Bucket] = []
    for number in range(int(until_s // width_s) + 1):
        within = found.get(number, [])
        times = spread([call.took_s * 1000 for call in within if call.served])
        served = sum(call.served for call in within)
        made.append(
            Bucket(
                number * width_s,
                served,
                len(within) - served,
                round(times.p50_ms, 1),
                round(times.p99_ms, 1),
            )
        )
    return made


def zone_seen(
    zone: str, calls: Sequence[Call], *, lawful: bool, fault_s: float, ended_s: float, until_s: float
) -> ZoneSeen:
    """Return what clients of a zone saw.

    Args:
        zone: its name.
        calls: of all zones.
        lawful: whether any region may serve it whole while the fault lasts.
        fault_s: when the fault began.
        ended_s: when it was ended.
        until_s: when the drill was over.
    """
    own = [call for call in calls if call.zone == zone]
    kinds = sorted({call.kind for call in own})
    by_kind = {kind: restored_s([c for c in own if c.kind == kind], fault_s, ended_s) for kind in kinds}
    values = list(by_kind.values())
    restored = None if None in values or not values else max(v for v in values if v is not None)
    series = buckets(own, until_s)
    outage_s = sum(b.failed / (b.served + b.failed) for b in series if b.failed)
    steady = spread([c.took_s * 1000 for c in _asked(own) if c.ok and c.ended_s < fault_s])
    back_s = fault_s + (restored if restored is not None else ended_s - fault_s)
    during = spread([c.took_s * 1000 for c in _asked(own) if c.ok and fault_s <= c.began_s < ended_s])
    after = spread([c.took_s * 1000 for c in _asked(own) if c.ok and back_s <= c.began_s < ended_s])
    answered = {
        "before": [c.region for c in own if c.region and c.ended_s < fault_s],
        "after": [c.region for c in own if c.region and back_s <= c.began_s < ended_s],
    }
    return ZoneSeen(
        zone,
        lawful,
        calls=len(own),
        failed=sum(not call.ok for call in own),
        late=sum(call.ok and not call.served for call in own),
        restored_s=restored,
        outage_s=round(outage_s, 2),
        availability=round(sum(call.served for call in own) / len(own), 5) if own else 0.0,
        p50_ms=round(steady.p50_ms, 1),
        p99_ms=round(steady.p99_ms, 1),
        after_p99_ms=round(after.p99_ms, 1),
        during_p99_ms=round(during.p99_ms, 1),
        regions={
            when: [name for name, _ in Counter(names).most_common()] for when, names in answered.items()
        },
        by_kind=by_kind,
        problems=dict(Counter(call.problem for call in own if call.problem).most_common()),
        series=series,
    )


def _asked(calls: Sequence[Call]) -> list[Call]:
    """Return what a client waited for: not deliveries, which wait for a receiver."""
    return [call for call in calls if call.kind != "delivery"]


def numbers(
    zones: Sequence[ZoneSeen],
    objectives: Objectives,
    *,
    lag_s: float | None,
    canaries: int,
    found: int,
    misplaced: int,
) -> list[Number]:
    """Return the five numbers of the guide. Zones that no region may serve meanwhile say nothing of three.

    Args:
        zones: what was seen of each.
        objectives: of the topology.
        lag_s: the worst p99 of any link in steady state; None where nothing arrived.
        canaries: how many texts were looked for.
        found: how many of them were found where they may be; a search that finds none sees nothing.
        misplaced: how many were found where they may not be.
    """
    served = [zone for zone in zones if zone.lawful]
    p99 = max((zone.p99_ms for zone in zones), default=0.0)
    back = [zone.restored_s for zone in served]
    failover = None if None in back or not back else max(v for v in back if v is not None)
    outage_s = max((zone.outage_s for zone in served), default=0.0)
    available = 1 - outage_s / MONTH_S
    kept = max(0.0, 1 - misplaced / canaries) if canaries and found else None
    return [
        Number(
            "p99",
            "ms",
            p99 or None,
            objectives.p99_ms,
            0 < p99 <= objectives.p99_ms,
            "of the slowest zone's calls by its own people, in steady state",
        ),
        Number(
            "lag",
            "s",
            lag_s,
            objectives.lag_s,
            lag_s is not None and lag_s <= objectives.lag_s,
            "p99 of the slowest link in steady state, its distance included",
        ),
        Number(
            "failover",
            "s",
            failover,
            objectives.failover_s,
            failover is not None and failover <= objectives.failover_s,
            "from the fault until every call of every zone that may be served was served",
        ),
        Number(
            "residency",
            "",
            kept,
            objectives.residency,
            kept is not None and kept >= objectives.residency,
            f"{canaries} texts looked for in every other region's tables, files and logs; "
            f"{found} found where they may be",
        ),
        Number(
            "availability",
            "",
            round(available, 9),
            objectives.availability,
            available >= objectives.availability,
            f"of a month with one such drill: {outage_s:g} s were lost in the worst zone",
        ),
    ]
