"""The linter finds the guide's mistakes, and none in what comes with the project."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from acgs2.residency import lint, regulations
from acgs2.topology import load, parse

NOW = datetime(2026, 11, 24, tzinfo=UTC)
BASE = """
name: small
domain: acgs2.example
constitution: {{id: x}}
regions:
  eu-west-1: {{country: IE, vpc_cidr: 10.0.0.0/16}}
  us-east-1: {{country: US, vpc_cidr: {cidr}}}
  us-west-2: {{country: US}}
  ca-central-1: {{country: CA, role: witness}}
  cn-north-1: {{country: CN, cloud: aws-cn}}
zones:
  eu: {{regulation: gdpr, regions: [eu-west-1]}}
  cn: {{regulation: pipl, regions: [cn-north-1]}}
transfers:
  - {{zone: {zone}, to: {to}, instrument: {instrument}, entities: [agent] {more}}}
"""


def rules(**values: str) -> set[str]:
    filled = {
        "cidr": "10.1.0.0/16",
        "zone": "eu",
        "to": "us-east-1",
        "instrument": "scc",
        "more": "",
    } | values
    return {f.rule for f in lint(parse(BASE.format(**filled)), NOW) if f.severity == "error"}


@pytest.mark.parametrize("name", ["local", "global"])
def test_what_comes_with_the_project_is_lawful(name: str) -> None:
    assert [f for f in lint(load(name), NOW) if f.severity == "error"] == []


def test_the_guide_is_rejected_for_its_own_mistakes() -> None:
    found = {(f.rule, ".".join(map(str, f.path))) for f in lint(load("guide"), NOW)}
    assert {
        ("outside-jurisdiction", "zones.pipl.regions.0"),
        ("outside-jurisdiction", "zones.gdpr.regions.2"),
        ("localization-not-required", "zones.ccpa.restriction"),
        ("no-second-region", "zones.ccpa"),
        ("no-second-region", "zones.pipl"),
    } <= found


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"instrument": "standard_contract"}, "instrument-not-accepted"),
        ({"instrument": "adequacy"}, "no-adequacy-decision"),
        ({"instrument": "adequacy_dpf"}, "importer-not-certified"),
        ({"more": ", expires: 2026-11-24"}, "transfer-expired"),
        ({"to": "ca-central-1"}, "witness-holds-data"),
        ({"to": "cn-north-1"}, "transfer-across-partitions"),
        ({"cidr": "10.0.128.0/17"}, "overlapping-networks"),
        (
            {"zone": "cn", "instrument": "standard_contract", "more": ", persons_per_year: 1000001"},
            "volume-over-threshold",
        ),
    ],
)
def test_each_rule_fires(values: dict[str, str], rule: str) -> None:
    assert rule in rules(**values)


def test_a_lawful_transfer_has_no_finding() -> None:
    assert rules() == set()


def test_every_fact_of_law_has_a_source_and_a_date() -> None:
    for law in regulations().values():
        assert law.source
        assert law.date <= NOW.date()
        for row in (*law.adequacy.values(), *law.thresholds.values()):
            assert row["source"]
            assert row["date"] <= NOW.date()
