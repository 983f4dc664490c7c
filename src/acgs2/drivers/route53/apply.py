"""Makes a hosted zone say what a plan says.

Health checks come before records that name them, and go when the records that did are gone everywhere. What
is there is read, compared and changed until nothing differs: a change whose answer was lost is looked for,
not sent again. One applier at a time: whoever leads.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from acgs2.drivers.aws import Caller, Patience, Unsure, part
from acgs2.drivers.dns import Batch, Desired, RecordSet, batches, check_changes
from acgs2.drivers.route53 import checks
from acgs2.drivers.route53.report import Call, Report
from acgs2.drivers.route53.wire import record_to
from acgs2.drivers.route53.zone import Seen, check_hosted_zone, read, refuse_taken
from acgs2.errors import AcgsError, InputError, RefusedError, UnavailableError
from acgs2.plan.may import May, anybody

__all__ = ["apply"]

_ZONE_ID = re.compile(r"(/hostedzone/)?([A-Z0-9]{1,32})")
_ROUNDS = 8
#: Refusals that are about one batch and say nothing about the others.
_OF_BATCH = ("InvalidChangeBatch", "InvalidInput", "NoSuchHealthCheck")


def apply(
    client: Any,
    hosted_zone_id: str,
    desired: Desired,
    *,
    patience: Patience | None = None,
    dry_run: bool = False,
    rng: Random | None = None,
    pause: Callable[[float], None] = time.sleep,
    may: May = anybody,
) -> Report:
    """Make a hosted zone say what a plan says; only names of ours are touched.

    Args:
        client: as `connect` returns it.
        hosted_zone_id: of the topology's domain, or one above it.
        desired: what it shall say.
        patience: how long is waited for what.
        dry_run: only say which calls would be made.
        rng: for the pauses between tries.
        pause: how is waited.
        may: asked before every call.

    Raises:
        RefusedError: Route 53 refuses, a name is taken, or the hosted zone is not the right one.
        UnavailableError: no good answer in time; what was done and what is left is in the error's context.
        InputError: this is no id of a hosted zone, or the client is of another partition.
    """
    found = _ZONE_ID.fullmatch(hosted_zone_id)
    if found is None:
        raise InputError(
            "zone-id-invalid", f"{hosted_zone_id} is no id of a hosted zone.", hint="See Route 53."
        )
    partition = client.meta.partition
    if partition != desired.partition:
        raise InputError(
            "partition-differs", f"The plan is for {desired.partition}, the client's is {partition}."
        )
    patience = patience or Patience()
    caller = Caller(client, patience, rng or Random(), pause, may=may)
    work = _Work(caller, found[2], desired, patience, dry_run, pause)
    try:
        return work.run()
    except AcgsError as error:
        context = {
            **error.context,
            "applied": [line for call in work.calls for line in (call.does, *call.lines)],
            "not_applied": work.left,
            "tries": [f"{t.operation}: {t.reason}" for t in caller.tries],
        }
        raise type(error)(error.reference, error.message, hint=error.hint, **context) from error


class _Work:
    """One apply: what it has done so far and what is left."""

    def __init__(
        self,
        caller: Caller,
        hosted_zone_id: str,
        desired: Desired,
        patience: Patience,
        dry_run: bool,
        pause: Callable[[float], None],
    ) -> None:
        self._caller, self._zone_id, self._desired = caller, hosted_zone_id, desired
        self._patience, self._dry_run, self._pause = patience, dry_run, pause
        self._changes: list[str] = []
        self._refused: dict[str, tuple[Batch, RefusedError]] = {}
        self._lost: list[tuple[Batch, Call]] = []
        self._settled = True
        self.calls: list[Call] = []
        self.left: list[str] = []

    def run(self) -> Report:
        """Do all of it."""
        caller, desired = self._caller, self._desired
        check_hosted_zone(caller, self._zone_id, desired.domain)
        seen = read(caller, self._zone_id, desired)
        refuse_taken(seen, desired)
        there, wanted = map(_unchecked, seen.ours.values()), map(_unchecked, desired.records)
        self.left = _lines(batches(there, wanted, desired.domain))
        ids, superfluous = self._ready_checks()
        self._converge([replace(r, health=ids[r.health]) if r.health else r for r in desired.records])
        if self._refused:
            raise next(iter(self._refused.values()))[1]
        self._settle()
        caller.renew()
        if self._settled:
            for id_ in superfluous:
                checks.drop(self._write, id_)
        return Report(tuple(self.calls), tuple(caller.tries), desired.gaps, self._settled, self._dry_run)

    def _ready_checks(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """Make health checks as they shall be; return ids by region, and those that are to go afterwards."""
        desired = self._desired
        changes = check_changes(checks.read_checks(self._caller, desired), desired.checks)
        ids = dict(changes.kept)
        for check in changes.create:
            ids[check.region] = checks.create(self._write, check, desired.topology)
        for id_, check in changes.update:
            checks.update(self._write, id_, check)
        return ids, changes.drop

    def _converge(self, wanted: list[RecordSet]) -> None:
        """Change batch by batch and look again, until nothing differs but what is refused for good."""
        rounds = 0
        while rounds < _ROUNDS:
            seen = read(self._caller, self._zone_id, self._desired)
            left = batches(seen.ours.values(), wanted, self._desired.domain)
            self.left = _lines(left)
            self._find_lost(left)
            self._refused = {label: pair for label, pair in self._refused.items() if pair[0] in left}
            todo = [batch for batch in left if batch.label not in self._refused]
            if not todo:
                return
            # Lost answers are bounded by the deadline.
            rounds += self._change_all(todo, seen)
            if self._dry_run:
                self.left = []
                return
        raise UnavailableError(
            "contended",
            "The hosted zone does not become what the plan says.",
            hint="See who else changes it; only the leader may.",
        )

    def _find_lost(self, left: list[Batch]) -> None:
        """Note which changes without an answer were carried out after all; their ids are not known."""
        done = [call for batch, call in self._lost if batch not in left]
        self._lost = []
        self.calls += done
        self._settled = self._settled and not done

    def _change_all(self, todo: list[Batch], seen: Seen) -> bool:
        """Change batches in order; a refusal holds up those of the same zone, a lost answer all.

        Returns:
            Whether every batch had an answer.
        """
        held_up: set[str] = set()
        for batch in todo:
            if batch.label in held_up:
                continue
            try:
                self._change(batch, seen)
            except Unsure:
                return False
            except RefusedError as error:
                if error.context.get("code") not in _OF_BATCH:
                    raise
                # Tried again only if what it is made from turns out to have changed.
                self._refused[batch.label] = batch, error
                held_up.add(batch.label)
        return True

    def _change(self, batch: Batch, seen: Seen) -> None:
        """Carry a batch out.

        Raises:
            Unsure: whether it was carried out is not known.
        """
        changes = [
            {
                "Action": change.action,
                "ResourceRecordSet": seen.raw[change.record.key]
                if change.action == "DELETE"
                else record_to(change.record, self._zone_id),
            }
            for change in batch.changes
        ]
        comment = f"acgs2 {self._desired.topology} {batch.label}"
        sent = {"HostedZoneId": self._zone_id, "ChangeBatch": {"Comment": comment, "Changes": changes}}
        lines = tuple(str(change) for change in batch.changes)
        call = Call("change_resource_record_sets", f"zone {batch.label}: {len(lines)} changes", sent, lines)
        if self._dry_run:
            self.calls.append(call)
            return
        try:
            answer = self._caller.call(call.operation, repeatable=False, **sent)
        except Unsure:
            self._lost.append((batch, replace(call, does=f"{call.does}; its answer was lost")))
            raise
        self._changes.append(str(part(answer, "ChangeInfo")["Id"]))
        self.calls.append(call)
        self.left = [line for line in self.left if line not in lines]

    def _settle(self) -> None:
        """Wait until Route 53 has every change on all its servers.

        Raises:
            UnavailableError: it had not in time.
        """
        self._caller.renew()
        deadline_s = time.monotonic() + self._patience.settle_s
        pending = self._changes
        while pending := [change for change in pending if not self._in_sync(change)]:
            if time.monotonic() + self._patience.poll_s > deadline_s:
                raise UnavailableError(
                    "not-in-sync",
                    f"Not all servers of Route 53 had everything after {self._patience.settle_s:g} s.",
                    hint="The changes were taken; apply again later to finish.",
                    pending=pending,
                )
            self._pause(self._patience.poll_s)

    def _in_sync(self, change: str) -> bool:
        return part(self._caller.call("get_change", Id=change), "ChangeInfo")["Status"] == "INSYNC"

    def _write(self, operation: str, does: str, **sent: Any) -> dict[str, Any]:
        """Make a call about health checks that changes something, or only note it in a dry run."""
        pretended = {"HealthCheck": {"Id": f"<id of the check made by call {len(self.calls) + 1}>"}}
        answer = pretended if self._dry_run else self._caller.call(operation, **sent)
        self.calls.append(Call(operation, does, sent))
        return answer


def _unchecked(record: RecordSet) -> RecordSet:
    return replace(record, health="")


def _lines(of: list[Batch]) -> list[str]:
    return [str(change) for batch in of for change in batch.changes]
