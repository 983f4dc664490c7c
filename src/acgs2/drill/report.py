"""What a drill found, as plain values: what text, JSON and HTML are made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from acgs2.errors import AcgsError

__all__ = ["Bucket", "Event", "Number", "Phase", "Report", "ZoneSeen", "not_run"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, at a moment of the drill: seen from outside, said by a plan, or done by us."""

    at_s: float
    kind: Literal["phase", "fault", "seen", "plan"]
    region: str
    what: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the drill; `said` is what came of it, empty where it is told elsewhere."""

    name: str
    began_s: float
    ended_s: float
    said: str = ""


@dataclass(frozen=True, slots=True)
class Number:
    """One of the numbers of the guide against its objective; without a value it could not be measured.

    `how` says what was measured, and when.
    """

    name: str
    unit: str
    value: float | None
    objective: float
    kept: bool
    how: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """What clients of a zone saw of calls that began within a second; percentiles of those that succeeded."""

    at_s: float
    served: int
    failed: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class ZoneSeen:
    """What clients saw of a zone, over the whole drill.

    Args:
        lawful: whether any region may serve it whole while the fault lasts.
        regions: who answered writes before the fault and who once service was back.
        restored_s: from the fault to the first call from which on all succeed; 0 where none failed, None
            where that did not come about before the fault ended.
        outage_s: seconds, each weighed by the share of its calls that were not served in time.
        problems: of calls that failed, how often what.
        p99_ms: in steady state; `after_p99_ms` once service was back.
        during_p99_ms: of calls that began while the fault lasted and were answered, however late.
    """

    zone: str
    lawful: bool
    calls: int
    failed: int
    late: int
    restored_s: float | None
    outage_s: float
    availability: float
    p50_ms: float
    p99_ms: float
    after_p99_ms: float
    regions: dict[str, list[str]]
    by_kind: dict[str, float | None]
    problems: dict[str, int]
    series: list[Bucket] = field(default_factory=list)
    during_p99_ms: float = 0.0


@dataclass
class Report:
    """What came of a drill. Times are seconds since it began, unless they say otherwise.

    Args:
        raised: why it could not be carried out; nothing else of it counts then.
        steps_s: how long after the fault the failover plans were done with each kind of step.
    """

    fault: str
    regions: list[str]
    injected: str = ""
    bitten: str | None = None
    expected: str = ""
    why_expected: str = ""
    happened: str = ""
    why_happened: str = ""
    as_expected: bool | None = None
    raised: str = ""
    fault_s: float = 0.0
    ended_s: float = 0.0
    seconds: float = 0.0
    rate_per_s: float = 0.0
    topology: str = ""
    began_at: str = ""
    detection_s: float | None = None
    failover_s: float | None = None
    steps_s: dict[str, float] = field(default_factory=dict)
    recovered_s: float | None = None
    failback_s: float | None = None
    phases: list[Phase] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)
    zones: list[ZoneSeen] = field(default_factory=list)
    unverified: dict[str, str] = field(default_factory=dict)
    acknowledged_writes: int = 0
    acknowledged_messages: int = 0
    lost: list[str] = field(default_factory=list)
    undelivered: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    repeats: int = 0
    broken: list[str] = field(default_factory=list)
    converged_s: float | None = None
    canaries: int = 0
    canaries_found: int = 0
    misplaced: list[str] = field(default_factory=list)
    swept_bytes: int = 0
    lag: list[dict[str, Any]] = field(default_factory=list)

    @property
    def missed(self) -> list[str]:
        """Return every objective and promise that was not kept, in words; nothing where all were."""
        if self.raised:
            return [f"not carried out: {self.raised}"]
        found = [
            f"{n.name}: {'not measured' if n.value is None else f'{n.value:.7g} {n.unit}'.strip()}"
            f" (objective {n.objective:g} {n.unit})".replace(" )", ")")
            for n in self.numbers
            if not n.kept
        ]
        if self.bitten is None:
            found.append("the fault is not known to have bitten")
        if self.as_expected is False:
            found.append(f"expected: {self.expected} ({self.why_expected}); happened: {self.happened}")
        found += [f"not verified after failover: zone {z}: {what}" for z, what in self.unverified.items()]
        if self.recovered_s is None:
            found.append("not every region was ready and linked again once the fault was over")
        if self.converged_s is None:
            found.append("regions did not agree in the end")
        for what, items in (
            ("lost", self.lost),
            ("not delivered", self.undelivered),
            ("delivered more than once", self.duplicates),
            ("found where it may not be", self.misplaced),
            ("broken", self.broken),
        ):
            found += [f"{what}: {item}" for item in items[:5]]
            if len(items) > 5:
                found.append(f"{what}: and {len(items) - 5} more")
        return found

    def phases_said(self, name: str) -> str:
        """Return what came of a phase; nothing where it did not come to it."""
        return next((phase.said for phase in self.phases if phase.name == name), "")

    @property
    def passed(self) -> bool:
        """Return whether every objective and promise was kept."""
        return not self.missed

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self) | {"missed": self.missed, "passed": self.passed}


def not_run(fault: str, region: str, topology: str, rate_per_s: float, error: Exception) -> Report:
    """Return the report of a drill that broke off; `region` is the one that was asked for, if any."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    name = error.reference if isinstance(error, AcgsError) else type(error).__name__
    what = f"{name}: {error}" if str(error) else name
    return Report(fault, [region] if region else [], raised=what, topology=topology, rate_per_s=rate_per_s)
