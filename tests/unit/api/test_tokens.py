"""Tokens: whose names they are, which key is good for which role, and how exactly times are taken."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey

from acgs2.api.tokens import CONTROLLER, ROLES, Principal, TokenError, Verifier, create_keys, mint
from acgs2.errors import InputError

LEADER = "controller@eu-west-1"


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


def said(keys: Path, file: str, role: str, subject: str = LEADER, tenant: str | None = None) -> Principal:
    token = mint(keys / file, subject, role, "here", int(time.time()), tenant=tenant)
    return Verifier(keys / "jwks.json", "here").verify(token)


@pytest.mark.parametrize("role", [*ROLES, CONTROLLER])
def test_each_key_is_good_for_its_own_roles_and_for_no_other(keys: Path, role: str) -> None:
    tenant = None if role == CONTROLLER else str(uuid4())
    good, other = ("signing.json", "controller.json")[:: -1 if role == CONTROLLER else 1]
    assert said(keys, good, role, tenant=tenant) == Principal(LEADER, role, tenant)
    for of in (tenant, None, str(uuid4())):
        with pytest.raises(TokenError):
            said(keys, other, role, tenant=of)


@pytest.mark.parametrize(("subject", "tenant"), [("op", None), ("", None), (LEADER, str(uuid4()))])
def test_a_controller_acts_in_no_name_but_its_own(keys: Path, subject: str, tenant: str | None) -> None:
    with pytest.raises(TokenError):
        said(keys, "controller.json", CONTROLLER, subject, tenant)


@pytest.mark.parametrize("signed_by", ["controller", "stranger"])
@pytest.mark.parametrize("named", ["signing", "controller", "stranger", "nobody", None, ""])
def test_no_name_of_a_key_makes_a_token_an_operators(keys: Path, signed_by: str, named: str | None) -> None:
    def key(name: str) -> OKPKey:
        if name == "stranger":
            return OKPKey.generate_key("Ed25519", auto_kid=True)
        return OKPKey.import_key(json.loads((keys / f"{name}.json").read_text(encoding="utf-8")))

    header: dict[str, Any] = {"alg": "Ed25519"}
    if named is not None:
        header["kid"] = key(named).kid if named in ("signing", "controller", "stranger") else named
    # What a token brings along is not believed.
    header["jwk"] = key(signed_by).as_dict(private=False) | {"acgs2_roles": ["operator"]}
    now_s = int(time.time())
    claims = {"iss": "acgs2", "sub": LEADER, "role": "operator", "aud": "here", "exp": now_s + 60}
    token = jwt.encode(header, claims, key(signed_by), algorithms=["Ed25519"])
    with pytest.raises(TokenError):
        Verifier(keys / "jwks.json", "here").verify(token)


def test_keys_are_private_and_stay_and_an_earlier_releases_get_their_roles(keys: Path) -> None:
    assert [(keys / f"{name}.json").stat().st_mode & 0o777 for name in ("signing", "controller")] == [
        0o600
    ] * 2
    public = json.loads((keys / "jwks.json").read_text(encoding="utf-8"))
    assert not [key for key in public["keys"] if "d" in key]
    before = (keys / "signing.json").read_text(encoding="utf-8")
    (keys / "controller.json").unlink()
    (keys / "jwks.json").write_text(
        json.dumps({"keys": [_without_roles(public["keys"][0])]}), encoding="utf-8"
    )
    with pytest.raises(TokenError):
        said(keys, "signing.json", "operator")
    create_keys(keys)
    assert (keys / "signing.json").read_text(encoding="utf-8") == before
    assert said(keys, "signing.json", "operator").role == "operator"
    assert said(keys, "controller.json", CONTROLLER).role == CONTROLLER


def _without_roles(key: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name != "acgs2_roles"}


def test_keys_that_cannot_be_told_apart_are_refused(keys: Path) -> None:
    path = keys / "jwks.json"
    signing, controller = json.loads(path.read_text(encoding="utf-8"))["keys"]
    for unclear in ({"kid": signing["kid"]}, {"acgs2_roles": "operator"}, {"acgs2_roles": [1]}):
        path.write_text(json.dumps({"keys": [signing, controller | unclear]}), encoding="utf-8")
        with pytest.raises(InputError) as refused:
            Verifier(path, "here")
        assert refused.value.reference == "keys-unclear"
