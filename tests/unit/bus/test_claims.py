"""Claims by name: what is one, and of which generation."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acgs2.bus.claims import ClaimId, of_generation
from acgs2.errors import ConflictError, InputError

CLAIMS = st.builds(ClaimId, st.integers(0, 2**63 - 1), st.uuids(), st.uuids())


@given(CLAIMS)
def test_a_claim_is_read_as_it_was_written(claim: ClaimId) -> None:
    assert ClaimId.parse(str(claim)) == claim


@given(st.text(max_size=80) | st.builds("{0}.{1}.{2}".format, st.text(max_size=3), st.text(), st.text()))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no claim"):
        ClaimId.parse(text)


@given(
    CLAIMS, st.sampled_from(["upper", "braces", "dashes", "zeros", "sign", "space", "far", "other digits"])
)
def test_no_claim_has_two_names(claim: ClaimId, how: str) -> None:
    generation, message, nonce = str(claim).split(".")
    name = {
        "upper": f"{generation}.{message.upper()}A.{nonce}",
        "braces": f"{generation}.{{{message}}}.{nonce}",
        "dashes": f"{generation}.{UUID(message)}.{nonce}",
        "zeros": f"0{generation}.{message}.{nonce}",
        "sign": f"+{generation}.{message}.{nonce}",
        "space": f" {generation}.{message}.{nonce}",
        "far": f"{2**63}.{message}.{nonce}",
        "other digits": f"\u0661.{message}.{nonce}",
    }[how]
    with pytest.raises(InputError):
        ClaimId.parse(name)


@given(st.lists(CLAIMS, min_size=1), st.integers(0, 5))
def test_claims_of_another_generation_are_refused_whole(claims: list[ClaimId], generation: int) -> None:
    old = [str(c) for c in claims if c.generation != generation]
    if not old:
        of_generation(claims, generation)
        return
    with pytest.raises(ConflictError) as refused:
        of_generation(claims, generation)
    assert refused.value.reference == "generation-old"
    assert refused.value.context["claims"] == old
