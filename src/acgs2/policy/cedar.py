"""Asking Cedar: one message put to one owner's policies, and what came of it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

import cedarpy
import msgspec

from acgs2.policy.bundle import Bundle, Policy
from acgs2.policy.question import AgentFacts, TopicFacts
from acgs2.policy.verdict import Decision

__all__ = ["Asked", "Request", "Ruling", "ask", "explained", "request_of"]

_NAMED = re.compile(r"policy `(policy[0-9]+)`")
_SEND = {"type": "Action", "id": "send"}
_METADATA = {"type": "Metadata", "id": "message"}


class Asked(NamedTuple):
    """Everything that policies are told of a message, and nothing else: what decides is in here."""

    sender: AgentFacts
    receiver: AgentFacts | TopicFacts
    message_type: str
    priority: int
    impact: int
    zone: str
    #: The entries that some policy asks for.
    metadata: tuple[tuple[str, str], ...] = ()


class Ruling(NamedTuple):
    """What one owner's policies say: the decision, by Cedar's names who made it, and what failed."""

    decision: Decision
    by: tuple[str, ...]
    failed: tuple[str, ...] = ()


class Request(NamedTuple):
    """A message in the form in which Cedar takes it."""

    request: dict[str, Any]
    entities: cedarpy.Entities
    known: dict[str, str]


def request_of(asked: Asked) -> Request:
    """Return a message in the form in which Cedar takes it."""
    sender, receiver = asked.sender, asked.receiver
    principal = {"type": "Agent", "id": sender.id}
    resource = _uid(receiver)
    context = {
        "message_type": asked.message_type,
        "priority": asked.priority,
        "impact": asked.impact,
        "cross_tenant": sender.tenant != receiver.tenant,
        "zone": asked.zone,
        "cross_zone": receiver.zone != asked.zone,
        "metadata": {"__entity": _METADATA},
    }
    known = {
        "principal": f'Agent::"{sender.id}"',
        "resource": f'{resource["type"]}::"{resource["id"]}"',
        "context.message_type": asked.message_type,
        "principal.name": sender.name,
        "resource.name": receiver.name,
        "principal.tenant": f'Tenant::"{sender.tenant}"',
        "resource.tenant": f'Tenant::"{receiver.tenant}"',
        "context.zone": asked.zone,
    }
    request = {
        "principal": principal,
        "action": _SEND,
        "resource": resource,
        "context": msgspec.json.encode(context).decode(),
    }
    return Request(request, _entities(sender, receiver, asked.metadata), known)


def ask(bundle: Bundle, request: Request) -> Ruling:
    """Return what the policies of a bundle say of a message.

    A policy that fails while it is looked at is left out by Cedar; here it denies, since it may have been one
    that forbids.
    """
    permits, forbids, failed = set[str](), set[str](), set[str]()
    overruled: list[cedarpy.PolicySet] = []
    for part in bundle.slices.parts(request.known):
        allowed, reasons, errors = _evaluate(part.whole, request)
        failed |= errors
        (permits if allowed else forbids).update(reasons)
        if reasons and not allowed:
            overruled.append(part.plain)
    if failed:
        return Ruling(Decision.DENY, (), _ordered(failed))
    refusing = {name for name in forbids if bundle.by_name[name].hold is None}
    if refusing:
        return Ruling(Decision.DENY, _ordered(refusing))
    if not forbids:
        return Ruling(Decision.ALLOW if permits else Decision.DENY, _ordered(permits))
    for plain in overruled:  # what these permit was not told while something held it
        allowed, reasons, errors = _evaluate(plain, request)
        failed |= errors
        if allowed:
            permits |= reasons
    if failed:
        return Ruling(Decision.DENY, (), _ordered(failed))
    return Ruling(Decision.DELIBERATE, _ordered(forbids)) if permits else Ruling(Decision.DENY, ())


def _evaluate(policies: cedarpy.PolicySet, request: Request) -> tuple[bool, set[str], set[str]]:
    """Return whether it is allowed, by Cedar's names what decided, and what failed."""
    result = cedarpy.is_authorized(request.request, policies, request.entities)
    errors = result.diagnostics.errors
    failed = {found.group(1) if (found := _NAMED.search(error)) else "" for error in errors}
    if result.decision is cedarpy.Decision.NoDecision and not failed:
        failed = {""}
    return result.decision is cedarpy.Decision.Allow, set(result.diagnostics.reasons), failed


def _ordered(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: int(name.removeprefix("policy") or -1)))


def _uid(receiver: AgentFacts | TopicFacts) -> dict[str, str]:
    if isinstance(receiver, AgentFacts):
        return {"type": "Agent", "id": receiver.id}
    return {"type": "Topic", "id": f"{receiver.tenant}/{receiver.name}"}


@lru_cache(maxsize=4096)
def _pair(sender: AgentFacts, receiver: AgentFacts | TopicFacts) -> cedarpy.Entities:
    tenants = {sender.tenant, receiver.tenant}
    made = [
        {"uid": {"type": "Tenant", "id": tenant}, "attrs": {}, "parents": []} for tenant in sorted(tenants)
    ]
    made.append(_entity(sender))
    if receiver != sender:
        made.append(_entity(receiver))
    return cedarpy.Entities.from_json_str(msgspec.json.encode(made).decode())


def _entities(
    sender: AgentFacts, receiver: AgentFacts | TopicFacts, metadata: tuple[tuple[str, str], ...]
) -> cedarpy.Entities:
    pair = _pair(sender, receiver)
    if not metadata:
        return pair
    made = [{"uid": _METADATA, "attrs": {}, "tags": dict(metadata), "parents": []}]
    return pair.with_added_json_str(msgspec.json.encode(made).decode())


def _entity(facts: AgentFacts | TopicFacts) -> dict[str, Any]:
    tenant = {"type": "Tenant", "id": facts.tenant}
    attributes: dict[str, Any] = {"tenant": {"__entity": tenant}, "zone": facts.zone, "name": facts.name}
    if isinstance(facts, AgentFacts):
        attributes["status"] = facts.status
        attributes["capabilities"] = sorted(facts.capabilities)
        attributes["accepts"] = [
            {"__entity": {"type": "Tenant", "id": each}} for each in sorted(facts.accepts)
        ]
    return {"uid": _uid(facts), "attrs": attributes, "parents": [tenant]}


def explained(policy: Policy, qualified: str) -> str:
    """Return what a policy says, as a sentence."""
    does = f"holds it for {policy.hold.group}" if policy.hold else f"{policy.effect}s it"
    return policy.reason or f"The policy {qualified} {does}."
