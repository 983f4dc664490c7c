"""The OpenAPI description is true: generated requests find no server error and no answer it does not allow."""

from __future__ import annotations

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.cluster.api.conftest import Api

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 25


def test_answers_are_as_described(api: Api) -> None:
    url = api.urls["eu-west-1"]
    document = httpx.get(url + "/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    schema = schemathesis.openapi.from_dict(document)
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
