"""What a region sees of every other one, looking once a second, and what it says of itself to those who lead.

It looks as the others' clients do: by the gateway, and over the link. What to make of it is decided by a
majority of all voters' observations, never by one: see `acgs2.plan.observations`.
"""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import Any

import httpx
import msgspec
from litestar import Request, get

from acgs2.api.facts import FRESH_S, Vital
from acgs2.api.health import checks
from acgs2.api.region import RegionServer
from acgs2.logs.write import get_logger
from acgs2.plan import Observation, Standing, fold

__all__ = ["HANDLERS", "patience_s", "problem_of", "run_observers", "told"]

Http = Request[Any, Any, Any]
_LOG = get_logger("acgs2.observers")
_PATH = "/health/ready"
#: How long an answer is waited for: so many round trips of the link, and within these bounds.
_ROUND_TRIPS = 8
_LEAST_S = 1.0
_MOST_S = 3.0


def patience_s(rtt_ms: float) -> float:
    """Return how long an answer over a link is waited for: a link that is slow is not one that is dead."""
    return min(max(_LEAST_S, _ROUND_TRIPS * rtt_ms / 1000), _MOST_S)


def problem_of(answer: httpx.Response) -> str | None:
    """Return what is wrong with a region's answer, None if it is ready."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return f"answered {answer.status_code}"
    if answer.status_code == 200 and body.get("status") == "ready":
        return None
    if body.get("missing"):
        return f"not-ready: {', '.join(map(str, body['missing']))}"
    if reference := str(body.get("type", "")).rpartition("/")[2]:
        return reference
    return f"answered {answer.status_code}"


async def run_observers(server: RegionServer) -> None:
    """Look at every other region until cancelled."""
    rtts_ms = {frozenset((link.a, link.b)): link.rtt_ms for link in server.topology.links()}
    async with asyncio.TaskGroup() as group:
        for region in server.neighbours.regions:
            rtt_ms = rtts_ms.get(frozenset((server.region, region)), 0.0)
            group.create_task(_observe(server, region, patience_s(rtt_ms)))


async def _observe(server: RegionServer, region: str, patience: float) -> None:
    """Look at one region once an interval; a look that is not over yet does not delay the next."""
    interval_s = server.topology.failover.interval_s
    newest_s = float("-inf")

    async def look() -> None:
        nonlocal newest_s
        began_s = time.monotonic()
        problem = await _look(server, region, patience)
        if began_s > newest_s:  # what began earlier and ended later says nothing about now
            newest_s = began_s
            _note(server, region, problem)

    await asyncio.sleep(Random().uniform(0, interval_s))  # so that not all look at one moment
    async with asyncio.TaskGroup() as looks:
        while True:
            looks.create_task(look())
            await asyncio.sleep(interval_s)


async def _look(server: RegionServer, region: str, patience: float) -> str | None:
    try:
        return problem_of(await server.neighbours.get(region, _PATH, patience))
    except (TimeoutError, httpx.TimeoutException):
        return "timeout"
    except (httpx.NetworkError, httpx.RemoteProtocolError):
        return "refused"
    except httpx.HTTPError as error:
        return type(error).__name__


def _note(server: RegionServer, region: str, problem: str | None) -> None:
    before, _ = server.observed.get(region, (Observation(server.region, region), 0.0))
    now = fold(before, problem)
    server.observed[region] = (now, time.monotonic())
    if now.failures == 1 or now.problem != before.problem:
        _LOG.info("seen", region=region, problem=now.problem or None, failures=now.failures)


@get("/health/observations", summary="What is seen from here", include_in_schema=False)
async def observations(request: Http) -> dict[str, Any]:
    """Answer with what this region sees of others, how it stands itself, and what it has answered so far."""
    return await told(request.app.state.server)


async def told(server: RegionServer) -> dict[str, Any]:
    """Return what this region says of others and of itself."""
    vital = await server.facts.vital()
    now_s = time.monotonic()
    seen = [
        msgspec.structs.replace(one, age_s=round(now_s - at_s, 3)) for one, at_s in server.observed.values()
    ]
    return {
        "region": server.region,
        "observations": seen,
        "standing": _standing(server, vital),
        "tally": server.tally.counted(),
        "fenced": server.participation.fenced() is not None,
    }


def _standing(server: RegionServer, vital: Vital | str) -> Standing:
    """Return what this region says of itself; what others have in force, it cannot say."""
    found = checks(server, vital)
    missing = tuple(name for name, well in found.items() if not well)
    lag_us = vital.lag_us if isinstance(vital, Vital) else {}
    known = server.governance.known
    connected = set(server.config.peers) - set(server.links_missing)
    differs = _differs(server, connected)
    # A source that can be reached and is not heard is behind by that much at least.
    lags_s = [lag_us[source] / 1e6 if source in lag_us else FRESH_S for source in connected]
    return Standing(
        ready=not missing,
        missing=missing,
        seeded=found["seeded"],
        equal=not differs,
        differs=differs,
        lag_s=round(max(lags_s, default=0.0), 3),
        governing=dict(known.versions) if known is not None else {},
    )


def _differs(server: RegionServer, connected: set[str]) -> str:
    """Return what is not known to be equal to the records of others; nothing, if all is.

    Of a region that was left only what was compared since then counts: it may have missed anything.
    """
    since_s = server.participation.fenced_s
    if since_s is not None and server.config.peers and not connected:
        return "not compared with anybody yet"
    told = []
    for peer in sorted(connected):
        at_s, differing = server.compared.get(peer, (float("-inf"), ()))
        if since_s is not None and at_s < since_s:
            told.append(f"not compared with {peer} yet")
        elif differing:
            told.append(f"{', '.join(differing)} differed from {peer}")
    return "; ".join(told)


HANDLERS: list[Any] = [observations]
