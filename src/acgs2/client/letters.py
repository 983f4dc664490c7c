"""What the bus shows: receipts, messages, and held messages with what was said about them.

Fields that a newer server adds are passed over.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from acgs2.client.models import Json

__all__ = ["Claimed", "Deliberation", "Given", "Held", "Letter", "Message", "Receipt", "Said", "Settled"]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Who must approve a held message, how many of them, and until when."""

    deadline: datetime
    group: str | None = None
    approvals: int | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """That a message was accepted: it is durable in the regions of `durable_in`.

    With the decision `deliberate` it is held, and delivered only when people have approved it.
    """

    message_id: UUID
    conversation_id: UUID
    decision: Literal["allow", "deliberate"]
    impact: float
    basis: dict[str, Any]
    zone: str
    accepted_at: datetime
    accepted_in: str
    residency: tuple[str, ...] = ()
    durable_in: tuple[str, ...] = ()
    deliberation: Held | None = None


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver is shown of a message."""

    message_id: UUID
    conversation_id: UUID
    tenant_id: UUID
    from_agent: UUID
    message_type: str
    zone: str
    to_agent: UUID | None = None
    to_tenant_id: UUID | None = None
    topic: str | None = None
    priority: int = 1
    content: str | None = None
    payload: Any = None
    metadata: Any = None
    constitutional_hash: str = ""
    expires_at: datetime | None = None
    accepted_at: datetime | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A stored message, with the verdict under which it was accepted; `impact` is in thousandths."""

    id: UUID
    zone: str
    tenant_id: UUID
    conversation_id: UUID
    from_agent: UUID
    message_type: str
    decision: str
    residency: tuple[str, ...]
    updated_at: datetime
    updated_in: str
    to_tenant_id: UUID | None = None
    to_agent: UUID | None = None
    topic: str | None = None
    priority: int | None = None
    content: str | None = None
    payload: Json | None = None
    metadata: Json | None = None
    constitutional_hash: str = ""
    expires_at: datetime | None = None
    impact: int | None = None
    basis: Json | None = None
    digest: str = ""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What one approver said, and whether it counts: not once the approver has left the group."""

    approver: str
    decision: Literal["approve", "deny"]
    reason: str
    at: datetime
    counts: bool = True


class Deliberation(msgspec.Struct, frozen=True, kw_only=True):
    """A held message: what it says, why it is held, and how it stands.

    `state` is open, approved, denied, expired or halted; `missing` says how many approvals of which group
    are still needed, and `wanting` which groups have too few people left to give them.
    """

    message_id: UUID
    zone: str
    tenant_id: UUID
    from_agent: UUID
    message_type: str
    state: str
    held_since: datetime
    deadline: datetime
    to_agent: UUID | None = None
    topic: str | None = None
    priority: int = 1
    content: str | None = None
    payload: Any = None
    impact: float = 0.0
    reasons: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    factors: Any = None
    holds: Any = None
    missing: dict[str, int] = {}
    wanting: dict[str, int] = {}
    approvals: tuple[Said, ...] = ()
    decided_in: str | None = None

    @property
    def open(self) -> bool:
        """Return whether it still waits for people."""
        return self.state == "open"

    @property
    def approved(self) -> bool:
        """Return whether it was let go."""
        return self.state == "approved"


class Claimed(msgspec.Struct, frozen=True):
    """A message that is held for whoever was given this claim."""

    claim: str
    message: Letter
    attempt: int
    deadline: datetime


class Given(msgspec.Struct, frozen=True):
    """What an inbox gave, in the order in which it is to be worked on."""

    generation: int
    claims: tuple[Claimed, ...]


class Outcome(msgspec.Struct, frozen=True):
    """What became of a claim: done, already, returned, or lapsed."""

    claim: str
    outcome: str


class Settled(msgspec.Struct, frozen=True):
    """What became of claims."""

    generation: int
    claims: tuple[Outcome, ...]
