"""What an inbox is: deliveries and how they change, as pure values. Twin of the SQL in 15_delivery.sql."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

__all__ = ["Delivery", "Inbox", "State"]


class State(StrEnum):
    """Where a delivery stands; done and dead are its ends, but a dead one may be requeued."""

    READY = "ready"
    CLAIMED = "claimed"
    DONE = "done"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for one agent. Its order of arrival is `seq`; `claim` is the last that was made of it."""

    message: Hashable
    conversation: Hashable
    priority: int
    seq: int
    expires_s: float = float("inf")
    sender: Hashable = None
    state: State = State.READY
    claim: int = 0
    generation: int = 0
    held_until_s: float = float("-inf")
    not_before_s: float = float("-inf")
    attempts: int = 0
    reason: str = ""

    @property
    def open(self) -> bool:
        """Return whether it is still to be delivered."""
        return self.state in (State.READY, State.CLAIMED)

    def held(self, generation: int, now_s: float) -> bool:
        """Return whether somebody holds it; a claim of another generation holds nothing."""
        return self.state is State.CLAIMED and self.generation == generation and self.held_until_s > now_s

    def why_dead(self, generation: int, now_s: float, max_attempts: int) -> str:
        """Return why it is to be given up, empty if it is not."""
        if not self.open or self.held(generation, now_s):
            return ""
        if self.expires_s <= now_s:
            return "expired"
        return "attempts" if self.attempts >= max_attempts else ""


@dataclass(frozen=True, slots=True)
class Inbox:
    """The inbox of one agent, in the order of arrival. Every change returns another one."""

    deliveries: tuple[Delivery, ...] = ()
    generation: int = 1
    max_attempts: int = 5
    counted: int = 0
    halted: frozenset[Hashable] = frozenset()

    def find(self, message: Hashable) -> Delivery | None:
        """Return the delivery of a message."""
        return next((d for d in self.deliveries if d.message == message), None)

    def halting(self, *senders: Hashable) -> Inbox:
        """Return it while these senders are halted: what they sent waits, and what came behind it."""
        return replace(self, halted=frozenset(senders))

    def arrive(
        self,
        message: Hashable,
        conversation: Hashable,
        priority: int,
        expires_s: float,
        sender: Hashable = None,
    ) -> Inbox:
        """Return it with a message that has come; one that is known already changes nothing."""
        if self.find(message) is not None:
            return self
        made = Delivery(message, conversation, priority, self.counted, expires_s, sender)
        return replace(self, deliveries=(*self.deliveries, made), counted=self.counted + 1)

    def claim(self, now_s: float, most: int, hold_s: float) -> tuple[Inbox, tuple[Delivery, ...]]:
        """Return it with up to so many deliveries claimed, and these.

        The conversation with the most urgent message comes first, then the one with the earlier; of each its
        first, while no other of it is held.
        """
        inbox, given = self, []
        for conversation in self._by_urgency():
            inbox, claimed = inbox._claim_in(conversation, now_s, hold_s)
            given += [claimed] if claimed is not None else []
            if len(given) == most:
                break
        return inbox, tuple(given)

    def _by_urgency(self) -> Iterator[Hashable]:
        waiting = sorted((d for d in self.deliveries if d.open), key=lambda d: (-d.priority, d.seq))
        yield from dict.fromkeys(d.conversation for d in waiting)

    def _claim_in(self, conversation: Hashable, now_s: float, hold_s: float) -> tuple[Inbox, Delivery | None]:
        inbox = self
        for head in (d for d in self.deliveries if d.conversation == conversation and d.open):
            why = head.why_dead(self.generation, now_s, self.max_attempts)
            if why:
                inbox = inbox._put(replace(head, state=State.DEAD, reason=why))
                continue
            talk = (d for d in self.deliveries if d.conversation == conversation)
            if head.not_before_s > now_s or any(d.held(self.generation, now_s) for d in talk):
                return inbox, None
            if head.sender in self.halted:
                return inbox, None
            claimed = replace(
                head,
                state=State.CLAIMED,
                claim=inbox.counted,
                generation=self.generation,
                held_until_s=now_s + hold_s,
                not_before_s=float("-inf"),
                attempts=head.attempts + 1,
            )
            return replace(inbox._put(claimed), counted=inbox.counted + 1), claimed
        return inbox, None

    def acknowledge(self, claimed: Delivery) -> tuple[Inbox, str]:
        """Return it with a claim that is done with, and what became of it: done, already, or lapsed."""
        found = self.find(claimed.message)
        if found is not None and found.state is State.DONE:
            return self, "already"
        if found is None or not self._is_of(found, claimed):
            return self, "lapsed"
        return self._put(replace(found, state=State.DONE)), "done"

    def give_back(self, claimed: Delivery, now_s: float, delay_s: float) -> tuple[Inbox, str]:
        """Return it with a claim given back, and what became of it: returned, or lapsed."""
        found = self.find(claimed.message)
        if found is None or not self._is_of(found, claimed):
            return self, "lapsed"
        later_s = now_s + delay_s if delay_s > 0 else float("-inf")
        return self._put(replace(found, state=State.READY, not_before_s=later_s)), "returned"

    def _is_of(self, found: Delivery, claimed: Delivery) -> bool:
        return (
            found.state is State.CLAIMED
            and found.claim == claimed.claim
            and found.generation == claimed.generation == self.generation
        )

    def requeue(self, now_s: float) -> Inbox:
        """Return it with what is dead and has not expired put to its end, the longest dead first."""
        raised = [d for d in self.deliveries if d.state is State.DEAD and d.expires_s > now_s]
        inbox = replace(self, deliveries=tuple(d for d in self.deliveries if d not in raised))
        for each in raised:
            inbox = inbox.arrive(each.message, each.conversation, each.priority, each.expires_s, each.sender)
        return inbox

    def taken_over(self) -> Inbox:
        """Return it in the next generation: what was held is to be delivered again."""
        return replace(self, generation=self.generation + 1)

    def _put(self, changed: Delivery) -> Inbox:
        rows = tuple(changed if d.message == changed.message else d for d in self.deliveries)
        return replace(self, deliveries=rows)

    def check_invariants(self, now_s: float) -> None:
        """Fail where something is so that must never be."""
        held: set[Hashable] = set()
        for each in self.deliveries:
            assert each.attempts <= self.max_attempts, each
            assert each.state is not State.CLAIMED or each.generation <= self.generation, each
            assert each.state is not State.DEAD or each.reason in ("expired", "attempts"), each
            if each.held(self.generation, now_s):
                assert each.conversation not in held, "two of one conversation are held at a time"
                held.add(each.conversation)
        assert len({d.message for d in self.deliveries}) == len(self.deliveries)
        assert [d.seq for d in self.deliveries] == sorted(d.seq for d in self.deliveries)
