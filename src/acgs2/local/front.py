"""Keeps the edge to what is lawful now: asks regions what they know of rights, and tells the edge."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from acgs2.api.tokens import mint
from acgs2.drivers.envoy import Traffic
from acgs2.errors import InputError
from acgs2.local.loopback import loopback
from acgs2.local.proxies import Proxies
from acgs2.local.state import State
from acgs2.logs.write import get_logger
from acgs2.plan import Rights, known_in

__all__ = ["Shares", "Views", "keep", "read_shares", "write_shares"]

_LOG = get_logger("acgs2.front")
_EVERY_S = 0.5
_ASK_S = 2.0


@dataclass(frozen=True, slots=True)
class Shares:
    """What operators set: regions that take no part, and what percentage others take of what reaches them."""

    down: frozenset[str] = frozenset()
    weights: Mapping[str, int] = field(default_factory=dict)

    @property
    def health(self) -> Mapping[str, bool]:
        """Return the same as the routing decision takes it."""
        return dict.fromkeys(self.down, False)


def read_shares(state: State) -> Shares:
    """Return what operators set; nothing, if they never did."""
    try:
        body = json.loads(_path(state).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Shares()
    return Shares(frozenset(body["down"]), body["weights"])


def write_shares(state: State, shares: Shares) -> None:
    """Set what operators want; the edge goes by it within a second.

    Raises:
        InputError: a region does not serve clients (`unknown-region`), or a weight is not 0 to 100.
    """
    stacks = state.topology.stacks()
    for region in {*shares.down, *shares.weights}:
        if region not in stacks:
            raise InputError(
                "unknown-region", f"{region} serves no clients.", hint=f"Regions: {', '.join(stacks)}."
            )
    for region, weight in shares.weights.items():
        if not 0 <= weight <= 100:
            raise InputError(
                "weight-invalid", f"{weight} for {region} is no percentage.", hint="Give 0 to 100."
            )
    path = _path(state)
    new = path.with_suffix(".new")
    new.write_text(
        json.dumps({"down": sorted(shares.down), "weights": dict(shares.weights)}), encoding="utf-8"
    )
    os.replace(new, path)


def _path(state: State) -> Path:
    return state.path / "traffic.json"


class Views:
    """What regions last said of rights."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._token = ("", 0.0)

    async def rights(self) -> Rights | None:
        """Return what all regions that answer agree on; None if nobody answers."""
        regions = self._state.topology.regions
        answers = await asyncio.gather(*(asyncio.to_thread(self._ask, region) for region in regions))
        views = [view for view in answers if view is not None and view.zones]
        return Rights.shared(views) if views else None

    def _ask(self, region: str) -> Rights | None:
        try:
            headers = {"authorization": f"Bearer {self._bearer()}"}
            url = f"{self._state.url(region)}/api/v1/residency"
            answer = loopback().get(url, headers=headers, timeout=_ASK_S)
            return known_in(answer.json()) if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError, KeyError):
            return None

    def _bearer(self) -> str:
        token, until_s = self._token
        if time.time() > until_s - 60:
            until_s = time.time() + 900
            key = self._state.path / "secrets" / "signing.json"
            token = mint(key, "operator@edge", "operator", self._state.topology.name, int(time.time()))
            self._token = (token, until_s)
        return token


async def keep(proxies: Proxies, state: State) -> None:
    """Tell the edge whatever changes, until cancelled."""
    views = Views(state)
    told: tuple[Rights, Shares] | None = None
    while True:
        rights = await views.rights()
        shares = read_shares(state)
        if rights is not None and (rights, shares) != told:
            changed = await asyncio.to_thread(
                proxies.tell_edge, Traffic(rights, shares.health, shares.weights)
            )
            told = (rights, shares)
            if changed:
                _LOG.info("edge-told", files=changed)
        await asyncio.sleep(_EVERY_S)
