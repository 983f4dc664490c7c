"""Between our values and Route 53's, and which record sets and health checks are ours."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from acgs2.drivers.dns import Alias, Check, Held, RecordSet, level_of

__all__ = ["check_to", "claimed", "held_of", "is_ours", "record_of", "record_to", "updated"]

_REGION = re.compile(r"[a-z]{2}-[a-z]+-[0-9]")


def claimed(given: Mapping[str, Any], domain: str) -> str | None:
    """Return the label of a record set that only we make: an alias of level two; None for any other."""
    place = level_of(_plain(given["Name"]), domain)
    if place is None or place[1] != 1 or "AliasTarget" not in given:
        return None
    leads_to = f"{given.get('SetIdentifier')}.{place[0]}.api.{domain}"
    return place[0] if _plain(given["AliasTarget"]["DNSName"]) == leads_to else None


def is_ours(given: Mapping[str, Any], domain: str, labels: Collection[str]) -> bool:
    """Tell whether a record set is ours: its name is one of these labels', its routing is as we make it.

    What it leads to does not matter: under a name of ours nothing may lead elsewhere.
    """
    place = level_of(_plain(given["Name"]), domain)
    set_id = given.get("SetIdentifier", "")
    if place is None or given["Type"] not in ("A", "CNAME") or not _REGION.fullmatch(set_id):
        return False
    label, level = place
    if label not in labels:
        return False
    if level == 1:
        return given.get("Region") == set_id
    return "Weight" in given and bool(_REGION.fullmatch(given["Name"].partition(".")[0]))


def record_of(given: Mapping[str, Any], hosted_zone_id: str) -> RecordSet:
    """Return a record set of ours from Route 53's."""
    alias = None
    if target := given.get("AliasTarget"):
        zone_id = target["HostedZoneId"]
        alias = Alias(
            _plain(target["DNSName"]),
            "" if zone_id == hosted_zone_id else zone_id,
            bool(target.get("EvaluateTargetHealth")),
        )
    return RecordSet(
        _plain(given["Name"]),
        given["Type"],
        given["SetIdentifier"],
        region=given.get("Region", ""),
        weight=given.get("Weight"),
        alias=alias,
        values=tuple(_plain(value["Value"]) for value in given.get("ResourceRecords", [])),
        ttl_s=given.get("TTL"),
        health=given.get("HealthCheckId", ""),
    )


def record_to(record: RecordSet, hosted_zone_id: str) -> dict[str, Any]:
    """Return Route 53's form of a record set whose health check is named by its id."""
    made: dict[str, Any] = {"Name": record.name, "Type": record.type, "SetIdentifier": record.set_id}
    if record.region:
        made["Region"] = record.region
    if record.weight is not None:
        made["Weight"] = record.weight
    if record.alias:
        made["AliasTarget"] = {
            "HostedZoneId": record.alias.zone_id or hosted_zone_id,
            "DNSName": record.alias.name,
            "EvaluateTargetHealth": record.alias.evaluate,
        }
    if record.values:
        made |= {"TTL": record.ttl_s, "ResourceRecords": [{"Value": value} for value in record.values]}
    if record.health:
        made["HealthCheckId"] = record.health
    return made


def check_to(check: Check) -> dict[str, Any]:
    """Return Route 53's form of a health check."""
    return {"Type": "HTTPS", "RequestInterval": check.interval_s, "MeasureLatency": False, **updated(check)}


def updated(check: Check) -> dict[str, Any]:
    """Return what of a health check can be changed."""
    return {
        "FullyQualifiedDomainName": check.fqdn,
        "Port": check.port,
        "ResourcePath": check.path,
        "FailureThreshold": check.failures,
        "Inverted": False,
        "Disabled": False,
        "EnableSNI": True,
    }


def held_of(given: Mapping[str, Any], domain: str) -> Held | None:
    """Return a health check that Route 53 has, if it looks at a region of a domain; tags are not in it."""
    config = given["HealthCheckConfig"]
    fqdn = str(config.get("FullyQualifiedDomainName", "")).lower()
    found = re.fullmatch(rf"api\.({_REGION.pattern})\.{re.escape(domain)}", fqdn)
    if found is None:
        return None
    check = Check(
        found[1],
        fqdn,
        int(config.get("Port", 0)),
        str(config.get("ResourcePath", "")),
        int(config.get("FailureThreshold", 0)),
        # A check of another kind cannot be changed into one of ours, as one of another interval cannot.
        0 if config.get("Type") != "HTTPS" or config.get("IPAddress") else int(config["RequestInterval"]),
    )
    odd = config.get("Inverted") or config.get("Disabled") or not config.get("EnableSNI", True)
    return Held(given["Id"], check, plain=not odd)


def _plain(name: str) -> str:
    return name.lower().rstrip(".")
