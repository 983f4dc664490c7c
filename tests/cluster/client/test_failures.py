"""Every way to fail ends in an error of ours that says whether it may have been done."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import httpx
import pytest
from tests.cluster.client.acts import (
    ID,
    USER,
    Act,
    all_fail,
    count,
    create,
    erase,
    fails,
    listed,
    read,
    rename,
    run,
    shown,
)
from tests.cluster.client.programs import RESET, SILENCE, answer, playing, problem
from tests.cluster.conftest import free_port

from acgs2 import Client
from acgs2.errors import (
    AcgsError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    OutcomeUnknown,
    ResidencyError,
    RuntimeFault,
    UnavailableError,
)


@pytest.mark.parametrize(
    ("status", "reference", "kind"),
    [
        (400, "bad-request", InputError),
        (401, "token-invalid", ForbiddenError),
        (403, "zone-mismatch", ForbiddenError),
        (403, "region-not-lawful", ForbiddenError),
        (404, "record-unknown", NotFoundError),
        (405, "append-only", InputError),
        (409, "idempotency-key-reused", ConflictError),
        (410, "erased", ConflictError),
        (412, "version-mismatch", ConflictError),
        (413, "body-too-large", InputError),
        (421, "residency-not-lawful-here", ResidencyError),
        (422, "transfer-unlawful", InputError),
        (428, "if-match-missing", InputError),
    ],
)
def test_a_problem_is_an_error_of_its_kind(status: int, reference: str, kind: type[AcgsError]) -> None:
    said = problem(status, reference, hint="Mend it.", lawful=["eu-west-1"], self=1, message=2)
    for act in (read, create, rename, erase):
        with playing(said) as server:
            error = fails(server, act)
            assert len(server.heard) == 1
        assert (type(error), error.reference) == (kind, reference)
        assert (error.message, error.hint) == ("It went wrong.", "Mend it.")
        assert error.context == {"lawful": ["eu-west-1"], "status": status}


#: Not an answer of this API, and whether what was asked may have been done.
STRANGE = {
    "reset": (RESET, True),
    "silence": (SILENCE, True),
    "an end": (b"\r\n", True),
    "not HTTP": (b"220 mail.example ESMTP\r\n\r\n", True),
    "another protocol": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", True),
    "half a head": (b"HTTP/1.1 200 OK\r\ncontent-le", True),
    "half a body": (answer(200, USER)[:-9], True),
    "a page": (answer(200, b"<html>Welcome</html>", kind="text/html"), True),
    "another document": (answer(200, {"ok": True}), True),
    "a list": (answer(200, [1]), True),
    "nothing": (answer(200, b""), True),
    "not UTF-8": (answer(200, b'{"id": "\xff"}'), True),
    "nested": (answer(200, b"[" * 100_000 + b"]" * 100_000), True),
    "bad gzip": (answer(200, b"no gzip", {"content-encoding": "gzip"}), True),
    "bad length": (answer(200, USER, {"content-length": "many"}), True),
    "a null id": (answer(200, {**USER, "id": None, "items": 3}), True),
    "a redirect": (answer(302, b"", {"location": "http://127.0.0.1:1/"}), False),
    "a page of refusal": (answer(403, b"<html>", kind="text/html"), False),
    "a bare refusal": (answer(404, {"detail": "Not Found"}), False),
    "a problem without a type": (
        answer(409, {"type": "about:blank"}, kind="application/problem+json"),
        False,
    ),
    "a broken problem": (answer(404, b'{"type": ', kind="application/problem+json"), False),
    "a proxy's 503": (answer(503, b"upstream connect error", kind="text/plain"), True),
    "a proxy's 502": (answer(502, b"<html>", kind="text/html"), True),
    "a bug": (problem(500, "internal", hint="See its log."), True),
    "a doubt": (problem(503, "outcome-unknown", {"retry-after": "0"}, endpoints="y"), True),
    "a database that went": (problem(503, "database-unavailable", hint="Try again."), True),
    "pressed": (answer(200, gzip.compress(b"{"), {"content-encoding": "gzip"}), True),
}


#: What is asked for again until the deadline.
AGAIN = (
    "reset",
    "silence",
    "an end",
    "not HTTP",
    "another protocol",
    "half a head",
    "half a body",
    "bad gzip",
    "bad length",
)
AGAIN += ("a proxy's 503", "a proxy's 502", "a doubt", "a database that went")


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_not_understood_is_unavailable_or_unknown(name: str) -> None:
    said, doubtful = STRANGE[name]
    acts = (read, listed, create, rename, count, erase)

    async def act(client: Client) -> list[Any]:
        # An empty list tells who is behind the URL, which a count has to know.
        assert await listed(client, timeout_s=8) == []
        return await asyncio.gather(*(one(client) for one in acts), return_exceptions=True)

    with playing(answer(200, {"items": []}), said) as server:
        failed = run(server, act, timeout_s=0.5 if name in AGAIN else 8)
    for one, error in zip(acts, failed, strict=True):
        unknown = doubtful and one not in (read, listed)
        assert type(error) is (OutcomeUnknown if unknown else UnavailableError), (one.__name__, error)
        assert error.hint
        assert "Ann" not in str(error.as_dict())


def test_nobody_there_is_unavailable() -> None:
    for error in all_fail(
        f"http://127.0.0.1:{free_port()}", (read, listed, create, rename, count, erase), timeout_s=0.5
    ):
        assert type(error) is UnavailableError
        assert error.reference in ("not-connected", "not-connected-in-time")
        assert error.context["attempts"] > 1


def test_a_name_that_nobody_has_is_unavailable() -> None:
    error = fails("http://nobody.invalid", read, timeout_s=0.3)
    assert error.reference in ("not-connected", "not-connected-in-time")


def test_a_token_source_that_fails_is_an_error_of_ours() -> None:
    def nothing() -> Any:
        return None

    def away() -> str:
        raise httpx.ConnectError("no issuer")

    async def never() -> str:
        await asyncio.sleep(60)
        return ""

    with playing(shown()) as server:
        assert fails(server, read, token=nothing).reference == "token-malformed"
        assert fails(server, read, token=away, timeout_s=0.3).reference == "token-unavailable"
        assert fails(server, read, token=never, timeout_s=0.3).reference == "not-connected-in-time"
        assert not server.heard


def test_what_cannot_be_sent_is_refused_before_it_is() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    wrong: list[tuple[str, Act]] = [
        ("id-invalid", lambda c: c.users.get("me")),
        ("id-invalid", lambda c: c.users.get(5)),  # type: ignore[arg-type]
        ("zone-invalid", lambda c: c.users.get(ID, zone="e\r\nu")),
        ("region-invalid", lambda c: c.users.get(ID, region="münchen")),
        ("timeout-invalid", lambda c: c.users.get(ID, timeout_s=0)),
        ("timeout-invalid", lambda c: c.users.get(ID, timeout_s=float("nan"))),
        ("if-match-invalid", lambda c: c.users.change(ID, if_match="ü")),
        ("if-match-invalid", lambda c: c.configs.change(ID, if_match="", settings={})),
        ("idempotency-key-invalid", lambda c: c.users.change(ID, idempotency_key="a b")),
        ("value-not-json", lambda c: c.agents.create(tenant_id=ID, name="\ud800")),
        ("value-not-json", lambda c: c.agents.create(tenant_id=ID, name=object())),  # type: ignore[arg-type]
        ("value-not-json", lambda c: c.configs.create(tenant_id=ID, settings={"a": object()})),
        ("value-not-json", lambda c: c.configs.create(tenant_id=ID, settings=deep)),
    ]
    with playing(shown()) as server:
        for reference, act in wrong:
            assert fails(server, act).reference == reference
        for options in ({"token": "a\nb"}, {"token": ""}, {"zone": ""}, {"region": "a b"}, {"timeout_s": -1}):
            with pytest.raises(InputError):
                Client(server.url, **{"token": "t", **options})  # type: ignore[arg-type]
        with pytest.raises(InputError):
            Client([], token="t")
        assert fails(server, read, ca=__file__).reference == "ca-invalid"
        assert fails(server, read, ca="/nowhere").reference == "ca-invalid"
        assert not server.heard


def test_a_client_that_is_not_open_says_so() -> None:
    client = Client("http://127.0.0.1", token="t")
    with pytest.raises(RuntimeFault):
        asyncio.run(read(client))
