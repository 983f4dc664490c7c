"""What a region's gauges say: a look at the server and what the database last told."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import Request, Response, get
from prometheus_client.exposition import choose_encoder

from acgs2.api.facts import Counts, Held
from acgs2.api.health import checks
from acgs2.api.metrics import Values
from acgs2.api.region import RegionServer

__all__ = ["HANDLERS"]

#: In the order in which the query gives them.
_PERCENTILES = ("50", "99")


@get("/metrics", include_in_schema=False)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer in Prometheus' text format, or OpenMetrics to who asks for it; with the database away too."""
    server: RegionServer = request.app.state.server
    vital, (counts, up), held = await asyncio.gather(
        server.facts.vital(), server.facts.counts(), server.facts.held()
    )
    server.metrics.looked.values = {
        **_of_server(server, checks(server, vital), up),
        **_of_database(counts, held),
    }
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(server.metrics.registry), media_type=media_type)


def _of_server(server: RegionServer, found: dict[str, bool], up: bool) -> Values:
    pool = server.pool.get_stats()
    size = pool.get("pool_size", 0)
    peers = sorted(server.config.peers)
    _, term = server.leader.known()
    left_s, known = server.governance.lease_left_s(), server.governance.known
    return {
        "acgs2_ready": {(): all(found.values())},
        "acgs2_check": {(name,): well for name, well in found.items()},
        "acgs2_seeded": {(): found["seeded"]},
        "acgs2_database_up": {(): up},
        "acgs2_database_pool_size": {(): size},
        "acgs2_database_pool_in_use": {(): size - pool.get("pool_available", 0)},
        "acgs2_database_pool_waiting": {(): pool.get("requests_waiting", 0)},
        "acgs2_peer_connected": {(peer,): server.watcher.connected(peer) for peer in peers},
        "acgs2_link_missing": {(peer,): peer in server.links_missing for peer in peers},
        "acgs2_zone_alone": {
            (zone,): zone in server.alone
            for zone, pair in server.rules.pairs.items()
            if server.region in pair
        },
        "acgs2_clock_offset_seconds": {
            (peer,): offset.ahead_us / 1e6 for peer, (offset, _) in server.offsets.items()
        },
        "acgs2_clock_apart": {(): server.clock_apart},
        "acgs2_governing": {(): left_s > 0},
        "acgs2_fenced": {(): server.participation.fenced() is not None},
        "acgs2_serving_lease_seconds": {(): left_s},
        "acgs2_in_force_version": {(kind,): n for kind, n in known.versions.items()} if known else {},
        "acgs2_halts": {
            (scope,): sum(halt.scope == scope for halt in known.halts.entries) if known else 0
            for scope in ("agent", "tenant", "all")
        },
        "acgs2_audit_leaves": {(): server.audit.size},
        "acgs2_audit_witnessed_leaves": {(): server.audit.witnessed},
        "acgs2_audit_lag_seconds": {(): server.audit.lag_us / 1e6},
        "acgs2_audit_damaged": {(): bool(server.audit.damage)},
        "acgs2_inbox_serving": {
            (zone,): seat.serving() is not None for zone, seat in server.inboxes.seats.items()
        },
        "acgs2_inbox_generation": {
            (zone,): generation for zone, (_, generation) in server.inboxes.served().items()
        },
        "acgs2_observed_failures": {(r,): seen.failures for r, (seen, _) in server.observed.items()},
        "acgs2_leader": {(): server.leader.held()},
        "acgs2_leader_term": {(): term},
    }


def _of_database(counts: Counts, held: Held) -> Values:
    return {
        "acgs2_replication_lag_seconds": {
            (source, percentile): us / 1e6
            for source, lags in counts.lag_us.items()
            for percentile, us in zip(_PERCENTILES, lags, strict=True)
        },
        "acgs2_replication_silence_seconds": {(s,): silence for s, silence in counts.silence_s.items()},
        "acgs2_replication_slot_retained_bytes": {(p,): kept for p, kept in counts.retained_bytes.items()},
        "acgs2_incidents_open": {(kind,): number for kind, number in counts.incidents.items()},
        "acgs2_quarantined_rows": {(reason,): number for reason, number in counts.quarantined.items()},
        "acgs2_inbox_deliveries": {(state,): held.deliveries.get(state, 0) for state in ("ready", "claimed")},
        "acgs2_inbox_dead_letters": {
            (reason,): held.dead_letters.get(reason, 0) for reason in ("attempts", "expired")
        },
        "acgs2_conflicts": {(entity,): number for entity, number in held.conflicts.items()},
        "acgs2_records": {(zone, entity): number for (entity, zone), number in held.records.items()},
    }


HANDLERS: list[Any] = [metrics]
