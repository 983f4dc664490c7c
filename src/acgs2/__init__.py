"""ACGS-2: a governed agent bus over regional PostgreSQL, with residency enforced by the database."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acgs2.client import (
        Agent,
        AgentProgram,
        AuditEvent,
        Client,
        Config,
        Deliberation,
        Inbox,
        InboxMessage,
        Increment,
        Message,
        Receipt,
        SetChange,
        SyncClient,
        Tenant,
        User,
    )

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentProgram",
    "AuditEvent",
    "Client",
    "Config",
    "Deliberation",
    "Inbox",
    "InboxMessage",
    "Increment",
    "Message",
    "Receipt",
    "SetChange",
    "SyncClient",
    "Tenant",
    "User",
]


def __getattr__(name: str) -> Any:
    """Return what the SDK exports; imported when asked for, so that `acgs2 --help` answers at once."""
    if name in __all__:
        return getattr(import_module("acgs2.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
