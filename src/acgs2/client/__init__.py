"""The SDK: what an agent developer imports, as `from acgs2 import Client`.

It owns typed records and calls, and what a client has to know to repeat, follow and give up safely.
"""

from acgs2.client.client import Client
from acgs2.client.models import Agent, AuditEvent, Config, Increment, SetChange, Subscription, Tenant, User
from acgs2.client.sync import SyncClient

__all__ = [
    "Agent",
    "AuditEvent",
    "Client",
    "Config",
    "Increment",
    "SetChange",
    "Subscription",
    "SyncClient",
    "Tenant",
    "User",
]
