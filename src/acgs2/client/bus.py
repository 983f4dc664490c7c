"""Calls of the bus: sending, what is known of messages, and what people say about held ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Unpack
from uuid import UUID

import anyio
import msgspec
from msgspec import UNSET

from acgs2.client.calls import Call, Caller
from acgs2.client.course import Rule
from acgs2.client.letters import Deliberation, Given, Message, Receipt, Settled
from acgs2.client.requests import ATTEMPTS, Defaults, ReadOptions, encoded, given, id_text, new_id
from acgs2.errors import ConflictError, InputError, OutcomeUnknown, UnavailableError

__all__ = ["CONSTITUTION", "Deliberations", "InboxCalls", "Messages"]

#: The constitution that this release of the client was made for.
CONSTITUTION = "cdd01ef066bc6cf2"
_MESSAGES, _DELIBERATIONS, _INBOXES = "/api/v1/messages", "/api/v1/deliberations", "/api/v1/inboxes"
_HASH = re.compile(r"[\x21-\x7e]{1,16}")
_LOOKS_S = (0.2, 2.0)
_CLOSED = ("deliberation-closed", "deliberation-expired")


class _Waiting(msgspec.Struct):
    items: tuple[Deliberation, ...]


class _Calls:
    """What calls of the bus have in common."""

    def __init__(self, caller: Caller, defaults: Defaults, collection: str) -> None:
        self._caller = caller
        self._defaults = defaults
        self._collection = collection

    async def _ask(
        self,
        method: str,
        route: str,
        rule: Rule,
        shape: Any,
        options: ReadOptions,
        *,
        ids: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        known_by: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
    ) -> Any:
        """Ask and return the result.

        Args:
            method: of HTTP.
            route: what follows the collection, ids in braces.
            rule: where it may be repeated.
            shape: of the result.
            options: of the caller.
            ids: what stands in the braces.
            body: what is sent, made into bytes once for all attempts.
            params: of the query.
            known_by: see Call.
            wait_s: how long the server may take its time.
        """
        held = self._defaults.with_options(options)
        template = self._collection + route
        call = Call(
            method=method,
            route=template,
            path=template.format_map(ids or {}),
            collection=self._collection,
            rule=rule,
            shape=shape,
            deadline_s=self._caller.clock() + held.timeout_s + wait_s,
            attempt_s=held.timeout_s / ATTEMPTS + wait_s,
            zone=held.zone,
            region=held.region,
            params=params or {},
            body=None if body is None else encoded(body),
            known_by=known_by or {},
        )
        return (await self._caller.send(call)).value


class Messages(_Calls):
    """What agents say to each other, and what became of it."""

    def __init__(self, caller: Caller, defaults: Defaults, constitution: str) -> None:
        super().__init__(caller, defaults, _MESSAGES)
        if not isinstance(constitution, str) or not _HASH.fullmatch(constitution):
            raise InputError(
                "constitution-invalid",
                "This is no constitutional hash.",
                hint=f"Leave it out, or give the one in force, such as {CONSTITUTION}.",
            )
        self._constitution = constitution

    async def send(
        self,
        *,
        from_agent: UUID | str,
        message_type: str,
        to_agent: UUID | str | None = None,
        topic: str | None = None,
        content: str = "",
        payload: Mapping[str, Any] | None = None,
        priority: Literal[0, 1, 2, 3] = 1,
        conversation_id: UUID | str | None = None,
        tenant_id: UUID | str | None = None,
        to_tenant_id: UUID | str | None = None,
        expires_at: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        message_id: UUID | str | None = None,
        **options: Unpack[ReadOptions],
    ) -> Receipt:
        """Send a message to an agent or a topic; the receipt says whether it is delivered or held first.

        Its id makes it safe to repeat anywhere: with the same id it is accepted once.

        Args:
            from_agent: who says it.
            message_type: what kind of message it is; the receiver chooses by it what to do.
            to_agent: who is to hear it; that, or a topic.
            topic: all who subscribed to it in the sender's tenant hear it.
            content: text.
            payload: a document.
            priority: 3 is the most urgent.
            conversation_id: what it belongs to; its own id if none is given, for it begins one.
            tenant_id: of the sender; the token's if none is given.
            to_tenant_id: of the receiver, if it is another.
            expires_at: after that it is not delivered any more.
            metadata: short texts for programs on the way.
            message_id: a UUIDv7 of now; a fresh one if none is given. Keep it before the call, and
                your program can repeat it after a crash.
            options: see ReadOptions.

        Raises:
            ForbiddenError: refused, `denied-by-policy` with the policies that decided in `context["basis"]`;
                or somebody is halted (`halted`), or may not speak.
            ConflictError: another constitution is in force (`constitutional-hash-mismatch`), or the id was
                used for another message (`message-id-reused`).
            OutcomeUnknown: it may have been accepted; `context["message_id"]` repeats it.
        """
        tenant = tenant_id if tenant_id is not None else (await self._caller.claims()).tenant
        if tenant is None:
            raise InputError(
                "tenant-missing", "Nobody says of which tenant the sender is.", hint="Give tenant_id."
            )
        known = new_id(self._caller) if message_id is None else message_id
        fields = {
            "message_id": id_text(known),
            "conversation_id": id_text(known if conversation_id is None else conversation_id),
            "tenant_id": id_text(tenant),
            "from_agent": id_text(from_agent),
            "to_agent": UNSET if to_agent is None else id_text(to_agent),
            "topic": UNSET if topic is None else topic,
            "to_tenant_id": UNSET if to_tenant_id is None else id_text(to_tenant_id),
            "message_type": message_type,
            "priority": priority,
            "content": content,
            "payload": payload or {},
            "metadata": metadata or {},
            "constitutional_hash": self._constitution,
            "expires_at": UNSET if expires_at is None else expires_at,
        }
        return await self._ask(
            "POST",
            "",
            Rule.ANYWHERE,
            Receipt,
            options,
            body=given(fields),
            known_by={"message_id": str(fields["message_id"])},
        )

    async def get(self, id: UUID | str, **options: Unpack[ReadOptions]) -> Message:
        """Return a message as it was accepted.

        Raises:
            NotFoundError: it is not in this region, or not the bearer's.
        """
        return await self._ask("GET", "/{id}", Rule.READ, Message, options, ids={"id": id_text(id)})

    async def trace(self, id: UUID | str, **options: Unpack[ReadOptions]) -> dict[str, Any]:
        """Return what became of a message as the region that answers knows it; docs/api.md has the members.

        Verdict and basis, approvals, where it is and may be, deliveries, and the leaves of the audit log with
        their proofs; where another region knows more, it is named. What the message says `get` returns.

        Raises:
            NotFoundError: it is not in this region, or not the bearer's.
        """
        return await self._ask(
            "GET", "/{id}/trace", Rule.READ, dict[str, Any], options, ids={"id": id_text(id)}
        )


class Deliberations(_Calls):
    """Messages that are held until people have approved them."""

    def __init__(self, caller: Caller, defaults: Defaults) -> None:
        super().__init__(caller, defaults, _DELIBERATIONS)

    async def list(
        self, *, tenant: UUID | str | None = None, limit: int = 50, **options: Unpack[ReadOptions]
    ) -> tuple[Deliberation, ...]:
        """Return what waits and the bearer may see, the first to end first.

        Args:
            tenant: only this tenant's.
            limit: how many at most, 1 to 200.
            options: see ReadOptions.
        """
        params = {"limit": str(limit)} | ({"tenant": id_text(tenant)} if tenant is not None else {})
        return (await self._ask("GET", "", Rule.READ, _Waiting, options, params=params)).items

    async def get(self, message_id: UUID | str, **options: Unpack[ReadOptions]) -> Deliberation:
        """Return a held message, whether it still waits or how it ended.

        Raises:
            NotFoundError: no such message is held, or the bearer was not named for it.
        """
        return await self._ask(
            "GET", "/{id}", Rule.READ, Deliberation, options, ids={"id": id_text(message_id)}
        )

    async def approve(
        self, message_id: UUID | str, *, reason: str = "", **options: Unpack[ReadOptions]
    ) -> Deliberation:
        """Let a held message go, as one of those who were named; returns how it stands then.

        Raises:
            ForbiddenError: the bearer is no approver, was not named, or proposed it.
            ConflictError: it ended already, or the bearer has said otherwise.
        """
        return await self._say(message_id, "approve", reason, options)

    async def deny(
        self, message_id: UUID | str, *, reason: str = "", **options: Unpack[ReadOptions]
    ) -> Deliberation:
        """Refuse a held message; one denial ends it. Raises as `approve` does."""
        return await self._say(message_id, "deny", reason, options)

    async def wait(self, message_id: UUID | str, **options: Unpack[ReadOptions]) -> Deliberation:
        """Return a held message once it is decided, however long its approvers take, or `timeout_s`.

        Raises:
            NotFoundError: no such message is held.
            UnavailableError: it is not decided in `timeout_s` (`not-decided`).
        """
        until_s = self._caller.clock() + options["timeout_s"] if "timeout_s" in options else None
        pause_s, most_s = _LOOKS_S
        while True:
            found = await self.get(message_id, **options)
            if not found.open:
                return found
            if until_s is not None and self._caller.clock() + pause_s > until_s:
                raise UnavailableError(
                    "not-decided",
                    "Nobody has decided yet.",
                    hint="Wait again; it ends by itself at its deadline.",
                    message_id=str(found.message_id),
                    deadline=found.deadline.isoformat(),
                )
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, most_s)

    async def _say(
        self, message_id: UUID | str, decision: str, reason: str, options: ReadOptions
    ) -> Deliberation:
        if self._defaults.with_options(options).zone is None:
            zone = (await self.get(message_id, **options)).zone
            options = ReadOptions(**{**options, "zone": zone})
        id = id_text(message_id)
        try:
            return await self._ask(
                "POST",
                "/{id}/approvals",
                Rule.ANYWHERE,
                Deliberation,
                options,
                ids={"id": id},
                body={"decision": decision, "reason": reason},
                known_by={"message_id": id},
            )
        except OutcomeUnknown as error:
            cause = error.__cause__
            if not isinstance(cause, ConflictError) or cause.reference not in _CLOSED:
                raise
            # It ended: perhaps by our own word, whose answer was lost.
            found = await self.get(message_id, **options)
            me = (await self._caller.claims()).sub
            if any(_name(said.approver) == me and said.decision == decision for said in found.approvals):
                return found
            raise cause from error


def _name(approver: str) -> str:
    """Return an approver's own name: that of a tenant's person begins with the tenant."""
    return approver.rpartition("\n")[2]


class InboxCalls(_Calls):
    """Claims on what came for an agent."""

    def __init__(self, caller: Caller, defaults: Defaults) -> None:
        super().__init__(caller, defaults, _INBOXES)
        self.clock = caller.clock
        self.jitter = caller.jitter

    async def claim(
        self, agent: str, limit: int, wait_s: float, hold_s: float, options: ReadOptions
    ) -> Given:
        """Hold up to so many messages, waiting for the first; those of a lost answer come again."""
        body = {"limit": limit, "wait_s": wait_s, "hold_s": hold_s}
        return await self._ask(
            "POST",
            "/{agent}/claim",
            Rule.ANYWHERE,
            Given,
            options,
            ids={"agent": agent},
            body=body,
            wait_s=wait_s,
        )

    async def acknowledge(self, agent: str, claims: list[str], options: ReadOptions) -> Settled:
        """Say that messages need not be delivered again."""
        return await self._settle("/{agent}/acknowledge", agent, {"claims": claims}, options)

    async def give_back(self, agent: str, claims: list[str], delay_s: float, options: ReadOptions) -> Settled:
        """Let messages be delivered again after a delay."""
        return await self._settle("/{agent}/return", agent, {"claims": claims, "delay_s": delay_s}, options)

    async def _settle(self, route: str, agent: str, body: Mapping[str, Any], options: ReadOptions) -> Settled:
        return await self._ask(
            "POST", route, Rule.ANYWHERE, Settled, options, ids={"agent": agent}, body=body
        )
