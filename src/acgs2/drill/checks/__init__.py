"""Judges a run from its history and the final states alone: checks are pure and yield what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from acgs2.drill.checks.base import Broken, Case
from acgs2.drill.checks.fields import compared_and_set, counters, latest, sets
from acgs2.drill.checks.messages import delivered, shown_once
from acgs2.drill.checks.records import agreement, appended, created, durable, erased, unforeseen
from acgs2.drill.checks.rights import acts, misheld, residency
from acgs2.drill.checks.sessions import sessions
from acgs2.drill.history import History
from acgs2.drill.states import Final

__all__ = ["CHECKS", "Broken", "Case", "agreement", "judge", "misheld"]

CHECKS: Mapping[str, Callable[[Case], Iterator[Broken]]] = {
    "agreement": lambda case: agreement(case.final),
    "misheld": lambda case: misheld(case.final),
    "residency": residency,
    "created": created,
    "durable": durable,
    "appended": appended,
    "erased": erased,
    "counters": counters,
    "sets": sets,
    "latest": latest,
    "compared-and-set": compared_and_set,
    "acts": acts,
    "sessions": sessions,
    "delivered": delivered,
    "shown-once": shown_once,
    "unforeseen": unforeseen,
}


def judge(history: History, final: Final) -> list[Broken]:
    """Return every promise that a run did not keep."""
    case = Case(history, final)
    return [found for check in CHECKS.values() for found in check(case)]
