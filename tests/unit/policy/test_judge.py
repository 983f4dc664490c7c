"""The judge with the policies and the constitution that come with the project, and with tenants' own."""

from __future__ import annotations

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
