"""What differs between two versions of policies: which policies, and which verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from acgs2.policy.bundle import Bundle
from acgs2.policy.cases import Case, Suite
from acgs2.policy.judge import Judge
from acgs2.policy.verdict import Verdict

__all__ = ["Changed", "Difference", "compare", "verdicts"]


class Difference(NamedTuple):
    """Ids of policies that one version has and the other has not, or has otherwise."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


class Changed(NamedTuple):
    """A case on which the two versions decide differently."""

    suite: Suite
    case: Case
    old: Verdict
    new: Verdict


def compare(old: Bundle, new: Bundle) -> Difference:
    """Return what differs; comments and line breaks make no difference, conditions and annotations do."""
    before, after = _by_id(old), _by_id(new)
    return Difference(
        tuple(id for id in after if id not in before),
        tuple(id for id in before if id not in after),
        tuple(id for id in after if id in before and before[id] != after[id]),
    )


def verdicts(
    suites: Iterable[Suite], old: Callable[[Suite], Judge], new: Callable[[Suite], Judge]
) -> tuple[Changed, ...]:
    """Return the cases whose decision or deciding policies change between two judges of each suite."""
    found = []
    for suite in suites:
        before, after = old(suite), new(suite)
        for case in suite.document.cases:
            question = suite.question(case)
            a, b = before.judge(question), after.judge(question)
            if (a.decision, a.policies, a.holds) != (b.decision, b.policies, b.holds):
                found.append(Changed(suite, case, a, b))
    return tuple(found)


def _by_id(bundle: Bundle) -> dict[str, object]:
    return {
        policy.id: (replace(bundle.parsed[name], id=""), policy.hold)
        for name, policy in bundle.by_name.items()
    }
