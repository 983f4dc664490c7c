"""Clients that write and read through the API of a region, and record what they sent and were told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from acgs2.drill.history import History, Operation, Outcome
from acgs2.model import entities

__all__ = ["Act", "Client"]

_ENTITIES = {entity.path: entity.name for entity in entities().values()}
#: Of a record only what the checker goes by is kept.
_LEFT_OUT = ("tenant_id", "updated_at", "updated_in", "residency")
#: Answers 503 that promise that nothing was stored; any other 503 leaves it open.
_NOTHING_STORED = (
    "pair-unavailable",
    "pair-held-elsewhere",
    "rules-unknown",
    "region-not-seeded",
    "clock-apart",
)


@dataclass(frozen=True, slots=True)
class Act:
    """One request as it is to be sent, and in `kind` and `sent` what it means."""

    kind: str
    method: str
    path: str
    zone: str
    entity: str
    key: str = ""
    body: Mapping[str, Any] | None = None
    sent: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    if_match: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that say the same."""
        given = {
            "x-data-sovereignty": self.zone,
            "idempotency-key": self.idempotency_key,
            "if-match": self.if_match,
        }
        return {name: value for name, value in given.items() if value}


class Client:
    """One client of one region, with a token."""

    def __init__(
        self, region: str, url: str, token: str, history: History, *, name: str = "", timeout_s: float = 15.0
    ) -> None:
        self.region = region
        self.name = name or region
        # The environment may name a proxy for what is outside; regions are reached directly.
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(timeout_s, connect=2.0),
            trust_env=False,
        )
        self._history = history

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def sees(self, path: str) -> bool:
        """Return whether the region has a record by now."""
        try:
            return (await self._http.get(f"/api/v1/{path}")).status_code == 200
        except httpx.HTTPError:
            return False

    async def do(self, act: Act) -> Operation:
        """Send a request; return it with what came of it."""
        number = self._history.invoke(
            self.name,
            self.region,
            act.zone,
            act.kind,
            act.entity,
            act.key,
            sent=dict(act.sent),
            idempotency_key=act.idempotency_key,
        )
        reading = act.method == "GET"
        try:
            answer = await self._http.request(
                act.method, f"/api/v1/{act.path}", json=act.body, headers=act.headers
            )
        except httpx.HTTPError as error:
            # What was never sent did not happen; with anything else nobody knows.
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            outcome: Outcome = "fail" if reading or unsent else "info"
            return self._history.complete(number, outcome, {"problem": type(error).__name__})
        body = _body(answer)
        shown: dict[str, Any] = {"status": answer.status_code}
        if answer.status_code < 300:
            if "etag" in answer.headers:
                shown["etag"] = answer.headers["etag"]
            return self._history.complete(number, "ok", shown | {"record": _kept(body)})
        shown["problem"] = str(body.get("type", "")).rpartition("/")[2]
        unknown = answer.status_code >= 500 and shown["problem"] not in _NOTHING_STORED
        return self._history.complete(number, "info" if unknown and not reading else "fail", shown)

    async def send(
        self, method: str, path: str, zone: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Send a write; return the record if it was acknowledged."""
        entity = _ENTITIES[path.partition("/")[0]]
        kind = "create" if method == "POST" else "change"
        done = await self.do(Act(kind, method, path, zone, entity, path.partition("/")[2], body, body or {}))
        return dict(done.answer["record"]) if done.ok else None


def _body(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return {}  # nothing, or a word of a server that is about to stop


def _kept(body: Any) -> dict[str, Any]:
    return {k: v for k, v in body.items() if k not in _LEFT_OUT} if isinstance(body, dict) else {}
