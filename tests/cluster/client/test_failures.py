"""Every way to fail ends in an error of ours that says whether it may have been done."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest
from tests.cluster.client.programs import RESET, SILENCE, Scripted, answer, playing, problem
from tests.cluster.conftest import free_port

from acgs2 import Client, Increment, SetChange, User
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
        async with Client(url, **{"zone": "eu", "token": "t", "timeout_s": 0.6, **options}) as client:
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


async def listed(client: Client) -> list[User]:
    return [user async for user in client.users.list()]


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


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_not_understood_is_unavailable_or_unknown(name: str) -> None:
    said, doubtful = STRANGE[name]
    acts = (read, listed, create, rename, count, erase)
    with playing(said) as server:
        failed = all_fail(server, acts, timeout_s=0.2)
    for act, error in zip(acts, failed, strict=True):
        unknown = doubtful and act not in (read, listed, count)
        assert type(error) is (OutcomeUnknown if unknown else UnavailableError), (act.__name__, error)
        assert error.hint
        assert "Ann" not in str(error.as_dict())


@pytest.mark.parametrize("name", STRANGE)
def test_a_count_says_so_too_once_it_is_sent(name: str) -> None:
    """Before it, an empty list tells whether several regions are behind the URL."""
    said, doubtful = STRANGE[name]
    with playing(answer(200, {"items": []}), said) as server:
        error = fails(server, count, timeout_s=0.2)
    assert type(error) is (OutcomeUnknown if doubtful else UnavailableError)


def test_nobody_there_is_unavailable() -> None:
    for error in all_fail(
        f"http://127.0.0.1:{free_port()}", (read, listed, create, rename, count, erase), timeout_s=0.5
    ):
        assert (type(error), error.reference) == (UnavailableError, "not-connected")
        assert error.context["attempts"] > 1
    error = fails("https://127.0.0.1:1", read, timeout_s=0.2)
    assert error.reference == "not-connected"


def test_a_name_that_nobody_has_is_unavailable() -> None:
    error = fails("http://nobody.invalid", read, timeout_s=0.3)
    assert error.reference in ("not-connected", "not-connected-in-time")


def test_what_nobody_stored_is_repeated_and_who_asked_for_time_is_given_it() -> None:
    for act in (read, create, rename, count):
        for status, wait_s in ((503, 0), (429, 1 if act is create else 0)):
            said = problem(status, "not-now", {"retry-after": str(wait_s)})
            first = [answer(200, {"items": []})] if act is count else []
            with playing(*first, said, shown()) as server:
                began_s = time.monotonic()
                assert run(server, act, timeout_s=5).login_count == 1
                assert wait_s <= time.monotonic() - began_s < wait_s + 1
                assert len({h.headers.get("idempotency-key") for h in server.heard if h.method != "GET"}) <= 1
    with playing(problem(503, "not-now", {"retry-after": "9"})) as server:
        error = fails(server, create)
        assert (type(error), len(server.heard)) == (UnavailableError, 1)


def test_a_lost_answer_is_asked_for_again_with_the_same_key() -> None:
    for act in (read, create, rename, erase):
        last = answer(204, None) if act is erase else shown()
        with playing(RESET, last) as server:
            run(server, act, timeout_s=5)
            first, second = server.heard
            assert (first.body, first.headers.get("idempotency-key")) == (
                second.body,
                second.headers.get("idempotency-key"),
            )


def test_a_hanging_attempt_is_not_the_only_one() -> None:
    with playing(SILENCE, shown()) as server:
        assert run(server, read, timeout_s=1.5).id
        assert len(server.heard) == 2


def test_a_call_takes_no_longer_than_it_says() -> None:
    for said in (SILENCE, RESET, problem(503, "pair-unavailable")):
        with playing(said) as server:
            began_s = time.monotonic()
            fails(server, create, timeout_s=0.3)
            assert time.monotonic() - began_s < 1


def test_a_count_is_repeated_only_in_the_region_that_may_have_counted() -> None:
    """Behind a URL that leads to several regions, the repeat names the one that answered before."""
    empty = answer(200, {"items": []}, WEST)
    with playing(empty, RESET, shown(WEST)) as server:
        assert run(server, count, timeout_s=5)
        assert [(h.method, h.region) for h in server.heard] == [
            ("GET", "auto"),
            ("PATCH", "eu-west-1"),
            ("PATCH", "eu-west-1"),
        ]
    away = problem(503, "pair-unavailable", {**WEST, "retry-after": "0"})
    with playing(empty, away, RESET) as server:
        error = fails(server, count, timeout_s=5)
        # The region was left, for nothing was stored there; whoever was asked then did not say who it is.
        assert [h.region for h in server.heard] == ["auto", "eu-west-1", "auto"]
    assert isinstance(error, OutcomeUnknown)
    assert "Read the record" in error.hint
    with playing(empty, RESET) as server:
        error = fails(server, count)
        assert {h.region for h in server.heard[1:]} == {"eu-west-1"}
    assert error.context["region"] == "eu-west-1"
    assert error.context["idempotency_key"] == server.heard[1].headers["idempotency-key"]


def test_who_begins_with_a_count_is_stored_by_one_region_only() -> None:
    with playing(answer(200, {"items": []}, WEST), RESET, shown()) as server:
        run(server, lambda c: c.users.create(tenant_id=ID, display_name="A", login_count=2), timeout_s=5)
        assert [h.region for h in server.heard] == ["auto", "eu-west-1", "eu-west-1"]


def test_a_condition_that_fails_after_a_lost_answer_proves_nothing() -> None:
    """The first attempt may be what changed the record; a read that shows our change is proof."""
    empty, stale = answer(200, {"items": []}), problem(412, "version-mismatch")
    with playing(empty, RESET, stale, shown(display_name="Bob")) as server:
        assert run(server, conditional, timeout_s=5).display_name == "Bob"
        assert [h.headers.get("if-match") for h in server.heard] == [None, '"1"', '"1"', None]
    with playing(empty, RESET, stale, shown(display_name="Eve")) as server:
        error = fails(server, conditional, timeout_s=5)
    assert isinstance(error, OutcomeUnknown)
    assert error.context["last_error"] == "version-mismatch"
    with playing(empty, stale) as server:
        assert type(fails(server, conditional)) is ConflictError

    async def erase_if(client: Client) -> None:
        await client.configs.erase(ID, if_match='"1"')

    with playing(RESET, stale, problem(410, "erased")) as server:
        run(server, erase_if, timeout_s=5)
    with playing(RESET, stale, shown()) as server:
        assert type(fails(server, erase_if, timeout_s=5)) is OutcomeUnknown


def test_a_refusal_after_a_lost_answer_says_nothing_of_the_first_attempt() -> None:
    for said in (
        problem(404, "record-unknown"),
        problem(403, "zone-mismatch"),
        problem(401, "token-invalid"),
    ):
        with playing(RESET, said) as server:
            assert type(fails(server, create, timeout_s=5)) is OutcomeUnknown
    with playing(RESET, problem(400, "bad-request")) as server:
        assert type(fails(server, create, timeout_s=5)) is InputError


def test_it_is_followed_within_what_is_trusted() -> None:
    def towards(url: str, region: str = "eu-west-1") -> bytes:
        return problem(421, "residency-not-lawful-here", endpoints=[{"region": region, "url": url}])

    with playing(shown()) as west:
        with playing(towards(west.url)) as home:
            run(home, read)
            # The base URL is asked for the region first: an edge would send it there.
            assert [h.region for h in home.heard] == ["auto", "eu-west-1"]
            assert [h.region for h in west.heard] == ["eu-west-1"]
        with playing(towards(west.url), shown()) as edge:
            run(edge, read)
            assert len(west.heard) == 1

        async def twice(client: Client) -> None:
            await read(client)
            await read(client)

        with playing(towards(west.url)) as home:
            run(home, twice)
            assert (len(home.heard), len(west.heard)) == (2, 3)
        with playing(towards(west.url)) as home:
            assert type(fails(home, read, region="us-east-1")) is ResidencyError
            assert len(west.heard) == 3
    with playing(towards("http://thief.example")) as home:
        error = fails(home, create)
        assert (type(error), error.reference) == (ResidencyError, "endpoint-not-trusted")
        assert error.context["endpoint"] == "http://thief.example"


def test_what_leads_in_a_circle_ends() -> None:
    with playing(b"") as one, playing(b"") as two:
        one.script = [problem(421, "other-region-preferred", endpoints=[{"region": "b", "url": two.url}])]
        two.script = [problem(421, "other-region-preferred", endpoints=[{"region": "a", "url": one.url}])]
        assert type(fails(one, read)) is ResidencyError
        assert len(one.heard) + len(two.heard) <= 4


def test_a_place_that_fails_is_forgotten() -> None:
    with playing(shown()) as west:
        far = {"region": "eu-west-1", "url": west.url}
        with playing(problem(421, "residency-not-lawful-here", endpoints=[far])) as home:

            async def go(client: Client) -> None:
                await read(client)
                west.script = [RESET]
                home.script = [shown()]
                await read(client)
                await read(client)

            run(home, go, timeout_s=5)
            assert len(west.heard) <= 3
            assert [h.region for h in home.heard] == ["auto", "eu-west-1", "auto", "auto"]


def test_the_next_url_is_tried_where_one_cannot_be_reached() -> None:
    with playing(shown()) as server:
        assert run([f"http://127.0.0.1:{free_port()}", server.url], create, timeout_s=5)
        assert len(server.heard) == 1


def test_an_expired_token_is_replaced_once() -> None:
    given: list[str] = []

    def fresh() -> str:
        given.append(f"t{len(given)}")
        return given[-1]

    async def fresh_too() -> str:
        return fresh()

    for source in (fresh, fresh_too):
        given.clear()
        with playing(problem(401, "token-invalid"), shown()) as server:
            run(server, read, token=source)
            assert [h.headers["authorization"] for h in server.heard] == ["Bearer t0", "Bearer t1"]
        with playing(problem(401, "token-invalid")) as server:
            assert type(fails(server, read, token=source)) is ForbiddenError
            assert len(server.heard) == 2


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
        assert fails(server, read, token=away).reference == "token-unavailable"
        assert fails(server, read, token=never).reference == "not-connected-in-time"
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


def test_sets_and_counts_go_as_differences() -> None:
    with playing(answer(200, {"items": []}), shown()) as server:
        change = {"preferences": SetChange(add=["a"]), "login_count": Increment(-2), "email": None}
        run(server, lambda c: c.users.change(ID, **change))
        assert json.loads(server.heard[1].body) == {
            "email": None,
            "preferences": {"add": ["a"], "remove": []},
            "login_count": {"increment": -2},
        }
        assert server.heard[1].headers["x-data-sovereignty"] == "eu"
