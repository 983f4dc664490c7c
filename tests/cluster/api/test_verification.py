"""The controller's key attacked: it verifies a zone, and is good for nothing else that there is to ask for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from tests.cluster.api.conftest import Api, stored
from tests.cluster.api.test_api import CENTRAL, US, WEST, problem
from tests.cluster.conftest import Server
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from acgs2.api.region import Config, RegionServer
from acgs2.api.synthetic import Synthetic
from acgs2.local.loopback import loopback
from acgs2.plan import Plan, Step, StepKind
from acgs2.topology import Topology

TENANTS = "/api/v1/tenants"
NAME = "ACGS-2 verifies zone eu"
#: What a verification is made of.
ITS_OWN = {("POST", TENANTS), ("GET", TENANTS + "/{record_id}"), ("DELETE", TENANTS + "/{record_id}")}
PLACES = {"number": "1", "rest": "0/000", "region": US}


@pytest.fixture(scope="module")
def stolen(api: Api) -> Api:
    """A way to call the regions for whoever has the controller's key."""
    return replace(api, keys=api.keys.with_name("controller.json"))


def token(stolen: Api, subject: str = f"controller@{WEST}", role: str = "controller") -> str:
    return stolen.token(subject, role)


def ask(stolen: Api, method: str, path: str, region: str = WEST, **rest: Any) -> httpx.Response:
    return stolen.call(region, method, path, rest.pop("zone", "eu"), token=token(stolen), **rest)


def test_every_other_operation_is_refused_and_stores_nothing(
    stolen: Api, server: Server, databases: Mapping[str, str]
) -> None:
    document = loopback().get(stolen.urls[WEST] + "/openapi.json").json()
    operations = {
        (method.upper(), path)
        for path, known in document["paths"].items()
        for method in known
        if method in ("get", "post", "put", "patch", "delete")
    }
    assert operations > ITS_OWN
    before = stored(server, databases)
    for method, path in sorted(operations - ITS_OWN):
        url = re.sub(r"\{(\w+)[^}]*\}", lambda found: PLACES.get(found[1], str(uuid4())), path)
        unknown = loopback().request(method, stolen.urls[WEST] + url, timeout=20)
        assert unknown.status_code == 401, f"{method} {path} asks who is there"
        refused = ask(stolen, method, url, json={} if method in ("POST", "PUT", "PATCH") else None)
        problem(refused, 403, "role-not-allowed")
    assert stored(server, databases) == before


def test_a_stream_of_an_inbox_is_refused(stolen: Api) -> None:
    url = stolen.urls[WEST].replace("http", "ws", 1) + f"/api/v1/inboxes/{uuid4()}/stream"
    with connect(url, additional_headers={"authorization": f"Bearer {token(stolen)}"}) as socket:
        assert "role-not-allowed" in str(socket.recv(timeout=10))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403


@pytest.mark.parametrize("role", ["operator", "service", "agent", "approver", "auditor", "root"])
def test_no_other_role_is_believed(stolen: Api, role: str) -> None:
    for subject in (f"controller@{WEST}", "op"):
        for tenant in (None, str(uuid4())):
            claimed = stolen.token(subject, role, tenant)
            answer = stolen.call(WEST, "GET", "/api/v1/traffic", token=claimed)
            problem(answer, 401, "token-invalid")


def test_nobody_else_is_a_controller_and_a_controller_is_nobody_else(api: Api, stolen: Api) -> None:
    for claimed in (
        api.token(f"controller@{WEST}", "controller"),
        token(stolen, "op"),
        stolen.token(f"controller@{WEST}", "controller", str(uuid4())),
    ):
        answer = api.call(WEST, "POST", TENANTS, "eu", token=claimed, json={"name": NAME})
        problem(answer, 401, "token-invalid")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "Acme"},
        {"name": "ACGS-2 verifies zone us"},
        {"name": f"{NAME} "},
        {"name": NAME, "contact_email": "ann@example.org"},
        {"name": NAME, "status": "suspended"},
        {"name": NAME, "status": "active"},
    ],
)
def test_it_writes_nothing_but_what_verifies(
    stolen: Api, server: Server, databases: Mapping[str, str], body: dict[str, str]
) -> None:
    before = stored(server, databases)
    problem(ask(stolen, "POST", TENANTS, json=body), 403, "role-not-allowed")
    assert stored(server, databases) == before


def test_it_is_shown_and_erases_nothing_but_what_verifies(api: Api, stolen: Api) -> None:
    tenant = api.tenant()
    body = {"tenant_id": tenant, "display_name": "Ann"}
    user = api.call(WEST, "POST", "/api/v1/users", "eu", json=body).json()["id"]
    erased = api.tenant()
    assert api.call(WEST, "DELETE", f"{TENANTS}/{erased}", "eu").status_code == 204
    for other in (tenant, user, erased, str(uuid4())):
        for method in ("GET", "DELETE"):
            problem(ask(stolen, method, f"{TENANTS}/{other}"), 404, "record-unknown")
    assert api.call(WEST, "GET", f"{TENANTS}/{tenant}").json()["name"] == "Acme"
    made = ask(stolen, "POST", TENANTS, json={"name": NAME})
    assert made.status_code == 201, made.text
    own = f"{TENANTS}/{made.json()['id']}"
    assert ask(stolen, "GET", own, CENTRAL).json()["name"] == NAME
    problem(ask(stolen, "DELETE", own, zone="us"), 403, "zone-mismatch")
    problem(ask(stolen, "PATCH", own, json={"name": "Acme"}), 403, "role-not-allowed")
    assert ask(stolen, "DELETE", own).status_code == 204
    assert api.call(WEST, "GET", own).status_code == 410


def test_a_zone_is_verified_and_verified_again_by_whoever_could_not_note_it(
    api: Api, trio: Topology, server: Server, databases: Mapping[str, str], tmp_path: Path
) -> None:
    config = Config(
        region=US,
        topology="",
        listen_port=1,
        database="",
        owner_database="",
        peers=dict(api.urls),
        peer_databases={},
        life_path="",
        jwks_path=str(api.keys.with_name("jwks.json")),
        controller_key_path=str(api.keys.with_name("controller.json")),
    )
    step = Step(StepKind.VERIFY, "eu", WEST)
    plan = Plan(str(uuid4()), "failover", CENTRAL, "a test", 1, (step, Step(StepKind.CLOSE)))

    async def verify() -> list[str]:
        synthetic = Synthetic(RegionServer(config, trio))
        try:
            said = [await synthetic.verify(plan, step) for _ in range(2)]
            back = msgspec.structs.replace(plan, kind="failback", region=WEST)
            return [*said, await synthetic.verify(back, step)]
        finally:
            await synthetic.close()

    # Nothing stands between here and there that would say which region answered.
    assert asyncio.run(verify()) == ["written and read at its door, answered by ?"] * 3
    with server.connect(databases[WEST]) as conn:
        left = conn.execute(b"SELECT count(*) FROM acgs.tenant WHERE name = %s", (NAME,)).fetchone()
    assert left == (0,), "nothing of it stays"
