"""Tokens: whose names they are, and how exactly times are taken."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import uuid4

import pytest

from acgs2.api.tokens import Principal, TokenError, Verifier, create_keys, mint


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    create_keys(tmp_path)
    return tmp_path


def verified(keys: Path, issued_s: int, lifetime_s: int = 60, tenant: str | None = None) -> Principal:
    token = mint(
        keys / "signing.json", "bot", "service", "here", issued_s, tenant=tenant, lifetime_s=lifetime_s
    )
    return Verifier(keys / "jwks.json", "here").verify(token)


def test_tenants_name_their_agents_as_they_like() -> None:
    one, other = str(uuid4()), str(uuid4())
    names = {Principal("bot", "agent", one).name, Principal("bot", "agent", other).name}
    assert len(names | {Principal("bot", "service").name, Principal(f"{one}bot", "service").name}) == 4


def test_clocks_of_regions_may_be_a_little_apart_and_no_more(keys: Path) -> None:
    now_s = int(time.time())
    assert verified(keys, now_s + 1).subject == "bot"
    for issued_s, lifetime_s in ((now_s + 30, 60), (now_s - 30, 28)):
        with pytest.raises(TokenError):
            verified(keys, issued_s, lifetime_s)


def test_a_tenant_is_an_id_however_it_is_written(keys: Path) -> None:
    tenant = str(uuid4())
    assert verified(keys, int(time.time()), tenant=tenant.upper()).tenant == tenant
    with pytest.raises(TokenError):
        verified(keys, int(time.time()), tenant="everybody")
