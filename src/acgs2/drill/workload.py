"""Clients that write through the API and remember what was acknowledged to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx

__all__ = ["Acknowledged", "Client", "History", "write_for"]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write that a client was told is durable."""

    region: str
    zone: str
    entity: str
    key: str
    took_s: float


@dataclass
class History:
    """What clients saw: acknowledged writes, and refusals by status and kind of problem."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, what: str) -> None:
        """Count a refusal."""
        self.refused[what] = self.refused.get(what, 0) + 1


class Client:
    """One client of one region, with a token."""

    def __init__(self, region: str, url: str, token: str, history: History) -> None:
        self.region = region
        self._http = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=15)
        self._history = history

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def sees(self, path: str) -> bool:
        """Return whether the region has a record by now."""
        return (await self._http.get(f"/api/v1/{path}")).status_code == 200

    async def send(
        self, method: str, path: str, zone: str, body: Mapping[str, Any] | None = None, **headers: str
    ) -> dict[str, Any] | None:
        """Send a write; return the record if it was acknowledged, else count why not."""
        began_s = time.monotonic()
        sent = {"x-data-sovereignty": zone} | {k.replace("_", "-"): v for k, v in headers.items()}
        try:
            answer = await self._http.request(method, f"/api/v1/{path}", json=body, headers=sent)
        except httpx.HTTPError as error:
            self._history.refuse(type(error).__name__)
            return None
        if answer.status_code >= 400:
            self._history.refuse(f"{answer.status_code} {answer.json().get('type', '').rpartition('/')[2]}")
            return None
        record: dict[str, Any] = answer.json() if answer.content else {}
        self._history.acknowledged.append(
            Acknowledged(
                self.region, zone, path.partition("/")[0], record.get("id", ""), time.monotonic() - began_s
            )
        )
        return record


async def write_for(client: Client, zone: str, tenant: str, seconds: float, rng: Random) -> None:
    """Write as a tenant's applications do: users, their changes, agents, events; until the time is over."""
    ends_s = time.monotonic() + seconds
    users: list[str] = []
    while time.monotonic() < ends_s:
        choice = rng.random()
        if choice < 0.4 or not users:
            made = await client.send(
                "POST",
                "users",
                zone,
                {
                    "tenant_id": tenant,
                    "display_name": f"Person {rng.randrange(10**9)}",
                    "preferences": rng.sample(["dark", "compact", "beta", "mail", "sms"], 2),
                },
            )
            if made:
                users.append(made["id"])
        elif choice < 0.7:
            await client.send("PATCH", f"users/{rng.choice(users)}", zone, {"login_count": {"increment": 1}})
        elif choice < 0.85:
            await client.send(
                "POST", "agents", zone, {"tenant_id": tenant, "name": f"agent {rng.randrange(10**6)}"}
            )
        else:
            await client.send(
                "POST",
                "audit-events",
                zone,
                {"tenant_id": tenant, "actor": "demo", "action": "looked", "subject": rng.choice(users)},
            )
        await asyncio.sleep(0)
