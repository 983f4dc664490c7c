"""The constitution: what it says, its digest, and what is no constitution."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from acgs2.errors import ConstitutionError
from acgs2.policy import founded, load, of, parse
from acgs2.policy.constitution import builtin
from acgs2.topology import builtin as topology_file
from acgs2.topology import load as load_topology

TEXT = builtin().read_text(encoding="utf-8")
CANONICAL = load().canonical


def test_it_is_beside_the_topologies_and_the_one_they_name():
    for name in ("local", "global"):
        named = load_topology(name).constitution
        found = load(topology_file(name).parent / named.path)
        assert found.id == named.id == "cdd01ef066bc6cf2"
    assert load() == load(builtin())


def test_the_digest_can_be_worked_out_by_anybody():
    # What YAML reads, as JSON with sorted keys and no blanks: RFC 8785 where all keys and text are ASCII.
    plain = json.dumps(yaml.safe_load(TEXT), sort_keys=True, separators=(",", ":"))
    assert load().digest == hashlib.sha256(plain.encode()).hexdigest()


def test_comments_and_order_make_no_difference_and_everything_else_does():
    first = load()
    assert parse("# x\n" + yaml.safe_dump(yaml.safe_load(TEXT), sort_keys=True)).digest == first.digest
    for change in (
        ("version: 1", "version: 2"),
        ("impact: 0.8", "impact: 0.9"),
        ("weight: 0.5", "weight: 0.4"),
    ):
        assert parse(TEXT.replace(*change, 1)).digest != first.digest


def test_thousandths_are_exact():
    assert load().thresholds.impact == 800
    assert parse(TEXT.replace("weight: 0.6", "weight: 0.015")).impact.features[0].weight == 15


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("version: 1", "version: 0", "greater than or equal to 1"),
        ("version: 1", "version: true", "integer"),
        ("version: 1", "version: '1'", "integer"),
        ("version: 1", "version: 1\nversion: 2", "twice"),
        ("version: 1", "version: 2026-01-01", "integer"),
        ("id: cdd01ef066bc6cf2", "id: cdd01", "pattern"),
        ("impact: 0.8", "impact: 1.2", "from 0 to 1"),
        ("impact: 0.8", "impact: .nan", "from 0 to 1"),
        ("impact: 0.8", "impact: 0.8001", "three decimals"),
        ("impact: 0.8", "impact: '0.8'", "from 0 to 1"),
        ("group: safety", "group: safty", "no group safty"),
        ("deadline_s: 300", "deadline_s: 0", "deadline_s"),
        ("priority_at_least", "priority_atleast", "Did you mean priority_at_least?"),
        ("approvals: 2\n    members", "approvals: 4\n    members", "cannot be had"),
        ("members: [ann@acgs2.example, bo@acgs2", "members: [ann@acgs2.example, ann@acgs2", "named twice"),
        ("approvals: 2\n  amenders", "approvals: 4\n  amenders", "cannot be had"),
        ("name: fay@", "name: eve@", "named twice"),
        ("key: local", "key: rsa:1", "pattern"),
        ("  proposer:", "  propser:", "roles"),
        ("may: [propose]", "may: [rule]", "may"),
        ("name: urgent", "name: long", "one name"),
        ("when: {to_topic: true}", "when: {}", "when it counts"),
        ("when: {to_topic: true}", "when: {to_topic: null}", "when it counts"),
        ("path: amount, at_least: 10000", "path: amount", "one of at_least"),
        ("path: amount, at_least: 10000", "path: amount, at_least: 1, below: 2", "one of at_least"),
        ("path: amount, at_least: 10000", "path: amount, at_least: .inf", "finite"),
        ("path: amount, at_least: 10000", "path: amount, at_least: 9007199254740993", "canonical"),
        ("preamble: >-", "preamble: &a >-", ""),
        ("group: safety", "group: *a", ""),
    ],
)  # fmt: skip
def test_what_is_no_constitution_says_where(right: str, wrong: str, says: str) -> None:
    assert right in TEXT
    text = TEXT.replace(right, wrong, 1)
    if "&a" in wrong:
        text = text.replace("group: safety", "group: *a", 1)
    with pytest.raises(ConstitutionError) as caught:
        parse(text)
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.context["file"]


def test_an_error_names_its_line():
    with pytest.raises(ConstitutionError) as caught:
        parse(TEXT.replace("deadline_s: 300", "deadline_s: -1"))
    line = caught.value.context["line"]
    assert "deadline_s" in TEXT.splitlines()[line - 1]
    assert f":{line}:" in caught.value.message


@settings(deadline=None)
@given(
    st.text() | st.sampled_from(["[]", "{}", "null", "a: &a [*a]", "\x00", "--- !!python/object:x {}", "a: b: c", "[" * 300, "? [a]\n: b", "1: 2"])
)  # fmt: skip
def test_whatever_is_none_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(ConstitutionError):
        parse(text)


@settings(deadline=None)
@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=5)
)
def test_no_document_of_plain_values_does_worse(value) -> None:
    for key in (document := json.loads(CANONICAL)):
        with pytest.raises(ConstitutionError):
            of(document | {key: value} | {"more": 1})


def test_text_without_a_canonical_form_is_refused():
    with pytest.raises(ConstitutionError, match="unicode"):
        of(json.loads(load().canonical) | {"preamble": "\ud800"})


def test_roles_are_apart():
    found = load()
    assert found.permits("agent", "send")
    assert not found.permits("agent", "approve")
    assert not found.permits("nobody", "send")
    assert found.exclusions(["proposer", "approver"]) == (("approver", "proposer"),)
    assert found.exclusions(["auditor", "operator", "agent"]) == (
        ("agent", "auditor"), ("agent", "operator"), ("auditor", "operator"),
    )  # fmt: skip
    assert found.exclusions(["agent", "proposer"]) == ()


def test_founding_puts_real_keys_in():
    keys = {
        each.name: f"ed25519:{letter * 43}"
        for each, letter in zip(load().amendment.amenders, "ABC", strict=True)
    }
    made = founded(load(), keys)
    assert made.founded
    assert not load().founded
    assert made.digest != load().digest
    assert founded(made, {}).digest == made.digest
    with pytest.raises(ConstitutionError, match="has no key"):
        founded(load(), {})
    with pytest.raises(ConstitutionError):
        founded(load(), dict.fromkeys(keys, "local"))


def test_reading_it_loads_no_server():
    code = "import sys, acgs2.policy; acgs2.policy.load()\n"
    code += "print([m for m in ('psycopg','litestar','granian','httpx') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
