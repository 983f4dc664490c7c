"""Policies that cannot be taken as they are say where, and what would be right."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acgs2.errors import PolicyError
from acgs2.policy import Bundle, Group, default_platform, groups_of, load
from acgs2.policy.scan import MOST_CHARACTERS, scan

GROUPS = {"safety": Group(approvals=1, members=("ann",))}
GOOD = """// What a tenant wants.
@id("all")
permit (principal, action, resource);

@id("late") // "not; here"
forbid (principal, action, resource)
when { context.message_type == "a;b" };

@id("money") @deliberate("safety")
forbid (principal, action, resource) when { context.impact > 500 };
"""


def test_policies_know_their_lines():
    found = Bundle.load(GOOD, shared=GROUPS).policies
    assert [(policy.id, policy.line, policy.effect) for policy in found] == [
        ("all", 2, "permit"),
        ("late", 5, "forbid"),
        ("money", 9, "forbid"),
    ]
    assert found[2].hold is not None
    assert found[2].hold.group == "safety"


@pytest.mark.parametrize(
    ("right", "wrong", "line", "says"),
    [
        ('@id("late")', "", 6, "without @id"),
        ('@id("late")', '@id("Late one")', 5, "is no id"),
        ('@id("late")', "@id", 5, "without @id"),
        ('@id("late")', '@id("all")', 5, "there twice, first in line 2"),
        ('@id("late")', '@id("late") @id("later")', 5, "duplicate"),
        ('@deliberate("safety")', '@deliberate("safty")', 9, "Did you mean safety?"),
        ('@deliberate("safety")', '@delibrate("safety")', 9, "Did you mean @deliberate?"),
        ('@id("all")', '@id("all") @deliberate("safety")', 2, "Only a forbid holds"),
        ("context.impact > 500", "context.impakt > 500", 9, "impakt"),
        ("context.impact > 500", 'context.impact > "500"', 9, "type"),
        ("context.impact > 500", "resource.status == \"active\"", 9, "status"),
        ("context.impact > 500", "context.impact >", 9, "not Cedar"),
        ("context.impact > 500 };", "context.impact > 500", 9, "not Cedar"),
        ('"a;b"', '"a;b', 0, "policies of platform"),
        ("permit (principal, ", "permit (principal == ?principal, ", 2, "template"),
        ("permit (principal, ", 'permit (principal == Person::"x", ', 2, "Person"),
        ("context.impact > 500", 'Agent::"x".name == "y"', 9, "nothing is known"),
        ("context.impact > 500", 'Agent::"x" in Tenant::"y"', 9, "nothing is known"),
        ("context.impact > 500", "context.metadata.hasTag(principal.name)", 9, "worked out"),
        ("context.impact > 500", 'context.metadata.getTag("x") == "y"', 9, "tag"),
        ("context.impact > 500", "(" * 41 + "true" + ")" * 41, 10, "too deep"),
        ("context.impact > 500", "true" + " && true" * 20_000, 10, "too deep"),
        ("context.impact > 500", "context" + ".a" * 20_000, 10, "too deep"),
        ("context.impact > 500", "context" + '["a"]' * 20_000, 10, "too deep"),
        ("context.impact > 500", "[" * 20_000, 10, "too deep"),
        ("context.impact > 500", "true" + " && true" * 150, 9, "nesting"),
        ('@id("all")', '@id("all")' * 1000, 2, "too long"),
        ("// What", "// " + "x" * MOST_CHARACTERS, 1, "characters"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_a_line_and_a_hint(right: str, wrong: str, line: int, says: str) -> None:
    assert right in GOOD
    with pytest.raises(PolicyError) as caught:
        Bundle.load(GOOD.replace(right, wrong, 1), shared=GROUPS)
    error = caught.value
    assert says in f"{error.message} {error.hint}"
    assert error.hint
    assert line in (0, error.context["line"])


def test_too_many_policies_are_refused():
    text = "".join(f'@id("p{number}") permit (principal, action, resource);\n' for number in range(2001))
    with pytest.raises(PolicyError, match="more than 2000 policies"):
        Bundle.load(text)


@settings(deadline=None)
@given(
    st.text()
    | st.text('@()[]{};"/\\ \n.&|!', max_size=60)
    | st.lists(
        st.sampled_from(
            ['@id("a")', "permit", "(principal,action,resource)", "when", "{true}", ";", '"', "//"]
        )
    ).map(" ".join)
)
def test_whatever_is_sent_is_taken_or_refused_and_nothing_else(text: str) -> None:
    try:
        found = Bundle.load(text)
    except PolicyError as error:
        line = error.context["line"]
    else:
        line = 1
        assert len(found.policies) == len(scan(text, ""))
    assert 1 <= line <= text.count("\n") + 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=6))
def test_the_digest_is_of_text_and_groups(seed):
    text = "".join(f'@id("p{i}") permit (principal, action, resource);' for i in range(len(seed)))
    first = Bundle.load(text, owner="t", version=1, groups=GROUPS)
    assert first.digest == Bundle.load(text, owner="t", version=2, groups=GROUPS).digest
    assert first.digest != Bundle.load(text + " ", owner="t", groups=GROUPS).digest
    assert first.digest != Bundle.load(text, owner="t").digest


@pytest.mark.parametrize(
    "wrong",
    [None, [], {"a": 1}, {"A b": {"approvals": 1, "members": ["x"]}}, {"a": {"approvals": 2, "members": ["x"]}},
     {"a": {"approvals": 0, "members": ["x"]}}, {"a": {"approvals": 1, "members": []}},
     {"a": {"approvals": 1, "members": ["x", "x"]}}, {"a": {"approvals": True, "members": ["x"]}},
     {"a": {"approvals": 1, "members": ["x\ny"]}}, {"a": {"approvals": 1, "members": ["x"], "more": 1}}],
)  # fmt: skip
def test_groups_that_are_none_are_refused(wrong):
    with pytest.raises(PolicyError):
        groups_of(wrong)


def test_a_tenants_group_is_its_own_and_comes_first():
    text = '@id("x") @deliberate("safety") forbid (principal, action, resource);'
    ours = Bundle.load(
        text, owner="t1", groups=groups_of({"safety": {"approvals": 1, "members": ["ann"]}}), shared=GROUPS
    )
    assert ours.policies[0].hold is not None
    assert (ours.policies[0].hold.group, ours.policies[0].hold.members) == ("t1/safety", ("t1\nann",))
    shared = Bundle.load(text, owner="t1", shared=GROUPS)
    assert shared.policies[0].hold is not None
    assert shared.policies[0].hold.members == ("ann",)


def test_the_platform_policies_are_packaged_and_right():
    assert len(Bundle.load(default_platform(), shared=load().groups).policies) >= 5


@pytest.mark.parametrize("brackets", [39, 40])
def test_brackets_end_at_forty(brackets):
    text = f'@id("a") permit (principal, action, resource) when {{ {"(" * brackets}true{")" * brackets} }};'
    if brackets < 40:  # the braces are one more
        assert Bundle.load(text).policies
    else:
        with pytest.raises(PolicyError):
            Bundle.load(text)
