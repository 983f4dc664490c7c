"""What a sender says is taken as it is, or refused with the reason; never anything in between."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acgs2.bus.request import decode, digest_of
from acgs2.errors import InputError
from acgs2.model.ids import uuid7

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=8,
)


def body(**changed: Any) -> dict[str, Any]:
    made = {
        "message_id": str(uuid7(int(NOW.timestamp() * 1000), b"0123456789")),
        "conversation_id": str(uuid4()),
        "tenant_id": str(uuid4()),
        "from_agent": str(uuid4()),
        "to_agent": str(uuid4()),
        "message_type": "greeting",
        "constitutional_hash": "cdd01ef066bc6cf2",
    }
    return {name: value for name, value in (made | changed).items() if value is not ...}


def refused(**changed: Any) -> str:
    with pytest.raises(InputError) as error:
        decode(json.dumps(body(**changed)).encode(), NOW)
    return error.value.reference


def test_what_is_right_is_taken_as_it_is() -> None:
    request = decode(json.dumps(body(payload={"a": [1, "ü"]}, priority=3)).encode(), NOW)
    assert (request.payload, request.priority, request.content) == ({"a": [1, "ü"]}, 3, "")


@pytest.mark.parametrize(
    ("changed", "reference"),
    [
        ({"to_agent": ...}, "receiver-unclear"),
        ({"topic": "news"}, "receiver-unclear"),
        ({"to_agent": ..., "topic": "news", "to_tenant_id": str(uuid4())}, "receiver-unclear"),
        ({"message_id": str(uuid4())}, "message-id-version"),
        ({"message_id": str(uuid7(int(NOW.timestamp() * 1000) + 301_000, b"0123456789"))}, "message-id-time"),
        (
            {"message_id": str(uuid7(int(NOW.timestamp() * 1000) - 86_401_000, b"0123456789"))},
            "message-id-time",
        ),
        ({"message_id": str(uuid7(0, b"0123456789"))}, "message-id-time"),
        ({"expires_at": (NOW - timedelta(seconds=1)).isoformat()}, "already-expired"),
        ({"expires_at": "2026-11-26T00:00:00"}, "invalid-value"),
        ({"priority": 4}, "invalid-value"),
        ({"priority": True}, "invalid-value"),
        ({"priority": "1"}, "invalid-value"),
        ({"content": None}, "invalid-value"),
        ({"content": "x" * 200_001}, "invalid-value"),
        ({"content": "a\x00b"}, "nul-character"),
        ({"payload": {"a": ["b\x00"]}}, "nul-character"),
        ({"payload": {"a\x00": 1}}, "nul-character"),
        ({"metadata": {"k": "\x00"}}, "nul-character"),
        ({"metadata": {"k": 1}}, "invalid-value"),
        ({"metadata": {str(n): "" for n in range(51)}}, "invalid-value"),
        ({"payload": []}, "invalid-value"),
        ({"decision": "allow"}, "invalid-value"),
        ({"salt": "00"}, "invalid-value"),
        ({"constitutional_hash": ...}, "invalid-value"),
        ({"from_agent": "me"}, "invalid-value"),
    ],
)
def test_what_is_wrong_is_refused_with_the_reason(changed: dict[str, Any], reference: str) -> None:
    assert refused(**changed) == reference


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"{" * 100_000, b'{"a":' * 50_000]
)
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InputError):
        decode(raw, NOW)


@settings(max_examples=400, deadline=None)
@given(
    field=st.sampled_from(
        sorted(body(topic="", payload={}, metadata={}, priority=0, content="", expires_at=None))
    ),
    value=JSON,
)
def test_no_value_of_any_field_is_anything_but_taken_or_refused(field: str, value: Any) -> None:
    raw = json.dumps(body(**{field: value})).encode()
    try:
        request = decode(raw, NOW)
    except InputError:
        return
    assert digest_of(request, "eu") == digest_of(decode(raw, NOW), "eu")


def test_a_repeat_has_the_same_digest_however_it_is_written_and_anything_else_another() -> None:
    made = body(payload={"a": 1, "b": [1.5, None]})
    first = digest_of(decode(json.dumps(made).encode(), NOW), "eu")
    turned = json.dumps(dict(reversed(made.items())), indent=3).encode()
    assert digest_of(decode(turned, NOW), "eu") == first
    assert digest_of(decode(json.dumps(made | {"priority": 1, "content": ""}).encode(), NOW), "eu") == first
    others = [{"content": "."}, {"priority": 2}, {"payload": {"a": 1}}, {"conversation_id": str(uuid4())}]
    assert all(digest_of(decode(json.dumps(made | o).encode(), NOW), "eu") != first for o in others)
    assert digest_of(decode(json.dumps(made).encode(), NOW), "us") != first
