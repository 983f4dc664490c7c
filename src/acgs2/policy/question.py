"""What is judged: the facts about one message, as plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["AgentFacts", "Question", "TopicFacts"]


class AgentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What policies may know of an agent. Ids are UUIDs in their canonical form."""

    id: str
    tenant: str
    zone: str
    name: str = ""
    status: str = "active"
    capabilities: frozenset[str] = frozenset()
    #: Other tenants whose agents may send to it.
    accepts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, key: Any, tenant: Any, zone: str, record: Mapping[str, Any]) -> AgentFacts:
        """Return the facts of an agent's record; what is not as declared counts as not there."""
        return cls(
            id=str(key),
            tenant=str(tenant),
            zone=zone,
            name=record.get("name") or "",
            status=record.get("status") or "active",
            capabilities=_words(record.get("capabilities")),
            accepts=_words(record.get("accepts")),
        )


class TopicFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What policies may know of a topic of a tenant."""

    name: str
    tenant: str
    zone: str


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One message: from whom, to whom, and what it says. `zone` is the zone that the message belongs to."""

    sender: AgentFacts
    receiver: AgentFacts | TopicFacts
    message_type: str
    zone: str
    priority: int = 1
    content: str = ""
    payload: Any = None
    metadata: Any = None

    @property
    def crosses_tenants(self) -> bool:
        """Return whether sender and receiver are of different tenants."""
        return self.sender.tenant != self.receiver.tenant

    @property
    def crosses_zones(self) -> bool:
        """Return whether the receiver is in another zone than the message."""
        return self.receiver.zone != self.zone


def _words(value: Any) -> frozenset[str]:
    if not isinstance(value, list | tuple | set | frozenset):
        return frozenset()
    return frozenset(each for each in value if isinstance(each, str))
