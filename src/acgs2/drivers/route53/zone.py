"""What a hosted zone says: record sets of ours, as values and as they are, and what stands in their way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acgs2.drivers.aws import Caller, part
from acgs2.drivers.dns import Desired, RecordSet
from acgs2.drivers.route53.wire import claimed, is_ours, record_of
from acgs2.errors import RefusedError, UnavailableError

__all__ = ["Seen", "check_hosted_zone", "read", "refuse_taken"]

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """Record sets at our names: ours, each also as Route 53 gave it, and the (name, type) of others'."""

    ours: Mapping[Key, RecordSet]
    raw: Mapping[Key, Mapping[str, Any]]
    foreign: frozenset[tuple[str, str]]


def check_hosted_zone(caller: Caller, hosted_zone_id: str, domain: str) -> None:
    """Make sure that a hosted zone is there and has the names of a domain.

    Raises:
        RefusedError: it is not there, or it is another domain's.
    """
    answer = caller.call("get_hosted_zone", Id=hosted_zone_id)
    name = str(part(answer, "HostedZone")["Name"]).lower().rstrip(".")
    if f"api.{domain}" != name and not f"api.{domain}".endswith(f".{name}"):
        raise RefusedError(
            "hosted-zone-elsewhere",
            f"The hosted zone {hosted_zone_id} is that of {name}; api.{domain} is not in it.",
            hint="Name the hosted zone of the topology's domain.",
        )


def read(caller: Caller, hosted_zone_id: str, desired: Desired) -> Seen:
    """Read `api.<domain>` and everything below it.

    Route 53 lists by labels from the right, each name with a dot at the end, so that they are in one row.
    """
    top = f"api.{desired.domain}"
    prefix = _order(top)
    given: list[Mapping[str, Any]] = []
    start: dict[str, Any] = {"StartRecordName": top}
    while True:
        answer = caller.call("list_resource_record_sets", HostedZoneId=hosted_zone_id, **start)
        page = part(answer, "ResourceRecordSets")
        given += page
        over = page and _order(page[-1]["Name"]) > prefix and not _order(page[-1]["Name"]).startswith(prefix)
        if over or not answer.get("IsTruncated"):
            break
        follows = {
            "StartRecordName": answer.get("NextRecordName"),
            "StartRecordType": answer.get("NextRecordType"),
            "StartRecordIdentifier": answer.get("NextRecordIdentifier"),
        }
        if (follows := {k: v for k, v in follows.items() if v}) == start:
            raise UnavailableError("route53-strange", "Route 53 gives the same page again and again.")
        start = follows
    return _seen(given, hosted_zone_id, desired)


def _seen(given: Sequence[Mapping[str, Any]], hosted_zone_id: str, desired: Desired) -> Seen:
    """Tell ours from others': names of the topology's zones, and of zones that it has no more."""
    labels = {*desired.labels, *(claimed(one, desired.domain) for one in given)} - {None}
    ours: dict[Key, RecordSet] = {}
    raw: dict[Key, Mapping[str, Any]] = {}
    foreign: set[tuple[str, str]] = set()
    for one in given:
        if is_ours(one, desired.domain, labels):
            record = record_of(one, hosted_zone_id)
            ours[record.key], raw[record.key] = record, one
        else:
            foreign.add((str(one["Name"]).lower().rstrip("."), one["Type"]))
    return Seen(ours, raw, frozenset(foreign))


def refuse_taken(seen: Seen, desired: Desired) -> None:
    """Refuse where somebody else's records stand at a name that a plan needs.

    Raises:
        RefusedError: a name is taken: by the same type, or as a CNAME, which stands alone.
    """
    kinds = {(r.name, r.type) for r in desired.records}
    taken = {
        f"{name} {theirs}"
        for name, kind in kinds
        for other, theirs in seen.foreign
        if name == other and (theirs == kind or "CNAME" in (theirs, kind))
    }
    if taken:
        raise RefusedError(
            "name-taken",
            f"Records of somebody else stand at our names: {', '.join(sorted(taken))}.",
            hint="Remove them, or give load balancers, so that no CNAME is needed.",
            taken=sorted(taken),
        )


def _order(name: str) -> str:
    return ".".join(reversed(name.lower().rstrip(".").split("."))) + "."
