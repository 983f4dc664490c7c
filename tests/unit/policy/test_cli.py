"""`acgs2 policy` and `acgs2 constitution`, and the examples of docs/policies.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sybil import Document
from sybil.parsers.markdown import CodeBlockParser
from typer.testing import CliRunner

from acgs2.cli.constitution import app as constitution
from acgs2.cli.policy import app as policy
from acgs2.errors import AcgsError, InputError, PolicyError
from acgs2.policy import default_platform, load
from acgs2.policy.cases import Suite
from acgs2.policy.constitution import builtin

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs" / "policies.md"
PLATFORM = ROOT / "src" / "acgs2" / "policy"


def run(app, *arguments, status=0):
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if isinstance(done.exception, AcgsError):
        raise done.exception
    assert done.exit_code == status, done.output
    return json.loads(done.output) if "--json" in arguments else done.output


@pytest.fixture
def documented(tmp_path: Path) -> Path:
    """Return a folder with the files that docs/policies.md shows; each says its name in its first line."""

    def write(example) -> None:
        name = example.parsed.splitlines()[0].strip("#/ ")
        (tmp_path / name).write_text(example.parsed, encoding="utf-8")

    parsers = [CodeBlockParser(language=language, evaluator=write) for language in ("cedar", "yaml")]
    for example in Document.parse(str(DOCS), *parsers).examples():
        example.evaluate()
    assert {each.name for each in tmp_path.iterdir()} == {"acme.cedar", "acme.test.yaml", "groups.yaml"}
    return tmp_path


def test_the_examples_of_the_docs_do_what_they_say(documented: Path) -> None:
    assert run(policy, "test", documented, "--json") | {"results": 0} == {
        "cases": 4,
        "failed": 0,
        "results": 0,
    }
    file = documented / "acme.cedar"
    found = run(policy, "check", file, "--tenant", "acme", "--groups", documented / "groups.yaml", "--json")
    assert [row["group"] for row in found["policies"]] == [None, "acme/legal", None]
    assert found["warnings"] == []


def test_the_platforms_tests_pass() -> None:
    found = run(policy, "test", PLATFORM, "--json")
    assert found["cases"] >= 15
    assert found["failed"] == 0


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("expect: allow", "expect: deny", "decision is allow, not deny"),
        ("acme/legal]", "acme/safety]", "groups is ['acme/legal'], not ['acme/safety']"),
        ("impact: 1000", "impact: 900", "impact is 1000, not 900"),
        ("policies: [acme/payments-by-payers-only]", "policies: []", "policies is"),
    ],
)
def test_a_case_that_fails_is_shown(documented: Path, right: str, wrong: str, says: str) -> None:
    file = documented / "acme.test.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    shown = run(policy, "test", file, status=1)
    line = next(n for n, each in enumerate(text.splitlines(), 1) if right in each)
    assert says in shown
    assert "3 passed, 1 failed" in shown
    at = int(shown.partition("acme.test.yaml:")[2].partition(":")[0])
    assert 0 <= line - at <= 5


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("from: ann", "from: zoe", "no agent zoe"),
        ("expect: allow", "expect: perhaps", "expect.decision"),
        ("expect: allow", "expct: allow", "Did you mean expect?"),
        ("to: pay, expect", "expect", "either to or topic"),
        ("priority", "priority", ""),
        ("cases:", "casses:", "cases"),
        ("agents:", "agents: &a", ""),
    ],
)
def test_cases_that_are_none_are_refused_with_their_line(documented, right, wrong, says) -> None:
    file = documented / "acme.test.yaml"
    text = file.read_text(encoding="utf-8")
    text = text.replace("expect: allow", "priority: 4, expect: allow") if right == "priority" else text
    text = text + "more: *a\n" if "&a" in wrong else text
    file.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        Suite.load(file)
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.context["line"] >= 1


def test_an_explanation_shows_factors_and_approvers(documented: Path) -> None:
    file = documented / "acme.test.yaml"
    shown = run(policy, "explain", file, "--case", "a large payment")
    for each in (
        "deliberate",
        "large-amount: payload amount is at least 10000",
        "needs   2 of ann@acgs2.example",
    ):
        assert each in shown
    (found,) = run(policy, "explain", file, "--case", "a note", "--metadata", "purpose=advertising",
                   "--message-type", "x", "--payload", '{"amount": 1e9}', "--json")  # fmt: skip
    assert (found["decision"], found["group"]) == ("deliberate", "acme/legal and safety")
    names = [factor["name"] for factor in found["factors"]]
    assert names == ["large-amount", "notable-amount", "acts-on-production"]
    for wrong in (("--payload", "{"), ("--case", "none")):
        with pytest.raises(InputError):
            run(policy, "explain", file, *wrong)


def test_a_difference_is_in_policies_and_in_verdicts(documented: Path) -> None:
    old, new = documented / "acme.cedar", documented / "new.cedar"
    text = old.read_text(encoding="utf-8")
    new.write_text("// only a comment\n" + text.replace("unless {", "\n  unless {"), encoding="utf-8")
    options = ("--tenant", "acme", "--groups", documented / "groups.yaml", "--cases", documented, "--json")
    assert run(policy, "diff", old, new, *options) == {
        "added": [],
        "removed": [],
        "changed": [],
        "verdicts": [],
    }
    changed = text.replace("transfer", "payment").replace("everything-else", "all")
    new.write_text(changed, encoding="utf-8")
    found = run(policy, "diff", old, new, *options, status=1)
    assert (found["added"], found["removed"], found["changed"]) == (["all"], ["everything-else"], ["payments-by-payers-only"])  # fmt: skip
    decided = {row["case"]: (row["old"]["decision"], row["new"]["decision"]) for row in found["verdicts"]}
    assert decided["a payment by somebody else"] == ("deny", "deliberate")


def test_what_cannot_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    for act in (
        ("test", tmp_path),
        ("test", tmp_path / "x"),
        ("check", tmp_path),
        ("explain", tmp_path / "x"),
    ):
        with pytest.raises(InputError):
            run(policy, *act)
    (tmp_path / "bytes.cedar").write_bytes(b"\xff")
    with pytest.raises(PolicyError):
        run(policy, "check", tmp_path / "bytes.cedar")


def test_a_check_warns_where_nothing_is_permitted(tmp_path: Path) -> None:
    (tmp_path / "only.cedar").write_text('@id("no") forbid (principal, action, resource);', encoding="utf-8")
    assert run(policy, "check", tmp_path / "only.cedar", "--json")["warnings"]


def test_a_constitution_is_shown_and_checked(tmp_path: Path) -> None:
    assert run(constitution, "check", "--json")["digest"] == load().digest
    assert run(constitution, "show", builtin(), "--json")["digest"] == load().digest
    assert load().digest in run(constitution, "show", builtin())
    (tmp_path / "c.yaml").write_text("id: x", encoding="utf-8")
    with pytest.raises(InputError, match=r"c\.yaml:1"):
        run(constitution, "check", tmp_path / "c.yaml")


def test_the_schema_is_printed() -> None:
    assert "action send" in run(policy, "schema")
    assert "permit" in default_platform()
