"""What policies decide equals what each of them says alone, put together by our rules."""

from __future__ import annotations

import json

import cedarpy
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.unit.policy.situations import TENANTS, TESTS, asked, policy_texts

from acgs2.errors import PolicyError
from acgs2.policy import AgentFacts, Bundle, Decision, Group
from acgs2.policy.bundle import schema
from acgs2.policy.cedar import Asked, Panel, ask, request_of

GROUPS = {name: Group(approvals=1, members=(name,)) for name in ("safety", "on-call")}


def says(text, request):
    """Return what one policy says alone: holds, does not, or fails."""
    found = cedarpy.is_authorized(request.request, text, request.entities)
    if found.diagnostics.errors:
        return "fails"
    return "holds" if found.diagnostics.reasons else "does not"


def expected(owners, request):
    """Decide by the rules as docs/policies.md says them, policy by policy."""
    by_owner = [[(text, says(text, request)) for text in texts] for texts in owners]
    everything = [each for texts in by_owner for each in texts]
    if any(said == "fails" for _, said in everything):
        return Decision.DENY
    holding = [text for text, said in everything if said == "holds"]
    if any("forbid (" in text and "@deliberate" not in text for text in holding):
        return Decision.DENY
    for texts in by_owner:
        if not any("permit (" in text and said == "holds" for text, said in texts):
            return Decision.DENY
    return Decision.DELIBERATE if any("@deliberate" in text for text in holding) else Decision.ALLOW


def bundle(texts, owner):
    try:
        return Bundle.load("\n".join(texts), owner=owner, shared=GROUPS)
    except PolicyError:
        assume(False)  # the schema refuses what can never be so
        raise


@settings(deadline=None, max_examples=150)
@given(policy_texts(), policy_texts(), policy_texts(), asked(), st.sampled_from([1, 1, 2, 40]))
def test_sorting_and_asking_together_change_nothing(platform, ours, theirs, facts, worth):
    owners = [platform, ours, theirs]
    bundles = [bundle(texts, owner) for texts, owner in zip(owners, ("platform", *TENANTS), strict=True)]
    request = request_of(facts)
    ruling = ask((Panel(bundles[:2], worth), Panel(bundles[2:], worth)), request)
    assert ruling.decision == expected(owners, request)
    assert ruling.decision is not Decision.ALLOW or {p.effect for p in ruling.by} == {"permit"}
    assert ruling.decision is not Decision.DELIBERATE or all(p.hold for p in ruling.by)
    assert ruling.decision is not Decision.DENY or ruling.by or ruling.failed or ruling.silent


@settings(deadline=None)
@given(asked())
def test_what_cedar_is_told_fits_the_schema(facts):
    request = request_of(facts)
    cedarpy.Entities.from_json_str(str(request.entities), schema())
    found = cedarpy.is_authorized(
        request.request, "permit(principal, action, resource);", request.entities, schema()
    )
    assert found.decision is cedarpy.Decision.Allow
    assert sorted(json.loads(request.request["context"])) == [
        "cross_tenant", "cross_zone", "impact", "message_type", "metadata", "priority", "zone",
    ]  # fmt: skip


NOTED = Asked(
    AgentFacts(id="a1", tenant=TENANTS[0], zone="eu", name="ann"),
    AgentFacts(id="a2", tenant=TENANTS[1], zone="us", name="bob"),
    "note", 1, 0, "eu", (("purpose", "ads"),),
)  # fmt: skip


@pytest.mark.parametrize("first", TESTS)
def test_every_two_tests_in_every_order_are_sorted_rightly(first):
    requests = [
        request_of(NOTED._replace(message_type=each, priority=priority))
        for each, priority in (("note", 1), ("deploy", 3))
    ]
    for second in TESTS:
        for clause in (f"when {{ {first} && {second} }}", f"unless {{ {first} }} when {{ {second} }}"):
            texts = [
                '@id("p") permit (principal, action, resource);',
                f'@id("f") forbid (principal, action, resource) {clause};',
            ]
            try:
                panel = Panel((Bundle.load("\n".join(texts)),), 1)
            except PolicyError:
                continue
            for request in requests:
                assert ask((panel,), request).decision == expected([texts], request), clause
