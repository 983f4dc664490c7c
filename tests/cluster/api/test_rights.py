"""Transfers, consents and erasure from outside: what is refused, with the reason, and what is confirmed."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from tests.cluster.api.conftest import Api
from tests.cluster.api.test_api import CENTRAL, US, WEST, problem
from tests.cluster.conftest import Server, await_that

from acgs2.store.region import link_name

SCC: dict[str, Any] = {"zone": "eu", "to": US, "instrument": "scc", "entities": ["agent"]}


def user(api: Api, tenant: str, zone: str = "eu", region: str = WEST) -> str:
    body = {"tenant_id": tenant, "display_name": "Ann"}
    answer = api.call(region, "POST", "/api/v1/users", zone, json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize(
    ("change", "status", "reference"),
    [
        ({"to": "mars-west-1"}, 400, "region-unknown"),
        ({"zone": "atlantis"}, 400, "zone-unknown"),
        ({"entities": ["secrets"]}, 400, "entity-unknown"),
        ({"instrument": "handshake"}, 400, "transfer-invalid"),
        ({"expires": "2020-01-01T00:00:00Z"}, 422, "transfer-unlawful"),
        ({"instrument": "cac_assessment"}, 422, "transfer-unlawful"),
        ({"instrument": "adequacy_dpf"}, 422, "transfer-unlawful"),
        ({"expires": "2020-01-01"}, 400, "bad-request"),
        ({"to": WEST, "zone": "mars"}, 400, "zone-unknown"),
        ({"entities": []}, 400, "bad-request"),
        ({"expires": "tomorrow"}, 400, "bad-request"),
        ({"surprise": 1}, 400, "bad-request"),
    ],
)
def test_a_transfer_that_no_law_accepts_is_refused(
    api: Api, change: dict[str, Any], status: int, reference: str
) -> None:
    problem(api.call(WEST, "POST", "/api/v1/transfers", json=SCC | change), status, reference)


def test_a_tenant_does_not_register_transfers(api: Api) -> None:
    token = api.token("t", "agent", str(uuid4()))
    problem(api.call(WEST, "POST", "/api/v1/transfers", json=SCC, token=token), 403, "operators-only")


def test_a_transfer_gives_and_its_revocation_takes_for_good(api: Api) -> None:
    tenant = api.tenant()
    key = user(api, tenant)
    body = SCC | {"entities": ["tenant", "user_profile"]}
    made = api.call(CENTRAL, "POST", "/api/v1/transfers", json=body)
    assert made.status_code == 201, made.text

    def held() -> bool:
        return api.call(US, "GET", f"/api/v1/tenants/{tenant}").status_code == 200

    await_that(held, "the tenant to be given")
    path = f"/api/v1/transfers/{made.json()['id']}/revoke"
    assert api.call(WEST, "POST", path).json()["revoked"]
    await_that(lambda: not held(), "the tenant to be taken")
    first = api.call(CENTRAL, "POST", path).json()["revoked"]
    assert api.call(CENTRAL, "POST", path).json()["revoked"] == first

    def reported() -> bool:
        found = api.call(CENTRAL, "GET", "/api/v1/disposals").json()
        return any((d["region"], d["entity"], d["zone"]) == (US, "tenant", "eu") for d in found)

    await_that(reported, "the report")
    assert api.call(WEST, "GET", f"/api/v1/users/{key}").status_code == 200
    problem(api.call(WEST, "POST", f"/api/v1/transfers/{uuid4()}/revoke"), 404, "transfer-unknown")


def test_consent_is_for_a_known_person_and_region(api: Api) -> None:
    tenant = api.tenant()
    key = user(api, tenant)
    body = {"tenant_id": tenant, "subject_id": key, "to_region": US, "evidence": "form 7"}

    def grant(**change: Any) -> Any:
        return api.call(WEST, "POST", "/api/v1/consents", "eu", json=body | change)

    assert grant().status_code == 201
    problem(grant(subject_id=str(uuid4())), 404, "subject-unknown")
    problem(grant(tenant_id=str(uuid4())), 404, "subject-unknown")
    problem(grant(to_region="mars-west-1"), 400, "region-unknown")
    problem(api.call(WEST, "POST", "/api/v1/consents", json=body), 400, "zone-missing")
    stranger = api.token("t", "agent", str(uuid4()))
    problem(
        api.call(WEST, "POST", "/api/v1/consents", "eu", json=body, token=stranger), 404, "subject-unknown"
    )
    del body["evidence"]
    gone = api.call(WEST, "POST", "/api/v1/consents/withdraw", "eu", json=body)
    assert (gone.status_code, gone.json()["given"]) == (200, False)


def test_a_withdrawal_wins_over_a_grant_that_crossed_it(
    server: Server, databases: Mapping[str, str], api: Api
) -> None:
    tenant = api.tenant("all", WEST)
    key = user(api, tenant, "all")
    await_that(lambda: api.call(CENTRAL, "GET", f"/api/v1/users/{key}").status_code == 200, "the person")
    body = {"tenant_id": tenant, "subject_id": key, "to_region": US}
    directions = ((WEST, CENTRAL), (CENTRAL, WEST))

    def links(action: str) -> None:
        for source, target in directions:
            with server.connect(databases[target]) as conn:
                conn.execute(f"ALTER SUBSCRIPTION {link_name(source, target)} {action}".encode())

    def act(region: str, path: str, **more: str) -> int:
        answer = api.call(region, "POST", f"/api/v1/consents{path}", "all", json=body | more)
        return answer.status_code

    def states() -> list[Any]:
        query = b"SELECT grants, withdrawals, acgs.consents(subject_id, true) FROM acgs.consent WHERE subject_id = %s"
        found = []
        for name in databases.values():
            with server.connect(name) as conn:
                found.append(conn.execute(query, (key,)).fetchone())
        return found

    links("DISABLE")
    try:
        with ThreadPoolExecutor() as pool:
            given = pool.submit(act, CENTRAL, "", evidence="form 7")
            gone = pool.submit(act, WEST, "/withdraw")
            again = pool.submit(act, WEST, "", evidence="form 7")
            assert {given.result(), again.result()} == {201}
            assert gone.result() == 200
        assert act(WEST, "/withdraw") == 200
    finally:
        links("ENABLE")
    await_that(
        lambda: all(s is not None and len(s[0]) == 2 and s[1] == 2 for s in states()), "all to know of both"
    )
    assert [s[2] for s in states()] == [{}, {}, {}]
    # A grant that knows of the withdrawals is a new one.
    assert act(CENTRAL, "", evidence="form 8") == 201
    await_that(lambda: all(US in s[2] for s in states()), "the new consent")


def test_erasing_a_person_is_confirmed_by_whoever_held_them(api: Api) -> None:
    tenant = api.tenant()
    key = user(api, tenant)
    answer = api.call(WEST, "DELETE", f"/api/v1/subjects/{key}", "eu")
    assert answer.status_code == 200
    assert {d["region"] for d in answer.json()["owed"]} >= {CENTRAL}

    def confirmed() -> bool:
        owed = api.call(WEST, "GET", f"/api/v1/duties?key={key}").json()
        return bool(owed) and all(d["done_at"] for d in owed)

    await_that(confirmed, "the confirmations")
    for region in (WEST, CENTRAL):
        problem(api.call(region, "GET", f"/api/v1/users/{key}"), 410, "erased")
    problem(api.call(WEST, "DELETE", f"/api/v1/subjects/{uuid4()}", "eu"), 404, "subject-unknown")


def test_a_tenant_is_moved_only_where_both_zones_may_be_held(api: Api) -> None:
    tenant = api.tenant("us", US)
    await_that(lambda: api.call(WEST, "GET", f"/api/v1/tenants/{tenant}").status_code == 200, "the tenant")
    path = f"/api/v1/tenants/{tenant}/move"
    problem(api.call(US, "POST", path, json={"to_zone": "eu"}), 421, "residency-not-lawful-here")
    problem(api.call(WEST, "POST", path, json={"to_zone": "atlantis"}), 400, "zone-unknown")
    moved = api.call(WEST, "POST", path, json={"to_zone": "eu"})
    assert (moved.status_code, moved.json()["zone"]) == (200, "eu")
    await_that(
        lambda: api.call(US, "GET", f"/api/v1/tenants/{tenant}").status_code == 404, "the old home to forget"
    )
    await_that(
        lambda: api.call(CENTRAL, "GET", f"/api/v1/tenants/{tenant}").status_code == 200,
        "the new home to know",
    )


def test_a_region_by_consent_is_read_like_any_other(api: Api) -> None:
    tenant = api.tenant()
    key = user(api, tenant)
    body = {
        "zone": "eu",
        "to": US,
        "instrument": "explicit_consent",
        "entities": ["tenant_config", "consent"],
    }
    made = api.call(WEST, "POST", "/api/v1/transfers", json=body)
    assert made.status_code == 201, made.text
    consent = {"tenant_id": tenant, "subject_id": key, "to_region": US, "evidence": "form 7"}
    found = api.call(WEST, "POST", "/api/v1/consents", "eu", json=consent).json()["id"]

    def read() -> bool:
        return api.call(US, "GET", f"/api/v1/consents/{found}", "eu").status_code == 200

    await_that(read, "the consent itself, held by that consent")
