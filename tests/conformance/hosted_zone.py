"""A hosted zone of moto's, behind a proxy: how plans are carried out on it, and what it says then."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx
from tests.conformance.route53 import Proxy

from acgs2.drivers.dns import Desired
from acgs2.drivers.route53 import Patience, Report, apply
from acgs2.topology import load

__all__ = ["FOREIGN", "QUICK", "Api", "HostedZone"]

QUICK = Patience(deadline_s=20, base_s=0.01, cap_s=0.05, settle_s=20, poll_s=0.01)
#: What somebody else has in the same hosted zone: names beside ours, and some that look like ours.
FOREIGN: list[dict[str, Any]] = [
    {"Name": f"api.{r}.acgs2.example", "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": "192.0.2.1"}]}
    for r in load("local").stacks()
] + [
    {"Name": name, "Type": "TXT", "TTL": 60, "ResourceRecords": [{"Value": '"theirs"'}]}
    for name in ("acgs2.example", "docs.api.acgs2.example", "api-x.acgs2.example", "a.b.eu.api.acgs2.example")
]
FOREIGN.append(
    {
        "Name": "grafana.api.acgs2.example",
        "Type": "A",
        "SetIdentifier": "eu-west-1",
        "Region": "eu-west-1",
        "TTL": 60,
        "ResourceRecords": [{"Value": "192.0.2.2"}],
    }
)
FOREIGN.append(
    {
        "Name": "mars.api.acgs2.example",
        "Type": "CNAME",
        "SetIdentifier": "eu-west-1",
        "Weight": 1,
        "TTL": 60,
        "ResourceRecords": [{"Value": "mars.example"}],
    }
)


@dataclass(frozen=True)
class Api:
    """moto behind a proxy, the driver's client to the proxy, and one of the test's to moto."""

    proxy: Proxy
    client: Any
    direct: Any
    server: str

    def reset(self) -> None:
        """Forget everything."""
        httpx.post(f"{self.server}/moto-api/reset", trust_env=False).raise_for_status()
        self.proxy.reset()


class HostedZone:
    """A new hosted zone, and what is in it as Route 53 says it."""

    def __init__(self, api: Api, name: str = "acgs2.example") -> None:
        self.proxy, self.client, self.direct = api.proxy, api.client, api.direct
        made = self.direct.create_hosted_zone(Name=name, CallerReference=str(uuid.uuid4()))
        self.id: str = made["HostedZone"]["Id"].removeprefix("/hostedzone/")
        self.proxy.reset()

    def apply(self, wanted: Desired, **more: Any) -> Report:
        given = {"patience": QUICK, "rng": Random(7), **more}
        return apply(self.client, self.id, wanted, **given)

    def change(self, action: str, *records: Mapping[str, Any]) -> None:
        changes = [{"Action": action, "ResourceRecordSet": record} for record in records]
        self.direct.change_resource_record_sets(HostedZoneId=self.id, ChangeBatch={"Changes": changes})

    def all(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        pages = self.direct.get_paginator("list_resource_record_sets").paginate(HostedZoneId=self.id)
        return {
            (one["Name"].rstrip("."), one["Type"], one.get("SetIdentifier", "")): one
            for page in pages
            for one in page["ResourceRecordSets"]
        }

    def checks(self, topology: str = "local") -> dict[str, dict[str, Any]]:
        """Return the health checks of a topology by their id."""
        found = {one["Id"]: one for one in self.direct.list_health_checks()["HealthChecks"]}
        tags = self.tags([*found])
        return {id_: one for id_, one in found.items() if tags[id_].get("acgs2-topology") == topology}

    def tags(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the tags of health checks by their id."""
        found: dict[str, dict[str, str]] = {}
        for begin in range(0, len(ids), 10):
            some = ids[begin : begin + 10]
            answer = self.direct.list_tags_for_resources(ResourceType="healthcheck", ResourceIds=some)
            for one in answer["ResourceTagSets"]:
                found[one["ResourceId"]] = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        return found

    def must_say(self, wanted: Desired, *, settled: bool = True) -> None:
        """Fail unless the hosted zone says what a plan says, and nothing else of ours.

        Health checks that are not needed any more stay until changes are known to have settled.
        """
        there = self.all()
        theirs = {(one["Name"], one["Type"], one.get("SetIdentifier", "")) for one in FOREIGN}
        ours = {k: r for k, r in there.items() if re.search(r"(^|\.)api\.acgs2", k[0]) and k not in theirs}
        tags = self.tags([*self.checks(wanted.topology)])
        regions = {id_: of["Region"] for id_, of in tags.items()}
        assert {of["Name"] for of in tags.values()} == {check.name for check in wanted.checks}
        assert set(regions.values()) == {check.region for check in wanted.checks}
        assert not settled or len(regions) == len(wanted.checks)
        assert ours.keys() == {record.key for record in wanted.records}
        for record in wanted.records:
            found = ours[record.key]
            if record.region:
                assert (found["Region"], found.get("Weight")) == (record.region, None)
                assert found["AliasTarget"]["HostedZoneId"] == self.id
            else:
                assert (found["Weight"], found.get("Region")) == (record.weight, None)
                assert regions[found["HealthCheckId"]] == record.health
            if record.alias:
                assert found["AliasTarget"]["DNSName"].rstrip(".") == record.alias.name
                assert found["AliasTarget"]["EvaluateTargetHealth"] is True
            else:
                assert tuple(v["Value"] for v in found["ResourceRecords"]) == record.values
                assert found["TTL"] == record.ttl_s
