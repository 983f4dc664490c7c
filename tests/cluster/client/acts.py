"""Things to do as a client of another program, and how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from tests.cluster.client.programs import Scripted, answer

from acgs2 import Client, Increment, User
from acgs2.errors import AcgsError

ID = "018f0000-0000-7000-8000-000000000001"
USER = {
    "id": ID,
    "zone": "eu",
    "tenant_id": ID,
    "display_name": "Ann",
    "email": None,
    "preferences": ["a"],
    "login_count": 1,
    "residency": ["eu-west-1"],
    "updated_at": "2026-01-01T00:00:00Z",
    "updated_in": "eu-west-1",
}
WEST = {"x-acgs2-region": "eu-west-1"}
Act = Callable[[Client], Awaitable[Any]]


def shown(headers: dict[str, str] | None = None, **fields: Any) -> bytes:
    return answer(200, {**USER, **fields}, {"etag": '"1"', **(headers or {})})


def run(server: Scripted | str | list[str], act: Act, **options: Any) -> Any:
    """Do something as a client of a program."""
    url = server.url if isinstance(server, Scripted) else server

    async def main() -> Any:
        async with Client(url, **{"zone": "eu", "token": "t", "timeout_s": 8, **options}) as client:
            return await act(client)

    return asyncio.run(main())


def fails(server: Scripted | str | list[str], act: Act, **options: Any) -> AcgsError:
    with pytest.raises(AcgsError) as caught:
        run(server, act, **options)
    return caught.value


def all_fail(server: Scripted | str, acts: Sequence[Act], **options: Any) -> list[AcgsError]:
    """Do several things at once, and return how each failed."""

    async def together(client: Client) -> list[Any]:
        return await asyncio.gather(*(act(client) for act in acts), return_exceptions=True)

    failed = run(server, together, **options)
    for error in failed:
        assert isinstance(error, AcgsError), repr(error)
    return failed


async def read(client: Client) -> User:
    return await client.users.get(ID)


async def listed(client: Client, timeout_s: float | None = None) -> list[User]:
    options = {} if timeout_s is None else {"timeout_s": timeout_s}
    return [user async for user in client.users.list(**options)]


async def create(client: Client) -> User:
    return await client.users.create(tenant_id=ID, display_name="Ann")


async def rename(client: Client) -> User:
    return await client.users.change(ID, display_name="Ann")


async def count(client: Client) -> User:
    return await client.users.change(ID, login_count=Increment(1))


async def erase(client: Client) -> None:
    await client.users.erase(ID)


async def conditional(client: Client) -> User:
    return await client.users.change(ID, display_name="Bob", if_match='"1"')
