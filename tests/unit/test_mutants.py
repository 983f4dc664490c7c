"""The list of mutants has not rotted: every text is still there exactly once, and every test exists."""

from __future__ import annotations

import ast

import pytest
from tests.mutants.declared import ROOT, Mutant, declared
from tests.mutants.run import Case, Run, judge

MUTANTS = declared()


def test_there_are_at_least_twelve() -> None:
    assert len({mutant.name for mutant in MUTANTS}) >= 12


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_is_of_the_code_as_it_is(mutant: Mutant) -> None:
    assert mutant.promise
    assert mutant.tests
    assert mutant.find != mutant.replace
    assert mutant.occurrences() == 1
    for node in mutant.nodes:
        file, _, name = node.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name.split("[", 1)[0] in {f.name for f in tree.body if isinstance(f, ast.FunctionDef)}


NODE = "tests/a.py::test_a"
ONE = Mutant("m", "p", "f", "x", "y", ("a.py::test_a",))


def ended(*outcomes: str) -> list[Case]:
    return [Case("tests/a.py", f"test_a[{n}]", outcome) for n, outcome in enumerate(outcomes)]


@pytest.mark.parametrize(
    ("status", "before", "after", "killed"),
    [
        (1, ["passed", "passed"], ["passed", "failed"], True),
        (1, ["passed"], ["failed"], True),
        (0, ["passed"], ["passed"], False),
        (1, ["failed"], ["failed"], False),
        (1, [], ["failed"], False),
        (1, ["passed"], ["broken"], False),
        (1, ["passed", "passed"], ["failed", "broken"], False),
        (2, ["passed"], [], False),
        (4, ["passed"], [], False),
        (5, ["passed"], [], False),
        (None, ["passed"], [], False),
    ],
)
def test_only_an_assertion_kills(
    status: int | None, before: list[str], after: list[str], killed: bool
) -> None:
    verdict = judge(ONE, ended(*before), Run(status, tuple(ended(*after)), 1.0, ""))
    assert verdict.killed is killed
    assert bool(verdict.why) is not killed
