"""Whether messages that were acknowledged reached their receiver, and how often."""

from __future__ import annotations

from collections.abc import Iterator

from acgs2.drill.checks.base import Broken, Case
from acgs2.drill.history import Operation

__all__ = ["delivered", "shown_once"]


def delivered(case: Case) -> Iterator[Broken]:
    """Find messages that were acknowledged and that nobody received, where anybody listened at all."""
    received = _received(case)
    for (entity, key), ops in case.by_record.items():
        sent = [op for op in ops if op.ok and op.kind == "append"]
        if entity == "message" and sent and received and key not in received and not case.excused(sent[0]):
            yield Broken("delivered", f"message {key}, acknowledged by {sent[0].region}, was not delivered")


def shown_once(case: Case) -> Iterator[Broken]:
    """Find messages that a client was shown more than once, and such as nobody sent."""
    asked = {op.key for op in case.history.operations if op.kind == "append" and op.entity == "message"}
    for key, ops in _received(case).items():
        if len(ops) > 1:
            yield Broken("shown-once", f"message {key} was shown {len(ops)} times")
        if key not in asked:
            yield Broken("shown-once", f"message {key} was shown, and nobody sent it")


def _received(case: Case) -> dict[str, list[Operation]]:
    found: dict[str, list[Operation]] = {}
    for op in case.history.operations:
        if op.kind == "receive" and op.ok:
            found.setdefault(op.key, []).append(op)
    return found
