"""Random policies and messages, small enough that they often meet."""

from __future__ import annotations

from hypothesis import strategies as st

from acgs2.policy import AgentFacts, Question, TopicFacts
from acgs2.policy.cedar import Asked

TENANTS = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"]
ZONES = ["eu", "us"]
TYPES = ["note", "transfer", "deploy"]
KEYS = ["purpose", "risk"]

agents = st.builds(
    AgentFacts,
    id=st.sampled_from(["a1", "a2", "a3"]),
    tenant=st.sampled_from(TENANTS),
    zone=st.sampled_from(ZONES),
    name=st.sampled_from(["ann", "bob"]),
    status=st.sampled_from(["active", "halted", "retired"]),
    capabilities=st.frozensets(st.sampled_from(["payments", "search"])),
    accepts=st.frozensets(st.sampled_from(TENANTS)),
)
topics = st.builds(
    TopicFacts,
    name=st.sampled_from(["ann", "news"]),
    tenant=st.sampled_from(TENANTS),
    zone=st.sampled_from(ZONES),
)
receivers = agents | topics
priorities = st.integers(0, 3)
metadata = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["ads", "high"]))


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    sender, receiver = draw(agents), draw(receivers)
    if isinstance(receiver, AgentFacts) and receiver.id == sender.id:
        receiver = sender  # one agent, one set of facts
    return Asked(
        sender,
        receiver,
        draw(st.sampled_from(TYPES)),
        draw(priorities),
        draw(st.sampled_from([0, 500, 800, 1000])),
        draw(st.sampled_from(ZONES)),
        tuple(sorted(draw(metadata).items())),
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(["amount", "a", "risk"]), below)
    ),
    max_leaves=8,
)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    found = draw(asked())
    return Question(
        sender=found.sender,
        receiver=found.receiver,
        message_type=found.message_type,
        zone=found.zone,
        priority=found.priority,
        content="x" * draw(st.sampled_from([0, 10, 30_000])),
        payload=draw(
            st.fixed_dictionaries({}, optional={"amount": st.sampled_from([1, 2000, 10_000, "1"])})
            | json_values
        ),
        metadata=dict(found.metadata) | draw(st.sampled_from([{}, {"trace": "1"}, {"risk": 7}])),
    )


OVERFLOW = "9223372036854775807 + context.priority > context.impact"
TESTS = [
    *(f'context.message_type == "{each}"' for each in TYPES),
    f'["note", "{TYPES[1]}"].contains(context.message_type)',
    '(context.message_type == "note" || context.message_type == "deploy")',
    '"deploy" == context.message_type',
    'principal == Agent::"a1"',
    'principal.name == "ann"',
    'resource.name == "ann"',
    f'principal.tenant == Tenant::"{TENANTS[0]}"',
    f'resource in Tenant::"{TENANTS[1]}"',
    'context.zone == "eu"',
    "context.priority > 1",
    "context.impact >= 800",
    'principal.capabilities.contains("payments")',
    '(resource is Agent && resource.status == "active")',
    'context.metadata.hasTag("purpose") && context.metadata.getTag("purpose") == "ads"',
    "context.cross_tenant",
    OVERFLOW,
]
#: What fails is drawn seldom: it decides everything.
SELDOM = [*TESTS[:-1] * 2, OVERFLOW]
SCOPES = [
    *["principal, action, resource"] * 5,
    'principal, action == Action::"send", resource is Topic',
    'principal == Agent::"a2", action, resource',
    f'principal in Tenant::"{TENANTS[0]}", action, resource',
    f'principal, action, resource is Agent in Tenant::"{TENANTS[1]}"',
    'principal, action, resource == Agent::"a1"',
    f'principal, action, resource == Topic::"{TENANTS[0]}/news"',
]


@st.composite
def policy_texts(draw: st.DrawFn) -> list[str]:
    """Draw the policies of one owner, one text each; the first permits everything, mostly."""
    made = ['@id("p") permit (principal, action, resource);'] if draw(st.integers(0, 9)) else []
    for number in range(draw(st.integers(0, 4))):
        effect = draw(st.sampled_from(["permit", "forbid", "forbid"]))
        note = draw(st.sampled_from(["", '@deliberate("safety") ', '@deliberate("on-call") ']))
        clauses = draw(st.lists(st.lists(st.sampled_from(SELDOM), min_size=1, max_size=3), max_size=2))
        body = " ".join(
            f"{draw(st.sampled_from(['when', 'when', 'unless']))} {{ {' && '.join(each)} }}"
            for each in clauses
        )
        note = note if effect == "forbid" else ""
        made.append(f'@id("r{number}") {note}{effect} ({draw(st.sampled_from(SCOPES))}) {body};')
    return made
