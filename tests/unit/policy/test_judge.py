"""The judge with the policies and the constitution that come with the project, and with tenants' own."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.policy.situations import TENANTS, policy_texts, questions

from acgs2.errors import PolicyError
from acgs2.policy import Bundle, Decision, Judge, default_platform, groups_of, load
from acgs2.policy.question import AgentFacts, Question, TopicFacts

CONSTITUTION = load()
PLATFORM = Bundle.load(default_platform(), shared=CONSTITUTION.groups)
ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
ANN = AgentFacts(id="aaaaaaaa-0000-4000-8000-000000000001", tenant=ONE, zone="eu", name="ann")
BOB = AgentFacts(
    id="bbbbbbbb-0000-4000-8000-000000000002", tenant=TWO, zone="us", name="bob", accepts=frozenset({ONE})
)
TOPIC = TopicFacts(name="news", tenant=ONE, zone="eu")


def ask(judge, sender=ANN, receiver=ANN, message_type="note", zone="eu", **more):
    return judge.judge(
        Question(sender=sender, receiver=receiver, message_type=message_type, zone=zone, **more)
    )


def test_the_defaults_as_people_expect_them():
    judge = Judge(CONSTITUTION, PLATFORM)
    assert ask(judge).policies == ("within-a-tenant",)
    assert ask(judge, receiver=BOB).decision is Decision.ALLOW
    assert ask(judge, sender=BOB, receiver=ANN).decision is Decision.DENY
    assert ask(judge, receiver=TOPIC).decision is Decision.ALLOW
    assert ask(judge, sender=BOB, receiver=TOPIC).decision is Decision.DENY
    held = ask(judge, message_type="transfer", payload={"amount": 20_000})
    assert (held.decision, held.group, held.approvals, held.deadline_s) == ("deliberate", "safety", 2, 300)


def test_a_policy_that_fails_does_not_fail_open():
    overflows = '@id("all") permit(principal, action, resource);\n'
    overflows += (
        '@id("big") forbid(principal, action, resource) when { 9223372036854775807 + context.priority < 0 };'
    )
    found = ask(Judge(CONSTITUTION, PLATFORM, {ONE: Bundle.load(overflows, owner=ONE)}))
    assert found.decision is Decision.DENY
    assert "policy-error" in found.reasons[-1]


def test_a_tenant_holds_for_its_own_group():
    text = '@id("all") permit(principal, action, resource);\n'
    text += '@id("ads") @deliberate("legal") forbid(principal, action, resource) when { context.message_type == "ad" };'
    groups = groups_of({"legal": {"approvals": 1, "members": ["lea"]}})
    judge = Judge(CONSTITUTION, PLATFORM, {ONE: Bundle.load(text, owner=ONE, groups=groups)})
    held = ask(judge, message_type="ad")
    assert held.decision is Decision.DELIBERATE
    assert held.holds[0].members == (f"{ONE}\nlea",)
    assert ask(judge).decision is Decision.ALLOW


SHARED = CONSTITUTION.groups
PERMIT = '@id("all") permit (principal, action, resource);'


@st.composite
def bundles(draw, owner):
    try:
        return Bundle.load("\n".join(draw(policy_texts())), owner=owner, shared=SHARED)
    except PolicyError:  # the schema refuses what can never be so
        return Bundle.load(PERMIT, owner=owner, shared=SHARED)


@settings(deadline=None, max_examples=60)
@given(bundles("platform"), *(bundles(tenant) for tenant in TENANTS), st.lists(questions(), max_size=8))
def test_what_is_cached_is_what_is_not(platform, ours, theirs, asked):
    judge = Judge(CONSTITUTION, platform, {TENANTS[0]: ours, TENANTS[1]: theirs})
    alone = Judge(CONSTITUTION, platform, {TENANTS[0]: ours, TENANTS[1]: theirs}, cached=0)
    tiny = Judge(CONSTITUTION, platform, {TENANTS[0]: ours, TENANTS[1]: theirs}, cached=1)
    for question in [*asked, *asked]:
        assert judge.judge(question) == alone.judge(question) == tiny.judge(question)


@settings(deadline=None, max_examples=60)
@given(bundles("platform"), bundles(TENANTS[0]), questions())
def test_a_tenant_narrows_and_only_where_its_agents_are(platform, ours, question):
    order = list(Decision)
    without = Judge(CONSTITUTION, platform).judge(question)
    within = Judge(CONSTITUTION, platform, {TENANTS[0]: ours}).judge(question)
    assert order.index(within.decision) >= order.index(without.decision)
    if TENANTS[0] not in (question.sender.tenant, question.receiver.tenant):
        assert within == without


@settings(deadline=None, max_examples=60)
@given(bundles("platform"), bundles(TENANTS[0]), bundles(TENANTS[1]), questions())
def test_across_tenants_both_must_agree(platform, ours, theirs, question):
    def decided(**tenants):
        return list(Decision).index(Judge(CONSTITUTION, platform, tenants).judge(question).decision)

    one, two = {TENANTS[0]: ours}, {TENANTS[1]: theirs}
    assert decided(**one, **two) == max(decided(**one), decided(**two))


def test_a_tenants_permit_does_not_lift_a_forbid_of_the_platform():
    judge = Judge(
        CONSTITUTION, PLATFORM, {ONE: Bundle.load(PERMIT, owner=ONE), TWO: Bundle.load(PERMIT, owner=TWO)}
    )
    assert ask(judge, sender=BOB, receiver=ANN).decision is Decision.DENY
    halted = AgentFacts(id=ANN.id, tenant=ONE, zone="eu", status="halted")
    assert ask(judge, sender=halted, receiver=BOB).policies == ("only-active-agents-send",)


@pytest.mark.parametrize(
    "more",
    [
        {"sender": AgentFacts(id=ANN.id, tenant=ONE, zone="us")},
        {"message_type": "\ud800"},
        {"priority": 2**70},
    ],
)
def test_what_cannot_be_put_to_the_policies_is_denied(more):
    found = ask(Judge(CONSTITUTION, PLATFORM), **more)
    assert found.decision is Decision.DENY
    assert found.reasons[0].startswith("policy-error: ")


def test_whatever_its_names_are_a_message_is_judged():
    odd = AgentFacts(id='a"b\n\0', tenant='t"', zone="eu", name="\0", capabilities=frozenset({'"'}))
    assert ask(Judge(CONSTITUTION, PLATFORM), sender=odd, receiver=odd).decision is Decision.ALLOW


def test_policies_that_cannot_be_used_deny():
    found = ask(Judge(CONSTITUTION, PLATFORM, {ONE: Bundle.unusable(ONE, 3, "no such group")}))
    assert found.decision is Decision.DENY
    assert found.reasons == (f"policy-error: the policies of the tenant {ONE} cannot be used: no such group",)
    assert found.policies_version[1].version == 3


def test_other_policies_of_a_tenant_are_in_force_at_once():
    first = Judge(CONSTITUTION, PLATFORM)
    assert ask(first).decision is Decision.ALLOW
    closed = first.knowing({ONE: Bundle.load('@id("no") forbid (principal, action, resource);', owner=ONE)})
    assert ask(closed).policies == (f"{ONE}/no",)
    assert ask(first).decision is Decision.ALLOW
    assert ask(closed.knowing({ONE: None})).decision is Decision.ALLOW
    open_again = closed.knowing({ONE: Bundle.load(PERMIT, owner=ONE)})
    assert ask(open_again).decision is Decision.ALLOW
    # The same text with other groups holds for others.
    text = f'{PERMIT}\n@id("hold") @deliberate("g") forbid (principal, action, resource);'
    for member in ("lea", "lee"):
        groups = groups_of({"g": {"approvals": 1, "members": [member]}})
        judge = first.knowing({ONE: Bundle.load(text, owner=ONE, groups=groups)})
        assert ask(judge).holds[0].members == (f"{ONE}\n{member}",)
        assert judge.groups()[f"{ONE}/g"] == (f"{ONE}\n{member}",)


def test_metadata_that_no_policy_asks_for_makes_no_difference_to_the_cache():
    text = f'{PERMIT}\n@id("ads") forbid (principal, action, resource) when {{ context.metadata.hasTag("ads") }};'
    judge = Judge(CONSTITUTION, PLATFORM, {ONE: Bundle.load(text, owner=ONE)})
    assert ask(judge, metadata={"trace": "1"}) == ask(judge, metadata={"trace": "2"})
    assert judge.cached == 1
    assert ask(judge, metadata={"ads": "x"}).decision is Decision.DENY
    assert ask(judge, metadata={"ads": 1}).policies == (f"{ONE}/ads",)
    assert ask(judge, metadata={"ads": "x" * 1001}).reasons[0].startswith("policy-error: the entry ads")
    assert ask(judge, metadata={"ads": [object()]}).reasons[0].startswith("policy-error: the entry ads")
    assert ask(judge, metadata=["ads"]).decision is Decision.ALLOW


def test_a_basis_is_plain_values_without_floats():
    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(each) for key, each in value.items())
        return all(map(plain, value)) if isinstance(value, list) else type(value) in (str, int)

    basis = ask(Judge(CONSTITUTION, PLATFORM), message_type="transfer", payload={"amount": 1e9}).basis()
    assert plain(json.loads(json.dumps(basis)))
    assert (basis["group"], basis["approvals"], basis["deadline_s"]) == ("safety", 2, 300)
