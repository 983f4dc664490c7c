"""What DNS is told, as plain values: record sets, health checks, and names that are not answered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["ANY", "PARTITIONS", "Alias", "Check", "Desired", "Gap", "Partition", "RecordSet", "level_of"]

Partition = Literal["aws", "aws-cn"]
#: Cloud partitions; each has a Route 53 of its own, with its own hosted zones.
PARTITIONS: tuple[Partition, ...] = ("aws", "aws-cn")
#: Stands for "no zone" in names below `api.<domain>`; no zone can be called so.
ANY = "_any"


@dataclass(frozen=True, slots=True)
class Alias:
    """What an alias stands for: a name in a hosted zone, or in the alias's own one without an id."""

    name: str
    zone_id: str = ""
    evaluate: bool = True


@dataclass(frozen=True, slots=True)
class RecordSet:
    """One record set of ours; a latency record has a region, a weighted one a weight.

    `health` is what its health check is called: a region in a plan, an id in Route 53.
    """

    name: str
    type: str
    set_id: str
    region: str = ""
    weight: int | None = None
    alias: Alias | None = None
    values: tuple[str, ...] = ()
    ttl_s: int | None = None
    health: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what makes it one record set among all of a hosted zone."""
        return self.name, self.type, self.set_id

    @property
    def target(self) -> str:
        """Return the name that it leads to."""
        return self.alias.name if self.alias else ", ".join(self.values)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, without what it has not."""
        return {k: v for k, v in asdict(self).items() if v not in ("", None, ())}


@dataclass(frozen=True, slots=True)
class Check:
    """How Route 53 looks at a region: HTTPS, from many places at once."""

    region: str
    fqdn: str
    port: int
    path: str
    failures: int
    interval_s: int

    @property
    def name(self) -> str:
        """Return what it is called in the console."""
        return f"acgs2-{self.region}-health-check"

    def reference(self, topology: str, generation: int = 0) -> str:
        """Return a caller reference that follows from the content: a repeat does not make a second check.

        Route 53 remembers the reference of a deleted check for days; then the next generation is tried.
        """
        body = json.dumps([topology, generation, asdict(self)], sort_keys=True)
        return f"acgs2-{hashlib.sha256(body.encode()).hexdigest()[:40]}"


@dataclass(frozen=True, slots=True)
class Gap:
    """A name that is not answered, and why; `lawful` are the regions that could have been."""

    name: str
    zone: str | None
    problem: str
    lawful: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as a sentence."""
        could = f"; lawful: {', '.join(self.lawful)}" if self.lawful else ""
        return f"{self.name} is not answered: {self.problem}{could}"


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that a hosted zone of one cloud partition shall say about a topology.

    `labels` are those of the topology's zones, and ANY, whether they have records or not.
    """

    topology: str
    domain: str
    partition: Partition
    labels: tuple[str, ...]
    records: tuple[RecordSet, ...]
    checks: tuple[Check, ...]
    gaps: tuple[Gap, ...] = ()


def level_of(name: str, domain: str) -> tuple[str, int] | None:
    """Return the label (a zone's, or ANY) and the level (1 or 2) that a name has; None for any other name."""
    top = f"api.{domain}"
    if name == top:
        return ANY, 1
    if not name.endswith(f".{top}"):
        return None
    labels = name.removesuffix(f".{top}").split(".")
    return (labels[-1], len(labels)) if len(labels) <= 2 else None
