"""The SDK against region servers over real databases: what is stored, how often, and where."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sybil import Document
from sybil.parsers.markdown import PythonCodeBlockParser
from tests.cluster.api.conftest import Api
from tests.cluster.client.programs import Heard, losing
from tests.cluster.conftest import Server, await_that

from acgs2 import Agent, Client, Increment, SetChange, SyncClient
from acgs2.errors import ConflictError, ForbiddenError, NotFoundError, OutcomeUnknown, ResidencyError

DOCS = Path(__file__).resolve().parents[3] / "docs"
WEST, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"


def run(api: Api, url: str | list[str], act: Callable[[Client], Awaitable[Any]], **options: Any) -> Any:
    """Do something as a client of regions."""

    async def main() -> Any:
        async with Client(url, **{"zone": "eu", "token": api.token(), **options}) as client:
            return await act(client)

    return asyncio.run(main())


def first_of(method: str, path: str) -> Callable[[Heard], bool]:
    """Return a choice of the first request of its kind."""
    left = [1]
    return lambda heard: heard.method == method and heard.path.startswith(path) and bool(left and left.pop())


def every(method: str) -> Callable[[Heard], bool]:
    return lambda heard: heard.method == method


def test_records_of_every_kind_are_created_changed_listed_and_erased(api: Api) -> None:
    async def act(client: Client) -> None:
        tenant = await client.tenants.create(name="Acme", contact_email="a@acme.example")
        assert (tenant.zone, tenant.status, tenant.updated_in) == ("eu", "active", WEST)
        renamed = await client.tenants.change(tenant.id, name="Acme B.V.", contact_email=None)
        assert (renamed.name, renamed.contact_email) == ("Acme B.V.", None)
        login = datetime(2026, 1, 1, tzinfo=UTC)
        user = await client.users.create(
            tenant_id=tenant.id, display_name="Ann", preferences=["b", "a"], last_login=login, login_count=2
        )
        assert (user.preferences, user.last_login, user.login_count) == (("a", "b"), login, 2)
        change = SetChange(add=["c"], remove=["a"])
        user = await client.users.change(user.id, preferences=change, login_count=Increment(-1))
        assert (user.preferences, user.login_count) == (("b", "c"), 1)
        assert user == await client.users.get(user.id)
        assert set(user.residency) == {WEST, CENTRAL, US}
        with pytest.raises(ConflictError):
            await client.users.change(user.id, locale="nl", if_match='"seen-long-ago"')
        user = await client.users.change(user.id, locale="nl", if_match=user.etag)
        event = await client.audit_events.create(
            tenant_id=tenant.id, actor="ann", action="signed in", detail={"from": "here"}
        )
        assert (await client.audit_events.get(str(event.id))).detail == {"from": "here"}
        config = await client.configs.create(tenant_id=tenant.id, settings={"a": [1, {"b": None}]})
        newer = await client.configs.change(config.id, if_match=config.etag, settings={"a": 2})
        assert (newer.config_version, newer.settings) == (2, {"a": 2})
        with pytest.raises(ConflictError) as caught:
            await client.configs.change(config.id, if_match=config.etag, settings={})
        assert (caught.value.reference, caught.value.context["etag"]) == ("version-mismatch", newer.etag)
        for resource, record in (
            (client.users, user),
            (client.audit_events, event),
            (client.tenants, tenant),
        ):
            await resource.erase(record.id)
            await resource.erase(record.id)
            with pytest.raises(ConflictError):
                await resource.get(record.id)
        await client.configs.erase(config.id, if_match=newer.etag)

    run(api, api.urls[WEST], act)


def test_a_list_goes_through_all_pages(api: Api) -> None:
    tenant = api.tenant()

    async def act(client: Client) -> tuple[list[UUID], list[Agent]]:
        made = [(await client.agents.create(tenant_id=tenant, name=str(n))).id for n in range(5)]
        return made, [agent async for agent in client.agents.list(tenant=tenant, limit=2)]

    made, seen = run(api, api.urls[WEST], act)
    assert [agent.id for agent in seen] == sorted(made)


def test_a_create_whose_answer_is_lost_is_stored_once(
    api: Api, server: Server, databases: Mapping[str, str]
) -> None:
    """In the region that took it, and in another that is asked when that one cannot be heard any more."""
    tenant = api.tenant()
    for name, lose, requests in (
        ("lost", first_of("POST", "/api/v1/agents"), 1),
        ("always", every("POST"), 2),
    ):
        with losing(api.urls[WEST]) as west:
            west.lose = lose
            made = run(
                api,
                [west.url, api.urls[CENTRAL]],
                lambda client, name=name: client.agents.create(tenant_id=tenant, name=name),
            )
            assert len(west.lost) == requests
        for region in (WEST, CENTRAL):
            with server.connect(databases[region]) as conn:
                query = b"SELECT key FROM acgs.agent WHERE name = %s"
                await_that(lambda: conn.execute(query, (name,)).fetchall(), "the agent to be there")  # noqa: B023
                assert conn.execute(query, (name,)).fetchall() == [(made.id,)]


def test_a_count_whose_answer_is_lost_counts_once(api: Api) -> None:
    tenant = api.tenant()

    async def count(client: Client, **options: Any) -> Any:
        return await client.users.change(user.id, login_count=Increment(1), timeout_s=3, **options)

    with losing(api.urls[WEST]) as west:
        user = run(api, west.url, lambda c: c.users.create(tenant_id=tenant, display_name="Ann"))
        both = [west.url, api.urls[CENTRAL]]
        west.lose = first_of("PATCH", "/api/v1/users")
        assert run(api, both, count).login_count == 1
        # Now no answer comes at all; the other region would count again, and is not asked.
        west.lose = every("PATCH")
        with pytest.raises(OutcomeUnknown) as caught:
            run(api, both, count)
        assert caught.value.context["attempts"] > 1
        west.lose = lambda _: False
        key = caught.value.context["idempotency_key"]
        assert run(api, west.url, lambda c: count(c, idempotency_key=key)).login_count == 2
    shown = lambda: api.call(CENTRAL, "GET", f"/api/v1/users/{user.id}").json()["login_count"]  # noqa: E731
    await_that(lambda: shown() == 2, "the count to be in the other region")


def test_an_edge_that_sends_every_request_elsewhere_counts_once_too(api: Api) -> None:
    tenant = api.tenant()

    async def act(client: Client) -> Any:
        user = await client.users.create(tenant_id=tenant, display_name="Ann", login_count=5)
        for _ in range(3):
            edge.lose = first_of("PATCH", "/api/v1/users")
            await client.users.change(user.id, login_count=Increment(1))
        return user

    with losing({region: api.urls[region] for region in (WEST, CENTRAL)}) as edge:
        edge.lose = first_of("POST", "/api/v1/users")
        user = run(api, edge.url, act)
        assert len(edge.lost) == 4
    for region in (WEST, CENTRAL):
        shown = lambda: api.call(region, "GET", f"/api/v1/users/{user.id}").json()["login_count"]  # noqa: E731, B023
        await_that(lambda: shown() == 8, f"the count to be in {region}")  # noqa: B023


def test_a_conditional_change_whose_answer_is_lost_is_made_once(api: Api) -> None:
    tenant = api.tenant()

    async def act(client: Client) -> Any:
        made = await client.configs.create(tenant_id=tenant, settings={"a": 1})
        return await client.configs.change(made.id, if_match=made.etag, settings={"a": 2})

    with losing(api.urls[WEST]) as west:
        west.lose = first_of("PATCH", "/api/v1/configs")
        changed = run(api, west.url, act)
        assert len(west.lost) == 1
    assert (changed.config_version, changed.settings) == (2, {"a": 2})


def test_what_is_not_lawful_is_taken_where_it_is(api: Api) -> None:
    async def act(client: Client) -> None:
        tenant = await client.tenants.create(name="Acme")
        assert tenant.updated_in in (WEST, CENTRAL)
        asked = len(us.passed)
        assert asked <= 2
        await client.tenants.change(tenant.id, name="Acme B.V.")
        assert len(us.passed) == asked
        other = await client.tenants.create(name="Acme Inc.", zone="us")
        assert other.updated_in == US
        with pytest.raises(ForbiddenError) as caught:
            await client.tenants.create(name="Acme", region=US)
        assert caught.value.reference == "region-not-lawful"

    with losing(api.urls[US]) as us:
        run(api, us.url, act)


def test_a_fixed_region_is_where_it_is_written(api: Api) -> None:
    made = run(api, api.urls[US], lambda c: c.tenants.create(name="Acme"), region=CENTRAL)
    assert made.updated_in == CENTRAL

    async def unlawful(client: Client) -> None:
        await client.tenants.create(name="Acme", region=US)

    with pytest.raises((ForbiddenError, ResidencyError)):
        run(api, api.urls[WEST], unlawful)


def test_an_expired_token_is_renewed(api: Api) -> None:
    given: list[str] = []

    async def fresh() -> str:
        given.append(api.token(now_s=int(time.time()) - 3600) if not given else api.token())
        return given[-1]

    assert run(api, api.urls[WEST], lambda c: c.tenants.create(name="Acme"), token=fresh).name == "Acme"
    assert len(given) == 2
    with pytest.raises(ForbiddenError) as caught:
        run(api, api.urls[WEST], lambda c: c.tenants.create(name="Acme"), token=given[0])
    assert (caught.value.reference, caught.value.context["status"]) == ("token-invalid", 401)


def test_a_program_that_is_not_async_has_the_same(api: Api) -> None:
    with SyncClient(api.urls[WEST], zone="eu", token=api.token) as client:
        tenant = client.tenants.create(name="Acme")
        for n in range(3):
            client.agents.create(tenant_id=tenant.id, name=str(n))
        names = {agent.name for agent in client.agents.list(tenant=tenant.id, limit=2)}
        assert names == {"0", "1", "2"}
        # Who does not go to the end leaves nothing behind.
        assert next(client.agents.list(tenant=tenant.id, limit=1)).tenant_id == tenant.id
        client.tenants.erase(tenant.id)
        with pytest.raises(NotFoundError):
            client.users.get(UUID(int=0))


def test_the_documentation_runs(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block of docs/sdk.md, in one namespace, as a reader would go through it."""
    document = Document.parse(str(DOCS / "sdk.md"), PythonCodeBlockParser())
    tenant = api.tenant()
    user = {"tenant_id": tenant, "display_name": "Ann"}
    user_id = api.call(WEST, "POST", "/api/v1/users", "eu", json=user).json()["id"]
    with losing(api.urls[WEST]) as west:
        monkeypatch.setenv("ACGS2_URL", west.url)
        monkeypatch.setenv("ACGS2_TOKEN", api.token())
        examples = list(document.examples())
        for example in examples:
            example.evaluate()
        assert len(examples) == 5
        assert "('large',) 1 ('eu-central-1', 'eu-west-1', 'us-east-1')" in capsys.readouterr().out
        # The last one is a function: it is to do what it is there for.
        with SyncClient(west.url, zone="eu", token=api.token()) as client:
            until_s = time.monotonic() + 1.05
            west.lose = lambda heard: heard.method == "PATCH" and time.monotonic() < until_s
            document.namespace["count_login"](client, user_id)
            assert time.monotonic() > until_s
    assert api.call(WEST, "GET", f"/api/v1/users/{user_id}").json()["login_count"] == 1
