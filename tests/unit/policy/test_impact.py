"""Impact: bounded, explained, deterministic, and deaf to what a sender writes to make it smaller."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from tests.unit.policy.situations import questions

from acgs2.policy import AgentFacts, Question, TopicFacts, load
from acgs2.policy.features import Impact
from acgs2.policy.impact import score

ONE = AgentFacts(id="a", tenant="t1", zone="eu", capabilities=frozenset({"search"}))
TWO = AgentFacts(id="b", tenant="t2", zone="us", capabilities=frozenset({"payments"}))
TOPIC = TopicFacts(name="news", tenant="t1", zone="eu")
BUILT_IN = load().impact


def asked(**more) -> Question:
    return Question(**{"sender": ONE, "receiver": ONE, "message_type": "note", "zone": "eu"} | more)


def weighs(when: dict, question: Question, weight: float = 0.3):
    features = [{"name": "it", "weight": weight, "when": when}]
    return score(Impact.model_validate({"features": features}), question)


@settings(deadline=None)
@given(questions())
def test_it_is_bounded_explained_and_the_same_every_time(question):
    impact, factors = score(BUILT_IN, question)
    assert 0 <= impact <= 1000
    assert impact == min(1000, sum(factor.share for factor in factors))
    assert all(factor.share > 0 and factor.why for factor in factors)
    assert (impact, factors) == score(BUILT_IN, question)


@pytest.mark.parametrize(
    ("when", "holds", "does_not"),
    [
        ({"message_type": ["deploy"]}, asked(message_type="deploy"), asked()),
        ({"priority_at_least": 2}, asked(priority=2), asked(priority=1)),
        ({"crosses_tenants": True}, asked(receiver=TWO), asked()),
        ({"crosses_tenants": False}, asked(), asked(receiver=TWO)),
        ({"crosses_zones": True}, asked(receiver=TWO), asked()),
        ({"to_topic": True}, asked(receiver=TOPIC), asked()),
        ({"content_longer_than": 3}, asked(content="four"), asked(content="one")),
        ({"sender_can": ["search"]}, asked(), asked(sender=TWO)),
        ({"receiver_can": ["payments", "x"]}, asked(receiver=TWO), asked(receiver=TOPIC)),
        ({"metadata": {"key": "risk", "one_of": ["high"]}}, asked(metadata={"risk": "high"}), asked(metadata={"risk": "low"})),
        ({"metadata": {"key": "risk", "one_of": ["high"]}}, asked(metadata={"risk": 1}), asked(metadata=None)),
        ({"payload": {"path": "a.b", "at_least": 5}}, asked(payload={"a": {"b": 5}}), asked(payload={"a": {"b": 4.9}})),
        ({"payload": {"path": "a", "above": 5}}, asked(payload={"a": 5.1}), asked(payload={"a": 5})),
        ({"payload": {"path": "a", "at_most": 5}}, asked(payload={"a": 5}), asked(payload={"a": 6})),
        ({"payload": {"path": "a", "below": 5}}, asked(payload={"a": -1}), asked(payload={"a": 5})),
        ({"payload": {"path": "a", "one_of": ["x"]}}, asked(payload={"a": "x"}), asked(payload={"a": "y"})),
        ({"payload": {"path": "a", "exists": True}}, asked(payload={"a": None}), asked(payload={})),
        ({"payload": {"path": "a", "exists": False}}, asked(payload=[]), asked(payload={"a": 1})),
        ({"payload": {"path": "items.*.n", "above": 5}}, asked(payload={"items": [{"n": 1}, {"n": 6}]}), asked(payload={"items": [{"n": 1}]})),
        ({"payload": {"path": "*", "above": 5}}, asked(payload={"x": 6}), asked(payload="6")),
        ({"message_type": ["note"], "priority_at_least": 3}, asked(priority=3), asked(priority=2)),
    ],
)  # fmt: skip
def test_a_feature_holds_when_all_of_it_does(when, holds, does_not):
    impact, factors = weighs(when, holds)
    assert (impact, [(f.name, f.share) for f in factors]) == (300, [("it", 300)])
    assert weighs(when, does_not) == (0, ())


@pytest.mark.parametrize("value", ["20000", "1", True, [20_000], {"x": 1}, None, float("nan")])
def test_what_cannot_be_compared_counts(value):
    impact, factors = weighs(
        {"payload": {"path": "amount", "at_least": 10_000}}, asked(payload={"amount": value})
    )
    assert impact == 300
    assert factors[0].why == "payload amount is no number"


@pytest.mark.parametrize("value", [10**400, float("inf")])
def test_a_number_may_be_as_large_as_it_likes(value):
    assert weighs({"payload": {"path": "n", "above": 1.5}}, asked(payload={"n": value}))[0] == 300


def test_a_large_amount_does_not_hide_among_many():
    payload = {"items": [{"n": 0}] * 5000 + [{"n": 10}]}
    assert weighs({"payload": {"path": "items.*.n", "above": 5}}, asked(payload=payload))[0] == 300


def test_an_explanation_holds_nothing_of_the_payload():
    found = weighs({"payload": {"path": "amount", "at_least": 10_000}}, asked(payload={"amount": 31_337}))
    assert "31337" not in found[1][0].why


def test_the_sum_ends_at_one():
    features = [{"name": f"f{n}", "weight": 0.7, "when": {"crosses_tenants": False}} for n in range(3)]
    assert score(Impact.model_validate({"features": features}), asked())[0] == 1000
