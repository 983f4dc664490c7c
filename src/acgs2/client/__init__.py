"""The SDK: what an agent developer imports, as `from acgs2 import Client`.

It owns typed records and calls, and what a client has to know to repeat, follow and give up safely.
"""

from acgs2.client.client import Client
from acgs2.client.inbox import Inbox, InboxMessage
from acgs2.client.letters import Deliberation, Message, Receipt
from acgs2.client.models import Agent, AuditEvent, Config, Increment, SetChange, Subscription, Tenant, User
from acgs2.client.program import AgentProgram
from acgs2.client.sync import SyncClient

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
    "Subscription",
    "SyncClient",
    "Tenant",
    "User",
]
