"""Keeps the edge to what is lawful and agreed now: asks regions what they know, and tells the edge."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from acgs2.api.tokens import mint
from acgs2.drivers.envoy import Traffic
from acgs2.local.proxies import Proxies
from acgs2.local.state import State
from acgs2.logs.write import get_logger
from acgs2.plan import Rights, Shares, known_in

__all__ = ["Seen", "Views", "keep"]

_LOG = get_logger("acgs2.front")
_EVERY_S = 0.4
_ASK_S = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What regions say: the rights that all who answer agree on, None if nobody does, and the newest shares.

    The version is how often what is agreed on shares has changed.
    """

    rights: Rights | None = None
    shares: Shares = field(default_factory=Shares)
    version: int = -1


class Views:
    """What regions last said of rights, and of where traffic goes."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._token = ("", 0.0)
        self._rights: dict[str, Rights] = {}
        self._shares: tuple[int, Shares] = (-1, Shares())

    async def look(self) -> Seen:
        """Ask every region once, and return what is known then."""
        async with _client() as http:
            await asyncio.gather(*(self._look(http, region) for region in self._state.topology.regions))
        return self.seen()

    async def follow(self, changed: asyncio.Event) -> None:
        """Ask every region again and again until cancelled; one that is slow to answer holds up no other.

        Args:
            changed: is set when something else is known than before.
        """

        async def ask(http: httpx.AsyncClient, region: str) -> None:
            while True:
                began_s, before = time.monotonic(), self.seen()
                await self._look(http, region)
                if self.seen() != before:
                    changed.set()
                await asyncio.sleep(max(_EVERY_S - (time.monotonic() - began_s), 0.0))

        async with _client() as http, asyncio.TaskGroup() as group:
            for region in self._state.topology.regions:
                group.create_task(ask(http, region))

    def seen(self) -> Seen:
        """Return what is known now; what was once agreed on shares is not forgotten when nobody answers."""
        version, shares = self._shares
        return Seen(Rights.shared([*self._rights.values()]) if self._rights else None, shares, version)

    async def _look(self, http: httpx.AsyncClient, region: str) -> None:
        try:
            traffic = await self._get(http, region, "traffic")
            residency = await self._get(http, region, "residency")
            if traffic is not None and traffic["version"] > self._shares[0]:
                self._shares = traffic["version"], Shares(tuple(traffic["down"]), traffic["weights"])
            rights = known_in(residency or ())
        except (httpx.HTTPError, ValueError, KeyError):
            rights = Rights({})
        if rights.zones:
            self._rights[region] = rights
        else:
            self._rights.pop(region, None)

    async def _get(self, http: httpx.AsyncClient, region: str, what: str) -> Any:
        url = f"{self._state.url(region)}/api/v1/{what}"
        answer = await http.get(url, headers={"authorization": f"Bearer {self._bearer()}"})
        return answer.json() if answer.status_code == 200 else None

    def _bearer(self) -> str:
        token, until_s = self._token
        if time.time() > until_s - 60:
            until_s = time.time() + 900
            key = self._state.path / "secrets" / "signing.json"
            token = mint(key, "operator@edge", "operator", self._state.topology.name, int(time.time()))
            self._token = (token, until_s)
        return token


def _client() -> httpx.AsyncClient:
    """Return a client whose every request has its own connection: whoever is asked may just have died."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(verify=False, trust_env=False, timeout=_ASK_S, limits=limits)


async def keep(proxies: Proxies, state: State) -> None:
    """Tell the edge whatever changes, until cancelled."""
    views, changed = Views(state), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(views.follow(changed))
        while True:
            await changed.wait()
            changed.clear()
            seen = views.seen()
            if seen.rights is None:
                continue
            traffic = Traffic(seen.rights, seen.shares.health, seen.shares.weights)
            files = await asyncio.to_thread(proxies.tell_edge, traffic)
            if files:
                _LOG.info("edge-told", files=files, version=seen.version)
