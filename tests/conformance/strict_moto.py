"""moto's server with rules of Route 53 that moto leaves out: `python -m tests.conformance.strict_moto -p PORT`.

As the API reference has them ("ChangeResourceRecordSets", "CreateHealthCheck"):

- A DELETE names one record set, by name, type and identifier, with the values that it has. moto deletes every
  record set of the hosted zone that has the identifier.
- Record sets of one name and type have one routing policy, and a CNAME stands alone.
- An alias into its own hosted zone has its target there; a health check that is named exists.
- A batch is carried out all or none.
- A caller reference makes one health check, and none once that was deleted.
- A change has an id of its own, and is PENDING before it is INSYNC: here, at the first look.

And what moto has not at all: in `strict_rds.py`.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Any

from moto.core.responses import ActionResult
from moto.route53.exceptions import Route53ClientError
from moto.route53.models import FakeZone, HealthCheck, RecordSet, Route53Backend
from moto.route53.responses import Route53
from moto.server import main
from tests.conformance import strict_rds

__all__: list[str] = []

_POLICIES = ("weight", "region", "failover", "geo_location", "multi_value_answer")
_numbers = itertools.count(1)
_looked_at: set[str] = set()
_create_health_check = Route53Backend.create_health_check
_delete_health_check = Route53Backend.delete_health_check
_change = Route53.change_resource_record_sets
_get_change = Route53.get_change


def change_resource_record_sets(self: Route53Backend, zoneid: str, change_list: list[dict[str, Any]]) -> None:
    """Carry a batch out if everything in it is right."""
    zone: FakeZone = self.get_hosted_zone(zoneid)
    after = {_key(r): r for r in zone.rrsets}
    for change in change_list:
        given = dict(change["ResourceRecordSet"])
        given["Name"] = given["Name"].lower().rstrip(".") + "."
        given["ResourceRecords"] = [v["Value"] for v in given.get("ResourceRecords") or []]
        record = RecordSet(given)
        if not record.name.endswith(zone.name):
            raise _invalid(f"{record.name} is not in {zone.name}")
        if change["Action"] == "DELETE":
            there = after.pop(_key(record), None)
            if there is None or vars(there) != vars(record):
                raise _invalid(f"{_key(record)} is to be deleted, but is not there with these values")
        else:
            after[_key(record)] = record
    _check(self, zone, list(after.values()))
    zone.rrsets = list(after.values())


def _key(record: RecordSet) -> tuple[str, str, str]:
    return record.name, str(record.type), record.set_identifier or ""


def _check(backend: Route53Backend, zone: FakeZone, records: list[RecordSet]) -> None:
    types: defaultdict[str, set[str]] = defaultdict(set)
    policies: defaultdict[tuple[str, str], set[tuple[str, ...]]] = defaultdict(set)
    for record in records:
        types[record.name].add(str(record.type))
        policy = tuple(p for p in _POLICIES if getattr(record, p) is not None)
        policies[record.name, str(record.type)].add(policy)
        if record.health_check_id and record.health_check_id not in backend.health_checks:
            raise Route53ClientError("NoSuchHealthCheck", f"{record.health_check_id} does not exist")
    for key, found in policies.items():
        if len(found) > 1 or any(len(policy) > 1 for policy in found):
            raise _invalid(f"{key} has more than one routing policy: {found}")
    for name, kinds in types.items():
        if "CNAME" in kinds and len(kinds) > 1:
            raise _invalid(f"{name} has a CNAME and something else: {kinds}")
    for record in records:
        alias = record.alias_target
        if alias and alias["HostedZoneId"] == zone.resource_id:
            target = alias["DNSName"].lower().rstrip(".") + "."
            if str(record.type) not in types.get(target, ()):
                raise _invalid(f"{record.name} is an alias of {target}, which has no {record.type}")


def _invalid(why: str) -> Route53ClientError:
    return Route53ClientError("InvalidChangeBatch", why)


def create_health_check(
    self: Route53Backend, caller_reference: str, health_check_args: dict[str, Any]
) -> HealthCheck:
    """Make a health check, or return the one that the same call made."""
    made: HealthCheck = _create_health_check(self, caller_reference, health_check_args)
    same = [
        h for h in self.health_checks.values() if h.caller_reference == caller_reference and h is not made
    ]
    if not same and caller_reference not in _gone(self):
        return made
    del self.health_checks[made.id]
    if same and same[0].health_check_config == made.health_check_config:
        return same[0]
    raise Route53ClientError("HealthCheckAlreadyExists", f"{caller_reference} was used before")


def delete_health_check(self: Route53Backend, health_check_id: str) -> None:
    """Delete a health check that is there, and remember its reference."""
    _gone(self).add(self.get_health_check(health_check_id).caller_reference)
    _delete_health_check(self, health_check_id)


def _gone(backend: Route53Backend) -> set[str]:
    """Return the references of deleted checks; a reset of moto forgets them with everything else."""
    found: set[str] = backend.__dict__.setdefault("gone", set())
    return found


def change(self: Route53) -> ActionResult:
    """Carry a batch out as a change with an id of its own."""
    answer = _change(self)
    answer.result["ChangeInfo"] |= {"Id": f"/change/C{next(_numbers)}", "Status": "PENDING"}
    return answer


def get_change(self: Route53) -> ActionResult:
    """Return a change, still on its way at the first look."""
    answer = _get_change(self)
    info = answer.result["ChangeInfo"]
    if info["Id"] not in _looked_at:
        info["Status"] = "PENDING"
        _looked_at.add(info["Id"])
    return answer


if __name__ == "__main__":
    Route53Backend.change_resource_record_sets = change_resource_record_sets  # type: ignore[method-assign]
    Route53Backend.create_health_check = create_health_check  # type: ignore[method-assign]
    Route53Backend.delete_health_check = delete_health_check  # type: ignore[method-assign]
    Route53.change_resource_record_sets = change  # type: ignore[method-assign]
    Route53.get_change = get_change  # type: ignore[method-assign]
    strict_rds.install()
    main()
