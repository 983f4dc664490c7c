"""When a token is replaced, and that an answer's headers are read with care."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acgs2.client.answers import read
from acgs2.client.course import Came
from acgs2.client.tokens import Claims, Tokens, claims_of, is_due
from acgs2.errors import AcgsError, InputError


def jwt(**claims: Any) -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims)
    ]
    return ".".join([*parts, "signature"])


@pytest.mark.parametrize(
    "token", ["opaque", "a.b.c", "..", "a.eyJ.c", jwt(exp="soon"), "a." + "W1tb" * 9999 + ".c", "a.ü.c"]
)
def test_what_is_no_jwt_says_nothing(token: str) -> None:
    assert claims_of(token) == Claims()


@pytest.mark.parametrize(
    ("iat", "exp", "now_s", "due"),
    [
        (0, 1000, 939, False),
        (0, 1000, 940, True),
        (0, 100, 89, False),
        (0, 100, 90, True),
        (None, 1000, 940, True),
        (None, None, 1e9, False),
        (2000, 1000, 999, False),
        (2000, 1000, 1000, True),
    ],
)
def test_a_token_is_due_within_a_tenth_of_its_life_or_a_minute(
    iat: float | None, exp: float | None, now_s: float, due: bool
) -> None:
    assert is_due(Claims(None, iat, exp), now_s) is due


def test_a_token_is_asked_for_once_before_it_ends() -> None:
    now_s, given, lives = [0.0], [], [100, 200, 200, 300]

    def source() -> str:
        given.append(jwt(sub="me", iat=lives[len(given)] - 100, exp=lives[len(given)]))
        return given[-1]

    async def main() -> None:
        tokens = Tokens(source, lambda: now_s[0])
        assert await tokens.current() == await tokens.current() == given[0]
        now_s[0] = 95
        assert await asyncio.gather(*(tokens.current() for _ in range(5))) == [given[1]] * 5
        now_s[0] = 195
        # The source has no other yet: it is not asked again before that one is refused.
        assert await tokens.current() == await tokens.current() == given[2] == given[1]
        assert len(given) == 3
        assert await tokens.current(refused=given[0]) == given[1]
        assert await tokens.current(refused=given[1]) == given[3]

    asyncio.run(main())
    assert not Tokens("fixed").renewable


@pytest.mark.parametrize("token", ["", "a b", "a\r\nb", "ü", None, 5, b"x"])
def test_what_no_request_can_carry_is_refused(token: Any) -> None:
    with pytest.raises(InputError):
        asyncio.run(Tokens(lambda: token).current())


NOW_S = 1_700_000_000


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("2", 2),
        (" 2 ", 2),
        ("0", 0),
        ("-1", 0),
        ("1.5", 0),
        ("soon", 0),
        ("", 0),
        ("9" * 5000, 86400),
        ("Tue, 14 Nov 2023 22:13:25 GMT", 5),
        ("Tue, 14 Nov 2023 22:13:25 -0000", 5),
        ("Tue, 14 Nov 2023 22:13:15 GMT", 0),
        ("Tue, 99 Nov 2023 22:13:25 GMT", 0),
        ("Fri, 14 Nov 9999 22:13:25 GMT", 86400),
        ("Fri, 14 Nov 0000 22:13:25 GMT", 0),
        ("٣", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, wait_s: float) -> None:
    headers = {"content-type": "application/problem+json", "retry-after": text}
    body = b'{"type": "https://acgs2.example/problems/pair-unavailable"}'
    made = read(503, headers, body, None, chosen=False, now_s=NOW_S)
    assert (made.outcome.came, made.outcome.retry_after_s) == (Came.LATER, wait_s)


@given(
    st.text(max_size=30)
    | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,4} [A-Z][a-z]{2} [0-9]{1,5} [0-9:]{1,9} ?[A-Z0-9+-]*")
)
def test_retry_after_may_be_anything(text: str) -> None:
    headers = {"content-type": "application/problem+json", "retry-after": text}
    body = b'{"type": "https://acgs2.example/problems/pair-unavailable"}'
    assert 0 <= read(503, headers, body, None, chosen=False, now_s=NOW_S).outcome.retry_after_s <= 86400


members = st.dictionaries(
    st.sampled_from(["type", "title", "status", "detail", "hint", "endpoints", "self", "reference", "x"]),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=9) | st.just("https://a/erased"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        max_leaves=3,
    ),
    max_size=4,
)


@given(
    st.integers(200, 599),
    st.dictionaries(st.sampled_from(["retry-after", "x-acgs2-region", "etag"]), st.text(max_size=20)),
    st.sampled_from(["application/problem+json", "application/json", ""]),
    st.binary(max_size=20) | members.map(lambda m: json.dumps(m).encode()),
    st.booleans(),
)
def test_every_answer_is_a_value_or_an_error_of_ours(
    status: int, headers: dict[str, str], kind: str, body: bytes, chosen: bool
) -> None:
    made = read(status, {**headers, "content-type": kind}, body, dict[str, int], chosen=chosen, now_s=NOW_S)
    if made.error is None:
        assert 200 <= status < 300
    else:
        assert isinstance(made.error, AcgsError)
        assert made.error.reference
        assert made.error.context["status"] == status
