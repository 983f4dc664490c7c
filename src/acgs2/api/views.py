"""What regions say of themselves and see of each other, as the one that leads last heard it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from acgs2.api.tally import Counted, percentile_ms, since
from acgs2.consensus import boottime_s
from acgs2.plan import Measured, Observation, Standing

if TYPE_CHECKING:
    from acgs2.api.neighbours import Neighbours

__all__ = ["View", "Views", "lags_s", "measured"]

_PATH = "/health/observations"
_PATIENCE_S = 1.5
_FRESH = 3


class View(msgspec.Struct):
    """What one region said; `heard_s` is when it was asked, by this region's CLOCK_BOOTTIME."""

    region: str
    observations: list[Observation] = []
    standing: Standing = Standing()
    tally: dict[str, Counted] = {}
    fenced: bool = False
    heard_s: float = 0.0

    def fresh(self, interval_s: float) -> bool:
        """Return whether it was heard lately."""
        return boottime_s() - self.heard_s <= _FRESH * interval_s


class Views:
    """Asks every region, side by side; who does not answer keeps what it said last, which grows old.

    Args:
        neighbours: the other regions' gateways.
    """

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        self._asking: dict[str, asyncio.Task[None]] = {}
        self.known: dict[str, View] = {}

    def take(self, body: Any, heard_s: float) -> None:
        """Take over what a region said when it was asked at a moment."""
        view = msgspec.convert(body, View)
        view.heard_s = heard_s
        self.known[view.region] = view

    def observations(self) -> list[Observation]:
        """Return all that was seen, as old as it is by now."""
        now_s = boottime_s()
        return [
            msgspec.structs.replace(each, age_s=each.age_s + now_s - view.heard_s)
            for view in self.known.values()
            for each in view.observations
        ]

    def ask(self) -> None:
        """Ask all that are not being asked already; nobody is waited for."""
        for region in self._neighbours.regions:
            task = self._asking.get(region)
            if task is None or task.done():
                self._asking[region] = asyncio.create_task(self._ask(region))

    async def _ask(self, region: str) -> None:
        asked_s = boottime_s()
        try:
            answer = await self._neighbours.get(region, _PATH, _PATIENCE_S)
            if answer.status_code == 200:
                self.take(answer.json(), asked_s)
        except (httpx.HTTPError, TimeoutError, ValueError):
            return  # what it said last grows old

    async def close(self) -> None:
        """Ask nobody any more."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)


def lags_s(views: Mapping[str, View]) -> Mapping[str, float]:
    """Return by how many seconds each region says that it is behind."""
    return {name: view.standing.lag_s for name, view in views.items()}


def measured(
    before: Mapping[str, View], after: Mapping[str, View], region: str, zones: Sequence[str]
) -> Measured:
    """Return what was seen of a region between two looks, and of its zones everywhere.

    Raises:
        KeyError: the region said nothing of itself.
    """
    own = since(before[region].tally, after[region].tally)
    everywhere = [
        since(view.tally if (view := before.get(name)) else {}, now.tally) for name, now in after.items()
    ]
    buckets = [sum(each) for each in zip(*(c.ms_buckets for c in own.values()), strict=True)]
    return Measured(
        lag_s=after[region].standing.lag_s,
        requests=sum(c.requests for c in own.values()),
        errors=sum(c.errors for c in own.values()),
        p99_ms=percentile_ms(buckets, 0.99),
        reads=sum(own[z].reads for z in zones if z in own),
        reads_of_zones=sum(each[z].reads for each in everywhere for z in zones if z in each),
    )
