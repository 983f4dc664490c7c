"""What regions say of themselves and see of each other, as the one that leads last heard it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from acgs2.consensus import boottime_s
from acgs2.plan import Observation, Standing

__all__ = ["PATH", "View", "Views"]

PATH = "/health/observations"
_TIMEOUT_S = 1.5
_FRESH = 3


class View(msgspec.Struct):
    """What one region said; `heard_s` is when it was asked, by this region's CLOCK_BOOTTIME."""

    region: str
    observations: list[Observation] = []
    ready: bool = False
    missing: tuple[str, ...] = ()
    seeded: bool = False
    fenced: bool = False
    lag_s: float = 0.0
    governing: dict[str, int] = {}
    tally: dict[str, dict[str, Any]] = {}
    heard_s: float = 0.0

    def fresh(self, interval_s: float) -> bool:
        """Return whether it was heard lately."""
        return boottime_s() - self.heard_s <= _FRESH * interval_s

    def standing(self, in_force: Mapping[str, int], *, equal: bool, differs: str = "") -> Standing:
        """Return what decides whether it is let in again."""
        return Standing(
            ready=self.ready,
            missing=self.missing,
            seeded=self.seeded,
            lag_s=self.lag_s,
            equal=equal,
            differs=differs,
            governing=self.governing,
            in_force=dict(in_force),
        )


class Views:
    """Asks every region, side by side; who does not answer keeps what it said last, which grows old.

    Args:
        urls: region to base URL, over the links.
    """

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = dict(urls)
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_S)
        self._asking: dict[str, asyncio.Task[None]] = {}
        self.known: dict[str, View] = {}

    def take(self, body: Any) -> None:
        """Take over what a region said just now."""
        view = msgspec.convert(body, View)
        view.heard_s = boottime_s()
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
        for region in self._urls:
            task = self._asking.get(region)
            if task is None or task.done():
                self._asking[region] = asyncio.create_task(self._ask(region))

    async def _ask(self, region: str) -> None:
        asked_s = boottime_s()
        try:
            answer = await self._http.get(self._urls[region] + PATH)
            if answer.status_code == 200:
                self.take(answer.json())
                self.known[region].heard_s = asked_s
        except (httpx.HTTPError, ValueError, KeyError):
            return  # what it said last grows old

    async def close(self) -> None:
        """Ask nobody any more."""
        for task in self._asking.values():
            task.cancel()
        await self._http.aclose()
