"""Whether a region may serve, and why not. Probes ask ten times a second, and are told what is known."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from litestar import Request, Response, get

import acgs2
from acgs2.api.facts import Vital
from acgs2.api.region import RegionServer

__all__ = ["HANDLERS", "behind", "checks"]

Http = Request[Any, Any, Any]


def behind(lag_us: Mapping[str, int], connected: Collection[str], limit_s: float) -> list[str]:
    """Return the sources whose changes arrive too late for this region to serve what it holds.

    Args:
        lag_us: how late the best of what just arrived was, by source; one that is silent is not in it.
        connected: the sources that can be reached now; one that is dead or cut off makes nobody unready.
        limit_s: from when on it is too late.
    """
    return sorted(source for source, us in lag_us.items() if source in connected and us > limit_s * 1e6)


def checks(server: RegionServer, vital: Vital | str) -> dict[str, bool]:
    """Return what a region must be to serve, and whether it is.

    The serving lease is not among them: a region that is cut off goes on with reads and mergeable writes, and
    refuses what governs by itself. One that cannot load what is in force, or whose audit log is not what was
    signed, has something wrong with it, and serves nothing.
    """
    told = vital if isinstance(vital, Vital) else Vital(None, True, {})
    connected = set(server.config.peers) - set(server.links_missing)
    late = behind(told.lag_us, connected, server.topology.failover.lag_limit_s)
    return {
        "database": isinstance(vital, Vital) and told.origin is not None,
        "writable": isinstance(vital, Vital) and not told.read_only,
        "rules": bool(server.rules.pairs),
        "seeded": server.life is not None and server.life.seeded,
        "not_replaced": not server.replaced,
        "clock": not server.clock_apart,
        "lag": not late,
        "constitution": server.governance.mismatch is None,
        "audit": not server.audit.damage,
    }


def _status(found: Mapping[str, bool]) -> str:
    return "ready" if all(found.values()) else "not-ready"


@get("/health/live", summary="The process runs", include_in_schema=False)
async def live() -> dict[str, str]:
    """Answer as soon as the process runs."""
    return {"status": "live"}


@get("/health/ready", summary="The region may serve", include_in_schema=False)
async def ready(request: Http) -> Response[dict[str, Any]]:
    """Answer 200 when the region may serve; 503 with what is missing when it may not."""
    server: RegionServer = request.app.state.server
    found = checks(server, await server.facts.vital())
    status = _status(found)
    missing = [name for name, well in found.items() if not well]
    body = {"status": status} | ({"missing": missing} if missing else {})
    return Response(body, status_code=503 if missing else 200)


@get("/health/governing", summary="The region may govern", include_in_schema=False)
async def governing(request: Http) -> Response[dict[str, Any]]:
    """Answer 200 when the region may take messages in, approve and dispatch; 503 when it may not."""
    server: RegionServer = request.app.state.server
    found = checks(server, await server.facts.vital())
    told = server.governance.status()
    missing = [name for name, well in found.items() if not well] + ([] if told["serving"] else ["serving"])
    body = {"status": "not-governing" if missing else "governing", **told}
    return Response(body | ({"missing": missing} if missing else {}), status_code=503 if missing else 200)


@get("/health", summary="All there is to know", include_in_schema=False)
async def health(request: Http) -> Response[dict[str, Any]]:
    """Answer with everything, 503 when the region may not serve."""
    body = await _health(request.app.state.server)
    return Response(body, status_code=200 if body["status"] == "ready" else 503)


async def _health(server: RegionServer) -> dict[str, Any]:
    vital, (counts, _) = await asyncio.gather(server.facts.vital(), server.facts.counts())
    found = checks(server, vital)
    told = vital if isinstance(vital, Vital) else Vital(None, True, {})
    # Nothing is waited for from here on: all of it is true at one moment.
    leader, term = server.leader.known()
    return {
        "status": _status(found),
        "region": server.region,
        "version": acgs2.__version__,
        "checks": found,
        **({"reason": f"database: {vital}"} if isinstance(vital, str) else {}),
        "origin": told.origin,
        "incidents_open": sum(counts.incidents.values()),
        "quarantined": sum(counts.quarantined.values()),
        "zones": {zone: list(pair) for zone, pair in sorted(server.rules.pairs.items())},
        "peers_connected": {peer: server.watcher.connected(peer) for peer in sorted(server.config.peers)},
        "links_missing": list(server.links_missing),
        "lag_ms": {source: round(us / 1000, 1) for source, us in sorted(told.lag_us.items())},
        "seeded": found["seeded"],
        "replaced": server.replaced,
        "clock_apart": server.clock_apart,
        "clocks_ahead_ms": {p: round(o.ahead_us / 1000, 1) for p, (o, _) in sorted(server.offsets.items())},
        "alone": {zone: value["since"] for zone, value in server.alone.items()},
        "governance": server.governance.status(),
        "leader": {"region": leader, "term": term, "held_here": server.leader.held()},
    }


HANDLERS: list[Any] = [live, ready, governing, health]
