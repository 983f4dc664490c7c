"""A region's metrics, as Prometheus scrapes them: what happened is counted, what is, is looked at.

docs/metrics.md has every one of them. Labels take few values, all of them ours: templates of routes, zones,
entities, regions, references of problems. Nothing that tells of a person or a tenant is ever one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily

import acgs2
from acgs2.errors import OutcomeUnknown

__all__ = ["GAUGES", "Looked", "Metrics", "Values"]

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: What is looked at when somebody asks: name, what it says, its labels.
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "acgs2_ready": ("Whether the region may serve.", ()),
    "acgs2_check": ("Whether one thing that readiness needs is so.", ("check",)),
    "acgs2_seeded": ("Whether this life of the region has been given its data.", ()),
    "acgs2_database_up": ("Whether the database answered when this was asked for.", ()),
    "acgs2_database_pool_size": ("Connections to the database that the pool has.", ()),
    "acgs2_database_pool_in_use": ("Connections of the pool that are in use.", ()),
    "acgs2_database_pool_waiting": ("Requests that wait for a connection of the pool.", ()),
    "acgs2_peer_connected": ("Whether a peer takes this region's changes now.", ("peer",)),
    "acgs2_link_missing": ("Whether the link from a peer is not as it should be.", ("peer",)),
    "acgs2_replication_lag_seconds": (
        "How late what arrived in the last minute was, from the writing statement to the merge.",
        ("source", "percentile"),
    ),
    "acgs2_replication_silence_seconds": ("Since when nothing has arrived from a region.", ("source",)),
    "acgs2_replication_slot_retained_bytes": ("Log that is kept for a peer that lags.", ("peer",)),
    "acgs2_zone_alone": ("Whether this region acknowledges a zone's writes alone.", ("zone",)),
    "acgs2_incidents_open": ("Incidents that nobody has closed.", ("kind",)),
    "acgs2_quarantined_rows": ("Journal rows that could not be merged and wait.", ("reason",)),
    "acgs2_conflicts": ("Losing sides of concurrent changes that are kept; about, where many.", ("entity",)),
    "acgs2_records": ("Records that are held; about, where many.", ("zone", "entity")),
    "acgs2_clock_offset_seconds": ("How far a peer's time is ahead of this region's.", ("peer",)),
    "acgs2_clock_apart": ("Whether this region's time is too far from most for it to write.", ()),
    "acgs2_governing": ("Whether this region may take messages in, approve and dispatch now.", ()),
    "acgs2_fenced": ("Whether a failover has taken this region out, so that it does not govern.", ()),
    "acgs2_serving_lease_seconds": ("For how long it may without hearing from a majority again.", ()),
    "acgs2_in_force_version": ("The version of an agreed document by which this region goes.", ("document",)),
    "acgs2_halts": ("Halts that are in force.", ("scope",)),
    "acgs2_audit_leaves": ("Leaves of the audit log that have their place.", ()),
    "acgs2_audit_witnessed_leaves": ("Leaves of the audit log that enough other regions vouch for.", ()),
    "acgs2_audit_lag_seconds": ("How long the oldest leaf waits for its place in the audit log.", ()),
    "acgs2_audit_damaged": ("Whether the audit log is not what was signed, and is signed no further.", ()),
    "acgs2_inbox_deliveries": (
        "Deliveries that are not done, ready or claimed; about, where many.",
        ("state",),
    ),
    "acgs2_inbox_dead_letters": ("Deliveries that were given up and are kept.", ("reason",)),
    "acgs2_inbox_serving": ("Whether this region serves a zone's inboxes.", ("zone",)),
    "acgs2_inbox_generation": ("The latest generation of a zone's inboxes that is known here.", ("zone",)),
    "acgs2_observed_failures": ("Looks at a region in a row that found it not to serve.", ("region",)),
    "acgs2_leader": ("Whether this region leads now.", ()),
    "acgs2_leader_term": ("The latest term of a leader that is known here; it only rises.", ()),
}
#: Of a gauge, each value by those of its labels.
Values = Mapping[str, Mapping[tuple[str, ...], float]]


class Looked:
    """Yields the gauges as they were last looked at; collecting must not wait, looking may."""

    def __init__(self) -> None:
        self.values: Values = {}

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every declared gauge, those without a value too."""
        for name, (says, labels) in GAUGES.items():
            family = GaugeMetricFamily(name, says, labels=labels)
            for values, number in sorted(self.values.get(name, {}).items()):
                family.add_metric(values, number)
            yield family


class Metrics:
    """The metrics of one region's server, in a registry of its own."""

    def __init__(self, region: str) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self.looked = Looked()
        self.registry.register(self.looked)
        ProcessCollector(registry=self.registry)
        build = Gauge(
            "acgs2_build_info",
            "Which release serves which region; always 1.",
            ["version", "region"],
            registry=self.registry,
        )
        build.labels(acgs2.__version__, region).set(1)
        self._requests = Counter(
            "acgs2_http_requests_total",
            "Requests that were answered.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._durations = Histogram(
            "acgs2_http_request_duration_seconds",
            "From a request's first byte to its answer's last.",
            ["route", "method"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "acgs2_http_requests_in_flight", "Requests that are being answered.", registry=self.registry
        )
        self._problems = Counter(
            "acgs2_problems_total",
            "Answers that were problems, by the end of their type.",
            ["reference"],
            registry=self.registry,
        )
        self._pair_waits = Histogram(
            "acgs2_pair_wait_seconds",
            "How long committed writes waited for the other region of the pair.",
            ["zone"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._pair_timeouts = Counter(
            "acgs2_pair_timeouts_total",
            "Writes that the other region of the pair did not confirm in time.",
            ["zone"],
            registry=self.registry,
        )

        self._redelivered = Counter(
            "acgs2_inbox_redeliveries_total",
            "Messages that were given to an agent again.",
            registry=self.registry,
        )
        self._acknowledged = Histogram(
            "acgs2_inbox_acknowledged_seconds",
            "From a message's acceptance to its acknowledgement by its receiver.",
            buckets=(*_BUCKETS_S, 30.0, 60.0, 300.0, 3600.0),
            registry=self.registry,
        )

    def redelivered(self, number: int) -> None:
        """Count messages that are given again."""
        self._redelivered.inc(number)

    def acknowledged(self, after_s: float) -> None:
        """Measure how long a message took from its acceptance to its acknowledgement."""
        self._acknowledged.observe(after_s)

    def answered(self, route: str, method: str, status: int, duration_s: float) -> None:
        """Count an answer; whatever is no method of HTTP's is `other`."""
        known = method if method in _METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._durations.labels(route, known).observe(duration_s)

    def problem(self, reference: str) -> None:
        """Count a problem."""
        self._problems.labels(reference).inc()

    @contextlib.contextmanager
    def pair_wait(self, zone: str) -> Iterator[None]:
        """Measure one wait for the pair."""
        with self._pair_waits.labels(zone).time():
            try:
                yield
            except OutcomeUnknown:
                self._pair_timeouts.labels(zone).inc()
                raise
