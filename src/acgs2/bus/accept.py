"""From a request to a row: who speaks to whom, the verdict on it, and what the audit log keeps of both."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import msgspec

from acgs2.bus.agents import Agents, Known
from acgs2.bus.committer import Row
from acgs2.bus.request import SendRequest, digest_of
from acgs2.errors import NotFoundError
from acgs2.policy import Judge, Question, TopicFacts, Verdict

__all__ = ["Parties", "commitment", "parties", "row_of"]

_ENCODER = msgspec.json.Encoder(order="sorted")
#: Bytes of a salt: a commitment to a short text cannot be guessed without it.
_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Parties:
    """The agents of a message; `receiver` is None where it goes to a topic."""

    sender: Known
    receiver: Known | None


async def parties(request: SendRequest, agents: Agents) -> Parties:
    """Return the agents that a request is about.

    Raises:
        NotFoundError: one of them is not known here, or not of the tenant that it is said to be of.
    """
    sender = await agents.get(request.from_agent)
    if sender is None or sender.tenant_id != request.tenant_id:
        raise _unknown("from_agent")
    if request.to_agent is None:
        return Parties(sender, None)
    receiver = await agents.get(request.to_agent)
    if receiver is None or receiver.tenant_id != (request.to_tenant_id or request.tenant_id):
        raise _unknown("to_agent")
    return Parties(sender, receiver)


def judged(request: SendRequest, zone: str, between: Parties, judge: Judge) -> Verdict:
    """Return the verdict on a request."""
    receiver = between.receiver
    return judge.judge(
        Question(
            zone=zone,
            sender=between.sender.facts,
            receiver=receiver.facts
            if receiver is not None
            else TopicFacts(name=request.topic or "", tenant=str(request.tenant_id), zone=zone),
            message_type=request.message_type,
            priority=request.priority,
            content=request.content,
            payload=request.payload,
            metadata=request.metadata,
        )
    )


def row_of(request: SendRequest, zone: str, proposer: str, between: Parties, verdict: Verdict) -> Row:
    """Return what is stored of a judged request."""
    salt = os.urandom(_SALT_BYTES).hex()
    digest = digest_of(request, zone)
    leaf = {
        "commitment": commitment(salt, digest),
        "constitution": verdict.constitution_digest,
        "decision": verdict.decision,
        "from_agent": request.from_agent,
        "impact": verdict.impact,
        "message_id": request.message_id,
        "policies": verdict.policies,
        "policies_version": {each.owner: each.digest for each in verdict.policies_version},
        "tenant_id": request.tenant_id,
        "to": request.to_agent or request.topic,
        "zone": zone,
    }
    return Row(
        key=request.message_id,
        zone=zone,
        tenant_id=request.tenant_id,
        conversation_id=request.conversation_id,
        from_agent=request.from_agent,
        to_tenant_id=request.to_tenant_id if request.to_tenant_id != request.tenant_id else None,
        to_agent=request.to_agent,
        topic=request.topic,
        message_type=request.message_type,
        priority=request.priority,
        content=request.content,
        payload=request.payload,
        metadata=request.metadata,
        constitutional_hash=request.constitutional_hash,
        expires_at=request.expires_at,
        digest=digest,
        salt=salt,
        proposer=proposer,
        decision=verdict.decision,
        impact=verdict.impact,
        basis=msgspec.Raw(verdict.encoded_basis),
        leaf=_ENCODER.encode(leaf).decode(),
        from_hlc=between.sender.hlc,
        to_hlc=between.receiver.hlc if between.receiver is not None else None,
    )


def commitment(salt: str, digest: str) -> str:
    """Return what the log has of a content: proof for whoever has the salt, and nothing for anybody else."""
    return hashlib.sha256(bytes.fromhex(salt) + bytes.fromhex(digest)).hexdigest()


def _unknown(field: str) -> NotFoundError:
    return NotFoundError(
        "agent-unknown",
        f"There is no such {field} of that tenant here.",
        hint="Register the agent first; one of another tenant is known only where its data may be.",
        field=field,
    )
