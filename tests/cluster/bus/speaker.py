"""What tests of the bus say and as whom: tenants, agents, tokens, messages."""

from __future__ import annotations

import os
import time
from typing import Any
from uuid import uuid4

import httpx

from acgs2.api.tokens import mint
from acgs2.local.cluster import Cluster
from acgs2.model.ids import uuid7

CONSTITUTION = "cdd01ef066bc6cf2"
PAYMENT = {"message_type": "payment", "payload": {"amount": 50_000}, "priority": 3}
APPROVERS = ("ann@acgs2.example", "bo@acgs2.example", "cy@acgs2.example")


class Speaker:
    """A tenant of a zone with a few agents, spoken for through the servers of a cluster."""

    def __init__(self, cluster: Cluster, zone: str, region: str, *, agents: int = 3) -> None:
        self.cluster = cluster
        self.zone = zone
        self.region = region
        self.http = httpx.Client(timeout=20)
        operator = self.token("operator@test", "operator")
        self.tenant: str = self._made("tenants", {"name": "Acme"}, operator)["id"]
        self.agents: list[str] = [
            self._made("agents", {"tenant_id": self.tenant, "name": f"agent {n}"}, operator)["id"]
            for n in range(agents)
        ]
        self.service = self.token("service", "service", self.tenant)

    def token(self, subject: str, role: str, tenant: str | None = None, **more: Any) -> str:
        key = self.cluster.state.path / "secrets" / "signing.json"
        name = self.cluster.state.topology.name
        return mint(key, subject, role, name, int(time.time()), tenant=tenant, **more)

    def agent_token(self, agent: str) -> str:
        return self.token(agent, "agent", self.tenant)

    def message(self, **changed: Any) -> dict[str, Any]:
        made: dict[str, Any] = {
            "message_id": str(uuid7(time.time_ns() // 1_000_000, os.urandom(10))),
            "conversation_id": str(uuid4()),
            "tenant_id": self.tenant,
            "from_agent": self.agents[0],
            "to_agent": self.agents[1],
            "message_type": "greeting",
            "content": "hello",
            "constitutional_hash": CONSTITUTION,
        }
        return {name: value for name, value in (made | changed).items() if value is not ...}

    def send(
        self, message: dict[str, Any], *, token: str = "", region: str = "", **headers: str
    ) -> httpx.Response:
        return self.ask("POST", "/api/v1/messages", message, token=token, region=region, **headers)

    def ask(
        self, method: str, path: str, body: Any = None, *, token: str = "", region: str = "", **headers: str
    ) -> httpx.Response:
        sent = {"authorization": f"Bearer {token or self.service}", "x-data-sovereignty": self.zone}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = self.cluster.state.url(region or self.region) + path
        if isinstance(body, bytes):
            sent["content-type"] = "application/json"
            return self.http.request(method, url, content=body, headers=sent)
        return self.http.request(method, url, json=body, headers=sent)

    def _made(self, path: str, body: dict[str, Any], token: str) -> dict[str, Any]:
        answer = self.ask("POST", f"/api/v1/{path}", body, token=token)
        assert answer.status_code == 201, answer.text
        return answer.json()


def problem(answer: httpx.Response) -> str:
    """Return the reference of a problem; the answer must be one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["type"]).rpartition("/")[2]
