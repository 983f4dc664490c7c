"""Between our values and Route 53's, and boto3 that is not there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acgs2.drivers.dns import Alias, RecordSet, desired, health_checks, level_of, records
from acgs2.drivers.route53.wire import check_to, claimed, held_of, is_ours, record_of, record_to
from acgs2.plan import rights_of
from acgs2.topology import load

LOCAL = load("local")
RIGHTS = rights_of(LOCAL, datetime(2026, 12, 1, tzinfo=UTC))
LABELS = desired(LOCAL, RIGHTS, {}, {}).labels
BALANCERS = {r: Alias(f"{r}.elb.example", "ZELB") for r in LOCAL.stacks()}
every = [r for b in (None, BALANCERS) for r in records(LOCAL, RIGHTS, {}, {"eu-west-1": 10}, balancers=b)]


@given(st.sampled_from(every))
def test_a_record_comes_back_as_it_went_and_is_known_as_ours(record: RecordSet):
    sent = record_to(record, "ZONE")
    shouted = {**sent, "Name": sent["Name"].upper() + "."}
    assert record_of(sent, "ZONE") == record == record_of(shouted, "ZONE")
    assert is_ours(sent, LOCAL.domain, LABELS)
    assert is_ours({**sent, "Name": sent["Name"] + "."}, LOCAL.domain, LABELS)
    place = level_of(record.name, LOCAL.domain)
    assert place is not None
    assert claimed(sent, LOCAL.domain) == (place[0] if record.region else None)
    assert record_of(sent, "OTHER") != record or not record.alias or record.alias.zone_id


@pytest.mark.parametrize(
    "changed",
    [
        {"Name": "api.eu-west-1.acgs2.example."},
        {"Name": "acgs2.example."},
        {"Name": "eu.api.other.example."},
        {"Name": "a.b.eu.api.acgs2.example."},
        {"Name": "grafana.api.acgs2.example."},
        {"Type": "TXT"},
        {"Type": "NS"},
        {"SetIdentifier": "blue"},
        {"SetIdentifier": "us-west-2"},
        {"Region": None},
    ],
)
def test_what_is_not_of_our_making_is_not_ours(changed: dict[str, str | None]):
    sent = record_to(next(r for r in every if r.name == "eu.api.acgs2.example"), "ZONE")
    assert is_ours(sent, LOCAL.domain, LABELS)
    assert not is_ours({k: v for k, v in {**sent, **changed}.items() if v is not None}, LOCAL.domain, LABELS)


def test_a_health_check_comes_back_as_it_went():
    for check in health_checks(LOCAL):
        held = held_of({"Id": "x", "HealthCheckConfig": check_to(check)}, LOCAL.domain)
        assert held is not None
        assert (held.check, held.plain) == (check, True)
        for odd in ({"Inverted": True}, {"Disabled": True}, {"EnableSNI": False}):
            held = held_of({"Id": "x", "HealthCheckConfig": check_to(check) | odd}, LOCAL.domain)
            assert held is not None
            assert not held.plain
        for unlike in ({"Type": "HTTP"}, {"IPAddress": "192.0.2.1"}):
            held = held_of({"Id": "x", "HealthCheckConfig": check_to(check) | unlike}, LOCAL.domain)
            assert held is not None
            assert held.check == replace(check, interval_s=0)  # not to be changed into ours
        elsewhere = check_to(check) | {"FullyQualifiedDomainName": "api.eu-west-1.trial.acgs2.example"}
        assert held_of({"Id": "x", "HealthCheckConfig": elsewhere}, LOCAL.domain) is None


def test_without_boto3_it_says_what_to_install():
    code = (
        "import sys; sys.modules['boto3'] = None; sys.argv = ['acgs2', 'dns', 'apply', '--zone-id', 'Z1']\n"
    )
    code += "from acgs2.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 5
    assert "boto3 is not installed" in done.stderr
    assert "pip install 'acgs2[aws]'" in done.stderr
