"""The API over real databases: who may write what where, and that what is refused is not stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from tests.cluster.api.conftest import Api, stored
from tests.cluster.conftest import Server, await_that

from acgs2.api.records import flushed_position
from acgs2.errors import OutcomeUnknown

WEST, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"


def problem(answer: httpx.Response, status: int, reference: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    body: dict[str, Any] = answer.json()
    assert body["type"].endswith(f"/{reference}")
    assert body["status"] == status
    assert body["detail"]
    return body


def test_a_paired_write_is_in_both_regions_when_it_is_acknowledged(
    server: Server, databases: Mapping[str, str], api: Api
) -> None:
    for _ in range(10):
        key = api.tenant("eu", WEST)
        with server.connect(databases[CENTRAL]) as conn:
            assert conn.execute(b"SELECT 1 FROM acgs.tenant WHERE key = %s", (key,)).fetchone()


def test_a_profile_is_created_changed_listed_and_erased(api: Api) -> None:
    tenant = api.tenant()
    made = api.call(
        WEST,
        "POST",
        "/api/v1/users",
        "eu",
        json={
            "tenant_id": tenant,
            "display_name": "Ann",
            "preferences": ["b", "a"],
            "login_count": 2,
            "last_login": "2026-01-01T00:00:00Z",
        },
    )
    assert made.status_code == 201
    user = made.json()
    assert user["preferences"] == ["a", "b"]
    assert made.headers["location"] == f"/api/v1/users/{user['id']}"
    changed = api.call(
        CENTRAL,
        "PATCH",
        f"/api/v1/users/{user['id']}",
        "eu",
        json={
            "preferences": {"add": ["c"], "remove": ["a"]},
            "login_count": {"increment": -1},
            "email": "ann@example.org",
        },
    )
    assert changed.status_code == 200, changed.text
    assert (changed.json()["preferences"], changed.json()["login_count"]) == (["b", "c"], 1)
    shown = api.call(US, "GET", f"/api/v1/users/{user['id']}")
    assert shown.status_code == 200
    assert shown.json()["residency"] == [CENTRAL, WEST, US]
    listed = api.call(WEST, "GET", f"/api/v1/users?tenant={tenant}")
    assert [u["id"] for u in listed.json()["items"]] == [user["id"]]
    assert api.call(WEST, "DELETE", f"/api/v1/users/{user['id']}", "eu").status_code == 204
    assert api.call(WEST, "DELETE", f"/api/v1/users/{user['id']}", "eu").status_code == 204
    problem(api.call(CENTRAL, "GET", f"/api/v1/users/{user['id']}"), 410, "erased")
    problem(
        api.call(CENTRAL, "PATCH", f"/api/v1/users/{user['id']}", "eu", json={"email": "x@y"}), 410, "erased"
    )


def test_pages_lead_through_everything_once(api: Api) -> None:
    tenant = api.tenant()
    made = [
        api.call(WEST, "POST", "/api/v1/agents", "eu", json={"tenant_id": tenant, "name": str(n)}).json()[
            "id"
        ]
        for n in range(7)
    ]
    seen: list[str] = []
    path: str | None = f"/api/v1/agents?tenant={tenant}&limit=3"
    while path:
        page = api.call(WEST, "GET", path).json()
        seen += [a["id"] for a in page["items"]]
        path = f"/api/v1/agents?tenant={tenant}&limit=3&next={page['next']}" if page["next"] else None
    assert seen == sorted(made)


def test_a_versioned_record_is_changed_only_by_who_saw_it(api: Api) -> None:
    tenant = api.tenant()
    made = api.call(WEST, "POST", "/api/v1/configs", "eu", json={"tenant_id": tenant, "settings": {"a": 1}})
    first = made.headers["etag"]
    path = f"/api/v1/configs/{made.json()['id']}"
    problem(api.call(WEST, "PATCH", path, "eu", json={"settings": {}}), 428, "if-match-missing")
    changed = api.call(WEST, "PATCH", path, "eu", json={"settings": {"a": 2}}, headers={"if-match": first})
    assert (changed.status_code, changed.json()["config_version"]) == (200, 2)
    assert first.startswith('"1-')
    assert changed.headers["etag"].startswith('"2-')
    problem(
        api.call(WEST, "PATCH", path, "eu", json={"settings": {}}, headers={"if-match": first}),
        412,
        "version-mismatch",
    )
    other = api.call(WEST, "POST", "/api/v1/agents", "eu", json={"tenant_id": tenant, "name": "a"})
    stale = api.call(
        WEST,
        "PATCH",
        f"/api/v1/agents/{other.json()['id']}",
        "eu",
        json={"name": "b"},
        headers={"if-match": '"x"'},
    )
    problem(stale, 412, "version-mismatch")


def test_a_version_that_another_of_the_same_number_replaced_is_not_the_one_that_was_seen(
    api: Api, server: Server, databases: Mapping[str, str]
) -> None:
    tenant = api.tenant()
    made = api.call(WEST, "POST", "/api/v1/configs", "eu", json={"tenant_id": tenant, "settings": {"a": 1}})
    path = f"/api/v1/configs/{made.json()['id']}"
    # As the merge does when another region has given the same number to another content, and that one wins.
    with server.connect(databases[WEST]) as conn:
        conn.execute(b"SET session_replication_role = replica")
        conn.execute(
            b"UPDATE acgs.tenant_config SET settings = '{\"a\": 9}', vv = vv || '{\"us-east-1#00000002\": 1}' WHERE key = %s",
            (made.json()["id"],),
        )
    seen = {"if-match": made.headers["etag"]}
    problem(api.call(WEST, "PATCH", path, "eu", json={"settings": {}}, headers=seen), 412, "version-mismatch")


def test_an_idempotency_key_makes_one_record_in_whichever_region_it_is_used(api: Api) -> None:
    key, body = str(uuid4()), {"name": "Once"}
    answers = [
        api.call(r, "POST", "/api/v1/tenants", "eu", json=body, headers={"idempotency-key": key})
        for r in (WEST, WEST, CENTRAL)
    ]
    assert [a.status_code for a in answers] == [201, 201, 200]
    assert len({a.json()["id"] for a in answers}) == 1
    problem(
        api.call(
            WEST, "POST", "/api/v1/tenants", "eu", json={"name": "Other"}, headers={"idempotency-key": key}
        ),
        409,
        "idempotency-key-reused",
    )
    tenant = answers[0].json()["id"]
    user = api.call(
        WEST, "POST", "/api/v1/users", "eu", json={"tenant_id": tenant, "display_name": "A"}
    ).json()["id"]
    for _ in range(3):
        again = api.call(
            WEST,
            "PATCH",
            f"/api/v1/users/{user}",
            "eu",
            json={"login_count": {"increment": 1}},
            headers={"idempotency-key": "inc-" + key},
        )
        assert again.json()["login_count"] == 1


WRONG = [
    ("no zone", WEST, None, {"name": "x"}, {}, 400, "zone-missing"),
    ("unknown zone", WEST, "atlantis", {"name": "x"}, {}, 400, "zone-unknown"),
    ("not lawful here", US, "eu", {"name": "x"}, {}, 421, "residency-not-lawful-here"),
    ("unlawful preference", WEST, "eu", {"name": "x"}, {"x-region-preference": US}, 403, "region-not-lawful"),
    (
        "other preference",
        WEST,
        "eu",
        {"name": "x"},
        {"x-region-preference": CENTRAL},
        421,
        "other-region-preferred",
    ),
    ("unknown region", WEST, "eu", {"name": "x"}, {"x-region-preference": "mars-1"}, 400, "region-unknown"),
    ("missing field", WEST, "eu", {}, {}, 400, "bad-request"),
    ("empty name", WEST, "eu", {"name": ""}, {}, 400, "bad-request"),
    ("unknown field", WEST, "eu", {"name": "x", "role": "king"}, {}, 400, "bad-request"),
    ("wrong type", WEST, "eu", {"name": 5}, {}, 400, "bad-request"),
    ("not in the enumeration", WEST, "eu", {"name": "x", "status": "great"}, {}, 400, "bad-request"),
    ("NUL", WEST, "eu", {"name": "a\x00b"}, {}, 400, "nul-character"),
    ("too long", WEST, "eu", {"name": "x" * 201}, {}, 400, "bad-request"),
    ("bad mail", WEST, "eu", {"name": "x", "contact_email": "nobody"}, {}, 400, "bad-request"),
    ("not JSON", WEST, "eu", b'{"name": ', {}, 400, "bad-request"),
    ("a list", WEST, "eu", b"[]", {}, 400, "bad-request"),
    ("no body", WEST, "eu", b"", {}, 400, "bad-request"),
    ("bad UTF-8", WEST, "eu", b'{"name": "\xff"}', {}, 400, "bad-request"),
    ("lone surrogate", WEST, "eu", b'{"name": "\\ud800"}', {}, 400, "bad-request"),
    ("oversize", WEST, "eu", {"name": "x" * 400_000}, {}, 413, "body-too-large"),
    ("form", WEST, "eu", {"name": "x"}, {"content-type": "text/plain"}, 415, "media-type-unknown"),
    ("compressed", WEST, "eu", {"name": "x"}, {"content-encoding": "gzip"}, 415, "encoding-unknown"),
    ("bad key", WEST, "eu", {"name": "x"}, {"idempotency-key": "x" * 201}, 400, "bad-request"),
]


@pytest.mark.parametrize(
    ("region", "zone", "body", "headers", "status", "reference"),
    [w[1:] for w in WRONG],
    ids=[w[0] for w in WRONG],
)
def test_what_is_wrong_is_a_problem_and_stores_nothing(
    server: Server,
    databases: Mapping[str, str],
    api: Api,
    region: str,
    zone: str | None,
    body: Any,
    headers: dict[str, str],
    status: int,
    reference: str,
) -> None:
    before = stored(server, databases)
    sent: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"json": body}
    found = problem(
        api.call(region, "POST", "/api/v1/tenants", zone, headers=headers, **sent), status, reference
    )
    if status == 421:
        assert {e["region"] for e in found["endpoints"]} <= {WEST, CENTRAL}
    assert stored(server, databases) == before


def test_a_header_that_disagrees_with_the_tenant_is_refused(
    server: Server, databases: Mapping[str, str], api: Api
) -> None:
    tenant = api.tenant("eu", WEST)
    agent = api.call(WEST, "POST", "/api/v1/agents", "eu", json={"tenant_id": tenant, "name": "a"}).json()[
        "id"
    ]
    before = stored(server, databases)
    problem(
        api.call(WEST, "POST", "/api/v1/users", "us", json={"tenant_id": tenant, "display_name": "A"}),
        403,
        "zone-mismatch",
    )
    problem(
        api.call(WEST, "PATCH", f"/api/v1/agents/{agent}", "us", json={"name": "b"}), 403, "zone-mismatch"
    )
    problem(
        api.call(WEST, "POST", "/api/v1/users", "eu", json={"tenant_id": str(uuid4()), "display_name": "A"}),
        404,
        "tenant-unknown",
    )
    assert stored(server, databases) == before


def test_a_residency_refusal_comes_before_the_body_is_read(api: Api) -> None:
    def endless() -> Any:
        yield b'{"name": "'
        raise AssertionError("the body was asked for in full")

    with pytest.raises((AssertionError, httpx.HTTPError)):
        api.call(US, "POST", "/api/v1/tenants", "eu", content=endless())
    problem(
        api.call(US, "POST", "/api/v1/tenants", "eu", content=b"not even json"),
        421,
        "residency-not-lawful-here",
    )


def test_a_header_that_decides_is_there_once(server: Server, databases: Mapping[str, str], api: Api) -> None:
    before = stored(server, databases)
    sent = {"authorization": f"Bearer {api.token()}", "x-data-sovereignty": "eu"}
    for name, value in (
        *sent.items(),
        ("x-region-preference", WEST),
        ("idempotency-key", "a"),
        ("if-match", "*"),
    ):
        twice = [*{**sent, name: value}.items(), (name, value)]
        answer = httpx.post(api.urls[WEST] + "/api/v1/tenants", headers=twice, json={"name": "x"})
        problem(answer, 400, "header-repeated")
    assert stored(server, databases) == before


def test_tokens_are_checked(api: Api) -> None:
    now_s = int(time.time())
    for token in (
        "x.y.z",
        api.token(now_s=now_s - 3600),
        api.token(audience="elsewhere"),
        api.token()[:-4] + "AAAA",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.",
    ):
        answer = api.call(WEST, "GET", "/api/v1/tenants", token=token)
        problem(answer, 401, "token-invalid")
        assert answer.headers["www-authenticate"] == "Bearer"
    problem(httpx.get(api.urls[WEST] + "/api/v1/tenants"), 401, "token-missing")


def test_a_tenant_sees_only_its_own(api: Api) -> None:
    mine, theirs = api.tenant(), api.tenant()
    token = api.token("agent-1", "agent", mine)
    agent = api.call(WEST, "POST", "/api/v1/agents", "eu", json={"tenant_id": theirs, "name": "a"}).json()[
        "id"
    ]
    problem(api.call(WEST, "GET", f"/api/v1/agents/{agent}", token=token), 404, "record-unknown")
    problem(
        api.call(WEST, "PATCH", f"/api/v1/agents/{agent}", "eu", token=token, json={"name": "b"}),
        404,
        "record-unknown",
    )
    problem(
        api.call(WEST, "POST", "/api/v1/agents", "eu", token=token, json={"tenant_id": theirs, "name": "b"}),
        404,
        "tenant-unknown",
    )
    problem(
        api.call(WEST, "POST", "/api/v1/tenants", "eu", token=token, json={"name": "b"}),
        403,
        "operators-only",
    )
    problem(api.call(WEST, "GET", "/api/v1/conflicts", token=token), 403, "operators-only")
    assert [t["id"] for t in api.call(WEST, "GET", "/api/v1/tenants", token=token).json()["items"]] == [mine]


def test_unknown_paths_and_methods_are_problems(api: Api) -> None:
    problem(api.call(WEST, "GET", "/nowhere"), 404, "not-found")
    problem(api.call(WEST, "PUT", "/api/v1/tenants"), 405, "method-not-allowed")
    problem(api.call(WEST, "GET", "/api/v1/users/not-a-uuid"), 404, "not-found")
    problem(api.call(WEST, "GET", "/api/v1/users?limit=0"), 400, "bad-request")
    audit = api.call(WEST, "PATCH", f"/api/v1/audit-events/{uuid4()}", "eu", json={})
    problem(audit, 405, "method-not-allowed")


def test_lag_and_health_tell_what_is_measured(api: Api) -> None:
    await_that(
        lambda: {r["source"] for r in api.call(WEST, "GET", "/api/v1/lag").json()} == {CENTRAL, US},
        "heartbeats",
    )
    health = httpx.get(api.urls[WEST] + "/health").json()
    assert health["region"] == WEST
    assert health["zones"]["eu"] == [WEST, CENTRAL]
    assert httpx.get(api.urls[WEST] + "/health/ready").status_code == 200


def test_a_connection_that_breaks_after_the_commit_leaves_the_outcome_unknown(server: Server) -> None:
    async def broken() -> None:
        conn = await psycopg.AsyncConnection.connect(server.dsn("postgres"), autocommit=True)
        await conn.close()
        with pytest.raises(OutcomeUnknown):
            await flushed_position(conn)

    asyncio.run(broken())
