"""How far a region's cluster of a global database is behind, as CloudWatch last had it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from acgs2.drivers.aws import Caller, part
from acgs2.errors import AcgsError

__all__ = ["Lag", "read_lag"]

#: The first is about what users have committed; where the engine does not have it, about the storage.
_METRICS = ("AuroraGlobalDBRPOLag", "AuroraGlobalDBReplicationLag")
_BACK = timedelta(minutes=10)
_NAME = "CloudWatch"


@dataclass(frozen=True, slots=True)
class Lag:
    """What would be lost at most: of which metric, in seconds, as of when."""

    metric: str
    lag_s: float
    at: datetime

    def __str__(self) -> str:
        """Return it as part of a sentence."""
        return f"{self.lag_s:g} s ({self.metric} at {self.at:%H:%M:%S})"


def read_lag(caller: Caller, cluster: str, now: datetime) -> Lag | None:
    """Return the largest lag of the newest minute that has one; None where there is none, or nobody says it.

    Args:
        caller: of CloudWatch in the cluster's region.
        cluster: its identifier.
        now: until when.
    """
    try:
        return next(filter(None, (_newest(caller, metric, cluster, now) for metric in _METRICS)), None)
    except AcgsError:
        return None  # a failover does not fail because nobody knows how late it is


def _newest(caller: Caller, metric: str, cluster: str, now: datetime) -> Lag | None:
    one = [{"Name": "DBClusterIdentifier", "Value": cluster}]
    answer = caller.call("list_metrics", Namespace="AWS/RDS", MetricName=metric, Dimensions=one)
    found: list[Lag] = []
    for series in part(answer, "Metrics", _NAME):
        points = caller.call(
            "get_metric_statistics",
            Namespace="AWS/RDS",
            MetricName=metric,
            Dimensions=series["Dimensions"],
            StartTime=now - _BACK,
            EndTime=now,
            Period=60,
            Statistics=["Maximum"],
        )
        found += [
            Lag(metric, round(p["Maximum"] / 1000, 3), p["Timestamp"])
            for p in part(points, "Datapoints", _NAME)
        ]
    return max(found, key=lambda lag: (lag.at, lag.lag_s), default=None)
