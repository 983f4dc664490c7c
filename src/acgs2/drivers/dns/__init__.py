"""The route plan as DNS, and none of DNS itself: record sets, health checks, the way from what is there."""

from acgs2.drivers.dns.diff import Batch, Change, CheckChanges, Held, batches, check_changes
from acgs2.drivers.dns.plan import desired, gaps, health_checks, records, weights_of
from acgs2.drivers.dns.values import (
    ANY,
    PARTITIONS,
    Alias,
    Check,
    Desired,
    Gap,
    Partition,
    RecordSet,
    level_of,
)

__all__ = [
    "ANY",
    "PARTITIONS",
    "Alias",
    "Batch",
    "Change",
    "Check",
    "CheckChanges",
    "Desired",
    "Gap",
    "Held",
    "Partition",
    "RecordSet",
    "batches",
    "check_changes",
    "desired",
    "gaps",
    "health_checks",
    "level_of",
    "records",
    "weights_of",
]
