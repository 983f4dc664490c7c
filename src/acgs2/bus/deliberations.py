"""Held messages as they are stored, in the words of `policy.deliberation`, and the records that end them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID, uuid5

import msgspec

from acgs2.policy import Approval, Final, Halts, Held, Hold, decide
from acgs2.policy.deliberation import narrowed

__all__ = ["Groups", "approval_key", "approvals_of", "conclusion", "has_said", "held_of", "verdict_key"]

#: Who is in which group now, by the names that holds have.
Groups = Mapping[str, Iterable[str]]

_VERDICT = UUID("3f0c2a57-6f0e-5f3b-9d0a-5a0c58c1f6de")
_APPROVAL = UUID("b1a4a9f0-2c53-5c0e-8a6b-9c7a1ff0f3a7")
_SECOND_US = 1_000_000


def verdict_key(message: UUID) -> UUID:
    """Return the key of a message's final verdict: the same in whichever region it is decided."""
    return uuid5(_VERDICT, str(message))


def approval_key(message: UUID, approver: str) -> UUID:
    """Return the key of what one approver says about a message: one word each."""
    return uuid5(_APPROVAL, f"{message}\n{approver}")


def held_of(row: Mapping[str, Any], groups: Groups | None) -> Held:
    """Return the message of a row of `held` as it waits.

    Neither the agent that it is from may approve it nor the principal that sent it, under any of its names.

    Args:
        row: of the query.
        groups: who is in which group now: who was named and has left approves nothing; None where that is
            not known, which is good for showing only.
    """
    basis = row["basis"]
    proposer = row["proposer"]
    agent = str(row["from_agent"])
    names = {proposer, proposer.partition("\n")[2] or proposer, agent, f"{row['tenant_id']}\n{agent}"}
    held = Held(
        message_id=str(row["key"]),
        proposers=frozenset(names),
        holds=tuple(msgspec.convert(hold, Hold) for hold in basis.get("holds", ())),
        deadline_us=row["hlc"] + int(basis.get("deadline_s", 300)) * _SECOND_US,
    )
    return held if groups is None else narrowed(held, groups)


def approvals_of(row: Mapping[str, Any]) -> tuple[Approval, ...]:
    """Return what was said about the message of a row of `held`."""
    return tuple(msgspec.convert(each, Approval) for each in row["approvals"])


def has_said(row: Mapping[str, Any], approver: str, decision: str) -> bool:
    """Return whether somebody has said just that about the message of a row of `held`.

    A verdict may be here before the words that it rests on; it names them.
    """
    rested = row["verdict"]["approvals"] if row["verdict"] is not None else ()
    said = [*row["approvals"], *(rested or ())]
    return any((each["approver"], each["decision"]) == (approver, decision) for each in said)


def conclusion(row: Mapping[str, Any], groups: Groups, halts: Halts, now_us: int) -> Final | None:
    """Return how the deliberation of a row of `held` ends now, or None while it is open."""
    halt = halts.of(str(row["tenant_id"]), str(row["from_agent"]))
    return decide(held_of(row, groups), approvals_of(row), now_us, halt)
