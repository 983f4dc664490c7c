"""What events carry is one line to whoever splits lines, and the same JSON."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from acgs2.api.event_streams import on_one_line, problem_of
from acgs2.errors import ConflictError

ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(ENDS)))
def test_nothing_ends_a_line_and_nothing_is_lost(text: str) -> None:
    line = on_one_line(msgspec.json.encode({"text": text}))
    assert line.decode().splitlines() == [line.decode()]
    assert json.loads(line) == {"text": text}


def test_what_goes_wrong_is_told_as_a_problem_whatever_it_was() -> None:
    assert problem_of(ConflictError("taken", "It is taken.", hint="No."))["status"] == 409
    assert problem_of(TimeoutError())["type"].endswith("/database-unavailable")
