"""Regions with a bus, simulated in one process: an edge before them, messages, an inbox with generations."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx

from acgs2 import Client
from acgs2.errors import PROBLEM_TYPES

EDGE = "https://api.acgs2.example"
TENANT, SENDER, RECEIVER = (str(UUID(int=n)) for n in (1, 2, 3))
WHEN = "2026-01-01T00:00:00Z"
#: What can happen to a request, and to the inbox before it.
FAULTS = ("none", "lost before", "lost after", "later", "doubt", "away", "takeover", "lapse", "forget")


@dataclass
class World(httpx.AsyncBaseTransport):
    """What the regions `west` and `central` hold, and what happens to the requests that come.

    Args:
        faults: one for each request, in order; after the last one nothing goes wrong any more.
        at_once: whether an inbox gives several messages of a conversation at once.
        lapses: whether all holds have ended when a claim found nothing.
    """

    faults: list[str] = field(default_factory=list)
    at_once: bool = False
    lapses: bool = True
    stored: dict[str, bytes] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    serving: str = "west"
    generation: int = 1
    waiting: list[dict[str, Any]] = field(default_factory=list)
    claims: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)

    def put(self, number: int, conversation: int, kind: str = "note", **more: Any) -> None:
        """Let a message wait in the inbox."""
        self.waiting.append(
            {
                "message_id": str(UUID(int=1000 + number)),
                "conversation_id": str(UUID(int=conversation)),
                "tenant_id": TENANT,
                "from_agent": SENDER,
                "to_agent": RECEIVER,
                "message_type": kind,
                "zone": "eu",
                "payload": {"number": number},
                **more,
            }
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fault = self.faults.pop(0) if self.faults else "none"
        self._happens(fault)
        if fault == "away":
            raise httpx.ConnectError("nobody")
        # The transport says when a request leaves; this one does too.
        await request.extensions["trace"]("http11.send_request_headers.started", {})
        if fault == "lost before":
            raise httpx.ReadError("lost")
        if fault == "later":
            return problem(503, "not-governing")
        answer = self._answer(request)
        if fault == "lost after":
            raise httpx.ReadError("lost")
        return problem(503, "outcome-unknown") if fault == "doubt" else answer

    def _happens(self, fault: str) -> None:
        if fault == "takeover":
            self.serving = "central" if self.serving == "west" else "west"
            self.generation += 1
            self.claims.clear()
        elif fault == "lapse":
            self.claims.clear()
        elif fault == "forget" and self.done:
            # A region died before others heard of the last acknowledgement.
            last = self.done.pop()
            self._happens("takeover")
            self.waiting.sort(key=lambda m: (m["message_id"] != last, m["message_id"]))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/api/v1/messages":
            return self._send(request.content)
        if path.startswith("/api/v1/inboxes/"):
            wanted = request.headers["x-region-preference"]
            if wanted not in (self.serving, "auto"):
                return problem(421, "inbox-served-elsewhere", endpoints=[{"region": self.serving}])
            return self._inbox(path.rpartition("/")[2], json.loads(request.content))
        raise AssertionError(path)

    def _send(self, body: bytes) -> httpx.Response:
        self.bodies.append(body)
        said = json.loads(body)
        fresh = said["message_id"] not in self.stored
        if not fresh and self.stored[said["message_id"]] != body:
            return problem(409, "message-id-reused")
        self.stored[said["message_id"]] = body
        if said["message_type"] == "forbidden":
            return problem(403, "denied-by-policy", basis={"policies": ["never"]})
        receipt = {
            "message_id": said["message_id"],
            "conversation_id": said["conversation_id"],
            "decision": "allow",
            "impact": 0.1,
            "basis": {"policies": ["within-a-tenant"]},
            "zone": "eu",
            "accepted_at": WHEN,
            "accepted_in": "west",
        }
        return httpx.Response(201 if fresh else 200, json=receipt)

    def _inbox(self, act: str, body: dict[str, Any]) -> httpx.Response:
        if act == "claim":
            claims = self._claim(body)
            if not claims and self.lapses:
                self.claims.clear()  # it waited for so long that all holds have ended
            return httpx.Response(200, json={"generation": self.generation, "claims": claims})
        old = [c for c in body["claims"] if int(c.partition(".")[0]) != self.generation]
        if old:
            return problem(409, "generation-old", claims=old)
        outcomes = []
        for claim in body["claims"]:
            message = self.claims.pop(claim, None)
            if message and act == "acknowledge":
                self.done.append(message)
            said = "lapsed" if message is None else "done" if act == "acknowledge" else "returned"
            outcomes.append({"claim": claim, "outcome": said})
        return httpx.Response(200, json={"generation": self.generation, "claims": outcomes})

    def _claim(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        given, held = [], set(self.claims.values())
        busy = set()
        for message in self.waiting:
            key, conversation = message["message_id"], message["conversation_id"]
            if key in self.done:
                continue
            if key not in held and conversation not in busy and len(given) < body["limit"]:
                claim = f"{self.generation}.{next(self._numbers)}"
                self.claims[claim] = key
                self.attempts[key] = self.attempts.get(key, 0) + 1
                given.append(
                    {"claim": claim, "message": message, "attempt": self.attempts[key], "deadline": WHEN}
                )
            if not self.at_once:
                busy.add(conversation)
        return given


def problem(status: int, reference: str, **more: Any) -> httpx.Response:
    body = {"type": PROBLEM_TYPES + reference, "title": "", "status": status, "detail": "", **more}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"})


class WorldClient(Client):
    """A client in such a world, whose waits take no time."""

    def __init__(self, world: World) -> None:
        super().__init__(EDGE, zone="eu", token="opaque")
        self._world = world
        self._caller.jitter = self._inbox_calls.jitter = lambda: 0.0

    async def __aenter__(self) -> WorldClient:
        await self._caller.open(httpx.AsyncClient(transport=self._world))
        return self
