"""Asking Cedar: one message put to the policies of all owners whom it concerns, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import cedarpy
import msgspec
from cedarpy import pst

from acgs2.policy.bundle import PLATFORM, Bundle, Policy
from acgs2.policy.question import AgentFacts, TopicFacts
from acgs2.policy.slices import WORTH, Part, Slices
from acgs2.policy.verdict import Decision

__all__ = ["Asked", "Panel", "Request", "Ruling", "ask", "request_of"]

_NAMED = re.compile(r"policy `([0-9]+[.]policy[0-9]+)`")
_UNKNOWN = Policy(owner=PLATFORM, id="unknown", effect="forbid", line=0, text="")
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
    """What policies say: the decision, who made it, what failed, and which owners permit nothing."""

    decision: Decision
    by: tuple[Policy, ...] = ()
    failed: tuple[Policy, ...] = ()
    silent: tuple[Bundle, ...] = ()


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
        "context": _json(context),
    }
    return Request(request, _entities(sender, receiver, asked.metadata), known)


class Panel:
    """The policies of some owners, asked together. What each of them says is kept apart by its name."""

    def __init__(self, bundles: Iterable[Bundle], worth: int = WORTH) -> None:
        """Put the policies of some owners side by side."""
        self.bundles = tuple(bundles)
        parsed: dict[str, pst.Template] = {}
        self.policies: dict[str, Policy] = {}
        for number, bundle in enumerate(self.bundles):
            for name, policy in bundle.by_name.items():
                self.policies[f"{number}.{name}"] = policy
                parsed[f"{number}.{name}"] = bundle.parsed[name]
        holding = frozenset(name for name, policy in self.policies.items() if policy.hold)
        self._slices = Slices(parsed, holding, worth)

    def parts(self, request: Request) -> Iterator[Part]:
        """Yield what must be asked about a message."""
        return self._slices.parts(request.known)


def ask(panels: Iterable[Panel], request: Request) -> Ruling:
    """Return what the policies of all owners say of a message: each owner must permit it, none may forbid it.

    A policy that fails while it is looked at is left out by Cedar; here it denies, since it may have been one
    that forbids.
    """
    permits, forbids, failed = list[Policy](), list[Policy](), list[Policy]()
    held: list[tuple[Panel, Part]] = []
    asked = tuple(panels)
    for panel in asked:
        for part in panel.parts(request):
            allowed, reasons, errors = _evaluate(panel, part.whole, request)
            failed += errors
            (permits if allowed else forbids).extend(reasons)
            if reasons and not allowed:
                held.append((panel, part))
    refusing = [policy for policy in forbids if policy.hold is None]
    if not refusing and not failed:
        for panel, part in held:  # Cedar does not say what permits while something forbids
            allowed, reasons, errors = _evaluate(panel, part.plain, request)
            failed += errors
            permits += reasons if allowed else ()
    if failed:
        return Ruling(Decision.DENY, failed=_ordered(failed))
    if refusing:
        return Ruling(Decision.DENY, _ordered(refusing))
    heard = {policy.owner for policy in permits}
    silent = tuple(bundle for panel in asked for bundle in panel.bundles if bundle.owner not in heard)
    if silent:
        return Ruling(Decision.DENY, silent=silent)
    return (
        Ruling(Decision.DELIBERATE, _ordered(forbids))
        if forbids
        else Ruling(Decision.ALLOW, _ordered(permits))
    )


def _evaluate(
    panel: Panel, policies: cedarpy.PolicySet, request: Request
) -> tuple[bool, list[Policy], list[Policy]]:
    """Return whether it is allowed, what decided, and what failed."""
    result = cedarpy.is_authorized(request.request, policies, request.entities)
    failed = [_failed(panel, error) for error in result.diagnostics.errors]
    if result.decision is cedarpy.Decision.NoDecision and not failed:
        failed = [_UNKNOWN]
    return (
        result.decision is cedarpy.Decision.Allow,
        [panel.policies[name] for name in result.diagnostics.reasons],
        failed,
    )


def _failed(panel: Panel, error: str) -> Policy:
    found = _NAMED.search(error)
    return panel.policies.get(found.group(1), _UNKNOWN) if found else _UNKNOWN


def _ordered(policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """Return policies in a fixed order: the platform's first, then by tenant and line."""
    return tuple(sorted(policies, key=lambda each: (each.owner != PLATFORM, each.owner, each.line, each.id)))


def _uid(receiver: AgentFacts | TopicFacts) -> dict[str, str]:
    if isinstance(receiver, AgentFacts):
        return {"type": "Agent", "id": receiver.id}
    return {"type": "Topic", "id": f"{receiver.tenant}/{receiver.name}"}


def _entities(
    sender: AgentFacts, receiver: AgentFacts | TopicFacts, metadata: tuple[tuple[str, str], ...]
) -> cedarpy.Entities:
    pair = _pair(sender, receiver)
    if not metadata:
        return pair
    return pair.with_added_json_str(
        _json([{"uid": _METADATA, "attrs": {}, "tags": dict(metadata), "parents": []}])
    )


@lru_cache(maxsize=4096)
def _pair(sender: AgentFacts, receiver: AgentFacts | TopicFacts) -> cedarpy.Entities:
    alone = _alone(sender)
    return alone if receiver == sender else alone.with_added_json_str(_json([_entity(receiver)]))


@lru_cache(maxsize=1024)
def _alone(agent: AgentFacts) -> cedarpy.Entities:
    return cedarpy.Entities.from_json_str(_json([_entity(agent)]))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


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
