"""Who changes where traffic goes, by which words, and that what several change at once is all kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.cluster.api.conftest import Api
from tests.cluster.conftest import Server, await_that

from acgs2.topology import Topology

WEST, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"
REGIONS = (WEST, CENTRAL, US)


def change(api: Api, asked: str, token: str | None = None, **body: Any) -> httpx.Response:
    return api.call(asked, "POST", "/api/v1/traffic", token=token, json=body)


def shown(api: Api, region: str = WEST, token: str | None = None) -> dict[str, Any]:
    answer = api.call(region, "GET", "/api/v1/traffic", token=token)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(autouse=True)
def as_it_was(api: Api) -> Iterator[None]:
    yield
    for region in REGIONS:
        assert change(api, WEST, region=region, weight=100).status_code == 200


def test_what_is_changed_in_one_region_is_known_in_all(api: Api) -> None:
    before = shown(api)
    made = change(api, US, region=WEST, weight=25).json()
    assert (made["version"], made["weights"], made["down"]) == (before["version"] + 1, {WEST: 25}, [])
    assert made["operator"] == {"down": [], "weights": {WEST: 25}}
    drained = change(api, CENTRAL, region=WEST, down=True).json()
    assert (drained["down"], drained["weights"], drained["plans"]) == ([WEST], {}, {})
    await_that(lambda: all(shown(api, r) == drained for r in REGIONS), "all regions to know it", 5)
    again = change(api, WEST, region=WEST, down=True).json()
    assert again == drained, "what changes nothing is no new version"
    assert change(api, US, region=WEST, weight=50).json()["down"] == [], "who is given a share takes part"
    assert change(api, US, region=WEST, down=False).json()["weights"] == {WEST: 50}
    assert change(api, US, region=WEST, down=False, weight=100).json()["weights"] == {}


def test_several_who_change_it_at_once_lose_nothing(api: Api) -> None:
    wishes = [(asked, region, weight) for weight, region in enumerate(REGIONS, 10) for asked in REGIONS]
    with ThreadPoolExecutor(len(wishes)) as pool:
        answers = [*pool.map(lambda w: change(api, w[0], region=w[1], weight=w[2]), wishes)]
    # One who loses the race too often is told so, and nothing of it is half done.
    assert {a.status_code for a in answers} <= {200, 503}
    for region, weight in zip(REGIONS, (10, 11, 12), strict=True):
        taken = [a for a, w in zip(answers, wishes, strict=True) if w[1] == region and a.status_code == 200]
        assert taken, "somebody wins every race"
        await_that(lambda r=region, w=weight: shown(api)["weights"].get(r) == w, f"the share of {region}")


def test_a_change_leaves_a_leaf_where_it_was_asked_for(
    api: Api, server: Server, databases: Mapping[str, str], trio: Topology
) -> None:
    who = f"op-{uuid4().hex}"
    made = change(api, CENTRAL, api.token(who), region=US, weight=40).json()
    query = b"SELECT body::jsonb FROM acgs.audit_leaf WHERE kind = 'traffic' AND body::jsonb ->> 'by' = %s"
    found = {}
    for region in trio.regions:
        with server.connect(databases[region]) as conn:
            found[region] = [body for (body,) in conn.execute(query, (who,)).fetchall()]
    leaf = {"by": who, "region": US, "weight": 40, "down": False, "version": made["version"]}
    assert found == {WEST: [], CENTRAL: [leaf], US: []}


@pytest.mark.parametrize(
    ("role", "of_a_tenant", "reads", "writes"),
    [
        ("operator", False, 200, 200),
        ("service", False, 200, 403),
        ("auditor", False, 403, 403),
        ("operator", True, 403, 403),
        ("service", True, 403, 403),
        ("agent", True, 403, 403),
    ],
)
def test_who_may_look_and_who_may_change(
    api: Api, role: str, of_a_tenant: bool, reads: int, writes: int
) -> None:
    token = api.token(str(uuid4()), role, str(uuid4()) if of_a_tenant else None)
    assert api.call(WEST, "GET", "/api/v1/traffic", token=token).status_code == reads
    before = shown(api)["version"]
    assert change(api, WEST, token, region=US, weight=100).status_code == writes
    assert shown(api)["version"] == before


@pytest.mark.parametrize(
    ("body", "reference"),
    [
        ({"region": "mars-east-1", "weight": 5}, "unknown-region"),
        ({"region": WEST}, "traffic-unclear"),
        ({"region": WEST, "weight": 5, "down": True}, "traffic-unclear"),
        ({"region": WEST, "weight": 101}, "bad-request"),
        ({"region": WEST, "weight": -1}, "bad-request"),
        ({"region": WEST, "weight": 2.5}, "bad-request"),
        ({"region": WEST, "weight": True}, "bad-request"),
        ({"region": WEST, "down": "yes"}, "bad-request"),
        ({"region": "x" * 64, "weight": 5}, "bad-request"),
        ({"region": "\x00", "weight": 5}, "unknown-region"),
        ({"weight": 5}, "bad-request"),
        ({"region": WEST, "weight": 5, "more": 1}, "bad-request"),
        ([], "bad-request"),
    ],
)
def test_nonsense_changes_nothing(api: Api, body: Any, reference: str) -> None:
    before = shown(api)
    answer = api.call(WEST, "POST", "/api/v1/traffic", json=body)
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (400, reference), answer.text
    assert shown(api) == before
