"""The OpenAPI description is true: generated requests find no server error and no answer it does not allow."""

from __future__ import annotations

import os
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.cluster.api.conftest import Api

from acgs2.local.loopback import loopback
from acgs2.model.ids import uuid7

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 25
DOOR = "/api/v1/messages"


@pytest.fixture(scope="module")
def schema(api: Api) -> Any:
    document = httpx.get(api.urls["eu-west-1"] + "/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert httpx.get(api.urls["eu-west-1"] + "/api/schema/openapi.json").json() == document
    return schemathesis.openapi.from_dict(document)


class Sender:
    """A tenant with two agents and one that is retired, and messages between them."""

    def __init__(self, api: Api) -> None:
        self.tenant = api.tenant()
        self.token = api.token("service", "service", self.tenant)
        self.agents = [self._agent(api, name) for name in ("ann", "ben", "old")]
        retired = api.call(
            "eu-west-1", "PATCH", f"/api/v1/agents/{self.agents[2]}", "eu", json={"status": "retired"}
        )
        assert retired.status_code == 200, retired.text

    def _agent(self, api: Api, name: str) -> str:
        made = api.call(
            "eu-west-1", "POST", "/api/v1/agents", "eu", json={"tenant_id": self.tenant, "name": name}
        )
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def message(self, **changed: Any) -> dict[str, Any]:
        return {
            "message_id": str(uuid7(time.time_ns() // 1_000_000, os.urandom(10))),
            "conversation_id": str(uuid4()),
            "tenant_id": self.tenant,
            "from_agent": self.agents[0],
            "to_agent": self.agents[1],
            "message_type": "greeting",
            "constitutional_hash": "cdd01ef066bc6cf2",
        } | changed


@pytest.fixture(scope="module")
def sender(api: Api) -> Sender:
    return Sender(api)


def test_whatever_a_sender_says_the_door_answers_as_described(api: Api, schema: Any, sender: Sender) -> None:
    operation = schema[DOOR]["POST"]
    seen: set[int] = set()

    @settings(
        max_examples=4 * EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy())
    def attack(case: schemathesis.Case) -> None:
        if isinstance(case.body, dict):
            # What cannot be guessed; the rest is as it was generated.
            case.body |= sender.message(
                **{
                    name: value
                    for name, value in case.body.items()
                    if name in ("message_type", "conversation_id")
                }
            )
            case.body |= {"topic": None, "to_tenant_id": None, "expires_at": None}
        headers = {"authorization": f"Bearer {sender.token}", "x-data-sovereignty": "eu"}
        answer = case.call(base_url=api.urls["eu-west-1"], headers=headers, timeout=20)
        seen.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    attack()
    assert 201 in seen


def test_every_answer_of_the_door_is_described(api: Api, schema: Any, sender: Sender) -> None:
    operation = schema[DOOR]["POST"]
    repeated = sender.message()
    payment = {"message_type": "payment", "payload": {"amount": 50_000}, "priority": 3}
    large = {"payload": {"a": ["x" * 1000] * 310}}
    plain = {"content-type": "text/plain"}
    attempts: list[tuple[int, str, dict[str, Any], dict[str, str]]] = [
        (201, "eu-west-1", repeated, {}),
        (200, "eu-central-1", repeated, {}),
        (409, "eu-west-1", repeated | {"content": "other"}, {}),
        (202, "eu-west-1", sender.message(**payment), {}),
        (403, "eu-west-1", sender.message(to_agent=sender.agents[2]), {}),
        (404, "eu-west-1", sender.message(to_agent=str(uuid4())), {}),
        (409, "eu-west-1", sender.message(constitutional_hash="0" * 16), {}),
        (400, "eu-west-1", sender.message(message_id=str(uuid4())), {}),
        (413, "eu-west-1", sender.message(**large), {}),
        (415, "eu-west-1", sender.message(), plain),
        (421, "us-east-1", sender.message(), {}),
        (401, "eu-west-1", sender.message(), {"authorization": "Bearer x"}),
    ]
    for status, region, body, headers in attempts:
        sent = {"authorization": f"Bearer {sender.token}", "x-data-sovereignty": "eu"} | headers
        answer = loopback().post(api.urls[region] + DOOR, json=body, headers=sent, timeout=20)
        assert answer.status_code == status, answer.text
        case = operation.Case(body=body, media_type="application/json")
        case.validate_response(answer, checks=CHECKS)
        shown = answer.json()
        if status < 300:
            assert (shown["message_id"], "deliberation" in shown) == (body["message_id"], status == 202)
        if status in (201, 202, 403):
            _traced(api, schema, sender, body["message_id"])
        if status == 403:
            assert (shown["decision"], shown["message_id"]) == ("deny", body["message_id"])
            assert "deliberation" not in shown


def _traced(api: Api, schema: Any, sender: Sender, message: str) -> None:
    operation = schema[f"{DOOR}/{{record_id}}/trace"]["GET"]
    answer = api.call("eu-west-1", "GET", f"{DOOR}/{message}/trace", token=sender.token)
    assert answer.status_code == 200, answer.text
    case = operation.Case(path_parameters={"record_id": message})
    case.validate_response(answer, checks=CHECKS)


def test_answers_are_as_described(api: Api, schema: Any) -> None:
    # The last one here: an operator who does anything at random halts everything as well.
    url = api.urls["eu-west-1"]
    seen: set[tuple[str, int]] = set()
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 25
    for operation in operations:
        if operation.path.endswith("/events"):
            continue  # a stream, which does not end

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def attack(case: schemathesis.Case) -> None:
            headers = {"authorization": f"Bearer {api.token()}"}
            if case.method in ("POST", "PATCH", "DELETE"):
                headers["x-data-sovereignty"] = "eu"
            answer = case.call(base_url=url, headers=headers, timeout=20)
            seen.add((case.method, answer.status_code))
            case.validate_response(answer, checks=CHECKS)

        attack()
    # The attack is worth something only if it got past the door.
    assert {("GET", 200), ("POST", 201), ("POST", 400), ("PATCH", 404)} <= seen
