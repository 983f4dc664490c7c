"""What is sent again, where, and when not: a program answers, and hears what it is asked."""

from __future__ import annotations

import json
import time

from tests.cluster.client.acts import (
    ID,
    WEST,
    conditional,
    count,
    create,
    erase,
    fails,
    read,
    rename,
    run,
    shown,
)
from tests.cluster.client.programs import RESET, SILENCE, answer, playing, problem
from tests.cluster.conftest import free_port

from acgs2 import Client, Increment, SetChange
from acgs2.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    OutcomeUnknown,
    ResidencyError,
    UnavailableError,
)


def test_what_nobody_stored_is_repeated_and_who_asked_for_time_is_given_it() -> None:
    for act in (read, create, rename, count):
        for status, wait_s in ((503, 0), (429, 1 if act is create else 0)):
            said = problem(status, "not-now", {"retry-after": str(wait_s)})
            first = [answer(200, {"items": []})] if act is count else []
            with playing(*first, said, shown()) as server:
                began_s = time.monotonic()
                assert run(server, act).login_count == 1
                assert wait_s <= time.monotonic() - began_s < wait_s + 3
                assert len({h.headers.get("idempotency-key") for h in server.heard if h.method != "GET"}) <= 1
    with playing(problem(503, "not-now", {"retry-after": "9"})) as server:
        error = fails(server, create)
        assert (type(error), len(server.heard)) == (UnavailableError, 1)


def test_a_lost_answer_is_asked_for_again_with_the_same_key() -> None:
    for act in (read, create, rename, erase):
        last = answer(204, None) if act is erase else shown()
        with playing(RESET, last) as server:
            run(server, act)
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
            assert time.monotonic() - began_s < 3


def test_a_count_is_repeated_only_in_the_region_that_may_have_counted() -> None:
    """Behind a URL that leads to several regions, the repeat names the one that answered before."""
    empty = answer(200, {"items": []}, WEST)
    with playing(empty, RESET, shown(WEST)) as server:
        assert run(server, count)
        assert [(h.method, h.region) for h in server.heard] == [
            ("GET", "auto"),
            ("PATCH", "eu-west-1"),
            ("PATCH", "eu-west-1"),
        ]
    away = problem(503, "pair-unavailable", {**WEST, "retry-after": "0"})
    with playing(empty, away, RESET) as server:
        error = fails(server, count)
        # The region was left, for nothing was stored there; whoever was asked then did not say who it is.
        assert [h.region for h in server.heard] == ["auto", "eu-west-1", "auto"]
    assert isinstance(error, OutcomeUnknown)
    assert "Read the record" in error.hint
    assert "idempotency_key" not in error.context
    with playing(empty, RESET) as server:
        error = fails(server, count, timeout_s=1)
        assert {h.region for h in server.heard[1:]} == {"eu-west-1"}
    assert error.context["region"] == "eu-west-1"
    assert error.context["idempotency_key"] == server.heard[1].headers["idempotency-key"]


def test_who_begins_with_a_count_is_stored_by_one_region_only() -> None:
    with playing(answer(200, {"items": []}, WEST), RESET, shown()) as server:
        run(server, lambda c: c.users.create(tenant_id=ID, display_name="A", login_count=2))
        assert [h.region for h in server.heard] == ["auto", "eu-west-1", "eu-west-1"]


def test_a_condition_that_fails_after_a_lost_answer_proves_nothing() -> None:
    """The first attempt may be what changed the record; a read that shows our change is proof."""
    empty, stale = answer(200, {"items": []}), problem(412, "version-mismatch")
    with playing(empty, RESET, stale, shown(display_name="Bob")) as server:
        assert run(server, conditional).display_name == "Bob"
        assert [h.headers.get("if-match") for h in server.heard] == [None, '"1"', '"1"', None]
    with playing(empty, RESET, stale, shown(display_name="Eve")) as server:
        error = fails(server, conditional)
    assert isinstance(error, OutcomeUnknown)
    assert error.context["last_error"] == "version-mismatch"
    with playing(empty, stale) as server:
        assert type(fails(server, conditional)) is ConflictError

    async def erase_if(client: Client) -> None:
        await client.configs.erase(ID, if_match='"1"')

    with playing(RESET, stale, problem(410, "erased")) as server:
        run(server, erase_if)
    with playing(RESET, stale, shown()) as server:
        assert type(fails(server, erase_if)) is OutcomeUnknown


def test_a_refusal_after_a_lost_answer_says_nothing_of_the_first_attempt() -> None:
    for said in (
        problem(404, "record-unknown"),
        problem(403, "zone-mismatch"),
        problem(401, "token-invalid"),
    ):
        with playing(RESET, said) as server:
            assert type(fails(server, create)) is OutcomeUnknown
    with playing(RESET, problem(400, "bad-request")) as server:
        assert type(fails(server, create)) is InputError


def test_the_region_to_repeat_in_is_the_one_that_may_have_done_it() -> None:
    """And not one that a refusal speaks of."""
    away = problem(421, "residency-not-lawful-here", {"x-acgs2-region": "us-east-1"}, region="us-east-1")
    with playing(answer(200, {"items": []}, WEST), RESET, away) as server:
        error = fails(server, count)
        assert (type(error), error.context["region"]) == (OutcomeUnknown, "eu-west-1")
    with playing(answer(200, {"items": []}), RESET, away) as server:
        error = fails(server, count)
        assert type(error) is OutcomeUnknown
        assert "region" not in error.context


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

            run(home, go)
            assert len(west.heard) <= 3
            assert [h.region for h in home.heard] == ["auto", "eu-west-1", "auto", "auto"]


def test_the_next_url_is_tried_where_one_cannot_be_reached() -> None:
    with playing(shown()) as server:
        assert run([f"http://127.0.0.1:{free_port()}", server.url], create)
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
