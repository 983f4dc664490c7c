"""Plans carried out on Route 53 as moto has it: what is there is the plan, whatever happens on the way."""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cluster.conftest import folder, free_port
from tests.conformance.conftest import missing
from tests.conformance.hosted_zone import FOREIGN, QUICK, Api, HostedZone
from tests.conformance.route53 import CHECKS, RECORDS, Proxy, direct, moto
from tests.strategies import routing

from acgs2.cli import main
from acgs2.drivers.dns import Alias, Desired, desired
from acgs2.drivers.route53 import apply, connect
from acgs2.errors import AcgsError, ForbiddenError, InputError, RefusedError, UnavailableError
from acgs2.plan import rights_of
from acgs2.topology import Topology, load

LOCAL, GLOBAL = load("local"), load("global")
NOW = datetime(2026, 12, 1, tzinfo=UTC)
RIGHTS = rights_of(LOCAL, NOW)
BALANCERS = {r: Alias(f"{r}.elb.example", "ZELB") for r in LOCAL.stacks()}


@pytest.fixture(scope="module", autouse=True)
def _credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    if not all(map(find_spec, ("boto3", "moto", "flask"))):
        missing("moto's server is not installed; the extra `test` has it")
    with folder() as path, moto(path / "moto.log") as url, Proxy(url).running() as proxy:
        yield Api(proxy, connect(endpoint_url=proxy.url), direct(url), url)


@pytest.fixture
def zone(api: Api) -> HostedZone:
    api.reset()
    return HostedZone(api)


def plan(weights: Mapping[str, int] | None = None, down: str = "", topology: Topology = LOCAL) -> Desired:
    health = {down: False} if down else {}
    return desired(topology, rights_of(topology, NOW), health, weights or {})


plans = st.builds(
    lambda *asked, balancers: desired(LOCAL, *asked, balancers=balancers),
    routing.rights(LOCAL),
    routing.health(LOCAL),
    routing.weights(LOCAL),
    balancers=st.sampled_from([None, None, BALANCERS]),
)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(wanted=st.lists(plans, min_size=2, max_size=3))
def test_after_every_plan_the_zone_says_it_and_twice_changes_nothing(api: Api, wanted):
    zone = HostedZone(api)
    zone.change("CREATE", *FOREIGN)
    before = zone.all()
    for each in wanted:
        zone.apply(each)
        zone.must_say(each)
        api.proxy.reset()
        again = zone.apply(each)
        assert not again.changed
        assert api.proxy.writes() == []
    assert {k: zone.all().get(k) for k in before} == before  # what others have is as it was


READING, SETTLING, ANYTHING = r"GET .*/rrset", r"GET .*/change/", "."


@pytest.mark.parametrize(
    ("where", "fault"),
    [(RECORDS, fault) for fault in ("503", "500", "throttle", "prior", "before", "after", "garbage")]
    + [(CHECKS, "throttle"), (CHECKS, "after"), (READING, "before"), (SETTLING, "garbage")]
    + [(ANYTHING, "503"), (ANYTHING, "after")],
)
def test_what_fails_is_tried_again_and_reported(zone: HostedZone, where: str, fault: str):
    zone.proxy.fail(where, fault, "ok", fault, fault)
    report = zone.apply(plan())
    zone.must_say(plan())
    assert len(report.tries) == 3
    assert report.settled or fault in ("after", "garbage")
    assert all(one.reason and 0 <= one.pause_s <= 0.05 for one in report.tries)


def test_a_change_whose_answer_was_lost_is_not_sent_again(zone: HostedZone):
    zone.apply(plan())
    zone.proxy.reset()
    zone.proxy.fail(RECORDS, "after", "ok", "after")
    replaced = plan(topology=with_check(interval_s=10))
    report = zone.apply(replaced)
    zone.must_say(replaced, settled=False)
    assert len(zone.checks()) == 8  # the old ones stay while records may still be seen that name them
    assert len(zone.proxy.writes(RECORDS)) == 4  # a zone each, and one for no zone
    assert sum("answer was lost" in call.does for call in report.calls) == 2
    assert not report.settled
    assert len([call for call in report.calls if call.operation == "change_resource_record_sets"]) == 4
    zone.apply(replaced)
    zone.must_say(replaced)


def test_a_health_check_whose_answer_was_lost_is_not_made_twice(zone: HostedZone):
    zone.proxy.fail(CHECKS, "after", "after")
    report = zone.apply(plan())
    assert [one.operation for one in report.tries] == ["create_health_check"] * 2
    assert len(zone.direct.list_health_checks()["HealthChecks"]) == 4
    zone.must_say(plan())


def test_who_gives_up_says_what_was_done_and_what_not(zone: HostedZone):
    zone.proxy.fail(RECORDS, "ok", *["503"] * 1000)
    with pytest.raises(UnavailableError) as caught:
        zone.apply(plan(), patience=replace(QUICK, deadline_s=1.0))
    error = caught.value
    assert error.reference == "route53-away"
    assert any(line.startswith("zone _any") for line in error.context["applied"])
    assert all(" _any" not in line for line in error.context["not_applied"])
    assert any("eu.api.acgs2.example" in line for line in error.context["not_applied"])
    assert len(error.context["tries"]) > 3
    zone.proxy.reset()
    zone.apply(plan())
    zone.must_say(plan())


def test_a_batch_that_is_refused_does_not_hold_the_others_up(zone: HostedZone):
    zone.proxy.fail(RECORDS, "ok", "invalid")
    with pytest.raises(RefusedError, match="InvalidChangeBatch") as caught:
        zone.apply(plan())
    left = {line.split()[1] for line in caught.value.context["not_applied"]}
    there = {name for name, _, _ in zone.all()}
    assert left
    assert not left & there
    assert left | there >= {record.name for record in plan().records}
    zone.apply(plan())
    zone.must_say(plan())


def test_a_batch_that_was_refused_is_made_anew_if_somebody_was_faster(zone: HostedZone):
    zone.apply(plan())
    stale = zone.all()["eu-west-1.sg.api.acgs2.example", "CNAME", "us-east-1"]

    def faster() -> str:
        zone.change("DELETE", stale)
        return "ok"

    zone.proxy.reset()
    zone.proxy.fail(RECORDS, faster)
    zone.apply(plan(down="us-east-1"))
    zone.must_say(plan(down="us-east-1"))
    assert len(zone.proxy.writes(RECORDS)) == 3 + 1


def test_what_somebody_turned_by_hand_is_turned_back(zone: HostedZone):
    zone.apply(plan())
    stray = next(r for k, r in zone.all().items() if k[0] == "eu-west-1.eu.api.acgs2.example")
    unlawful = {**stray, "SetIdentifier": "us-east-1", "Weight": 200}
    unlawful["ResourceRecords"] = [{"Value": "api.us-east-1.acgs2.example"}]
    zone.change("UPSERT", unlawful, {**stray, "Weight": 0, "TTL": 3})
    id_ = next(iter(zone.checks()))
    zone.direct.update_health_check(HealthCheckId=id_, Inverted=True, Disabled=True)
    assert zone.apply(plan()).changed
    zone.must_say(plan())
    assert not zone.checks()[id_]["HealthCheckConfig"]["Inverted"]


def test_a_zone_that_lost_its_regions_is_not_answered_any_more(zone: HostedZone):
    zone.apply(plan())
    stopped = plan(down="ap-southeast-1", topology=LOCAL.model_copy(update={"transfers": ()}))
    assert [gap.zone for gap in stopped.gaps] == ["sg"]
    report = zone.apply(stopped)
    zone.must_say(stopped)
    assert not [name for name, _, _ in zone.all() if "sg.api" in name]
    assert report.gaps == stopped.gaps
    assert report.calls[0].does.startswith("zone ")
    zone.apply(plan())
    without = LOCAL.model_copy(update={"zones": {k: z for k, z in LOCAL.zones.items() if k != "sg"}})
    zone.apply(plan(topology=without))
    zone.must_say(plan(topology=without))


def test_health_checks_follow_the_topology(zone: HostedZone):
    zone.apply(plan())
    first = zone.checks()
    ready = plan(topology=with_check(path="/ready"))
    zone.apply(ready)
    assert zone.checks().keys() == first.keys()  # changed in place
    assert {c["HealthCheckConfig"]["ResourcePath"] for c in zone.checks().values()} == {"/ready"}
    zone.proxy.reset()
    quick = plan(topology=with_check(interval_s=10))
    zone.apply(quick)
    zone.must_say(quick)
    assert not zone.checks().keys() & first.keys()  # replaced: an interval cannot be changed
    order = [request for request, _ in zone.proxy.writes() if "/tags/" not in request]
    kinds = [
        ("create" if re.match(CHECKS, r) else "records" if re.match(RECORDS, r) else "delete") for r in order
    ]
    assert kinds == ["create"] * 4 + ["records"] * 4 + ["delete"] * 4
    zone.apply(plan())  # as the deleted ones were: Route 53 refuses their references for days
    zone.must_say(plan())


def test_other_peoples_health_checks_are_left_alone(zone: HostedZone):
    def make(fqdn: str, topology: str) -> str:
        made = zone.direct.create_health_check(
            CallerReference=str(uuid.uuid4()),
            HealthCheckConfig={"Type": "HTTPS", "FullyQualifiedDomainName": fqdn, "Port": 443},
        )["HealthCheck"]["Id"]
        tags = [{"Key": "acgs2-topology", "Value": topology}]
        zone.direct.change_tags_for_resource(ResourceType="healthcheck", ResourceId=made, AddTags=tags)
        return made

    theirs = {
        make("api.eu-west-1.acgs2.example", "other"),
        make("api.eu-west-1.trial.acgs2.example", "local"),  # another topology of the same name
        make("www.acgs2.example", "local"),
    }
    gone = make("api.eu-west-9.acgs2.example", "local")  # a region that is no more
    zone.apply(plan())
    left = {one["Id"] for one in zone.direct.list_health_checks()["HealthChecks"]}
    assert theirs <= left
    assert gone not in left


def test_a_large_topology_takes_several_pages(zone: HostedZone):
    wanted = plan(topology=GLOBAL)
    zone.apply(wanted)
    assert len(wanted.records) > 300
    zone.must_say(wanted)
    zone.proxy.reset()
    assert not zone.apply(wanted).changed
    assert zone.proxy.writes() == []


# What is refused


def test_a_name_that_somebody_else_has_is_refused_before_anything_changes(zone: HostedZone):
    txt = {"Name": "eu.api.acgs2.example", "Type": "TXT", "TTL": 60, "ResourceRecords": [{"Value": '"x"'}]}
    zone.change("CREATE", txt)
    with pytest.raises(RefusedError, match=r"eu.api.acgs2.example TXT") as caught:
        zone.apply(plan())
    assert caught.value.reference == "name-taken"
    assert caught.value.context["applied"] == []
    assert zone.proxy.writes() == []
    with_balancers = desired(LOCAL, RIGHTS, {}, {}, balancers=BALANCERS)
    zone.apply(with_balancers)  # beside an A record there may be a TXT


def test_a_hosted_zone_that_is_not_there_or_not_the_right_one(zone: HostedZone, api: Api):
    with pytest.raises(RefusedError, match="ZNOWHERE") as caught:
        apply(zone.client, "ZNOWHERE", plan(), patience=QUICK)
    assert caught.value.reference == "hosted-zone-unknown"
    other = HostedZone(api, "other.example")
    with pytest.raises(RefusedError, match=r"other\.example"):
        other.apply(plan())
    below = HostedZone(api, "api.acgs2.example")  # a zone's own name cannot be a CNAME
    with pytest.raises(RefusedError, match="NS"):
        below.apply(plan())
    below.apply(desired(LOCAL, RIGHTS, {}, {}, balancers=BALANCERS))
    for wrong in ("", "../x", "Z" * 40, "z1", "Z1\n"):
        with pytest.raises(InputError):
            apply(zone.client, wrong, plan(), patience=QUICK)
    chinese = desired(GLOBAL, rights_of(GLOBAL, NOW), {}, {}, partition="aws-cn")
    with pytest.raises(InputError, match="aws-cn"):
        zone.apply(chinese)


@pytest.mark.parametrize(
    ("where", "fault", "expected"),
    [
        (ANYTHING, "forbidden", ForbiddenError),
        (ANYTHING, "garbage", UnavailableError),
        (ANYTHING, "portal", UnavailableError),
        (RECORDS, "forbidden", ForbiddenError),
        (RECORDS, "invalid", RefusedError),
        (RECORDS, "portal", UnavailableError),
        (RECORDS, "garbage", UnavailableError),
        (CHECKS, "invalid", RefusedError),
        (CHECKS, "portal", UnavailableError),
        ("/tags", "before", UnavailableError),
        (READING, "portal", UnavailableError),
        (SETTLING, "throttle", UnavailableError),
    ],
)
def test_no_error_of_boto_escapes(zone: HostedZone, where: str, fault: str, expected: type[AcgsError]):
    zone.proxy.fail(where, *[fault] * 1000)
    with pytest.raises(AcgsError) as caught:
        zone.apply(plan(), patience=replace(QUICK, deadline_s=0.3))
    assert isinstance(caught.value, expected)


def test_a_server_that_is_not_there_and_credentials_that_are_not(
    zone: HostedZone, monkeypatch: pytest.MonkeyPatch, tmp_path
):
    nobody = connect(endpoint_url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnavailableError, match="Could not connect"):
        apply(nobody, "Z1", plan(), patience=replace(QUICK, deadline_s=0.2))
    with pytest.raises(InputError):
        connect(endpoint_url="ftp://example")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(ForbiddenError, match="credentials"):
        apply(connect(endpoint_url=zone.proxy.url), zone.id, plan(), patience=QUICK)


# The command


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command and return its exit status and what it printed."""

    def of(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["acgs2", "dns", *args])
        status: Any = 0
        try:
            main()
        except SystemExit as end:
            status = end.code
        printed = capsys.readouterr()
        return int(status or 0), printed.out, printed.err

    return of


def test_the_command(zone: HostedZone, run: Run):
    at = ("local", "--zone-id", zone.id, "--endpoint-url", zone.proxy.url)
    status, out, err = run("apply", *at, "--dry-run")
    assert (status, err) == (0, "")
    assert "would create_health_check: create acgs2-eu-west-1-health-check" in out
    assert "would change_resource_record_sets: zone eu: 12 changes" in out
    assert zone.proxy.writes() == []
    status, out, _ = run("apply", *at, "--json")
    assert (status, json.loads(out)["settled"]) == (0, True)
    assert run("apply", *at)[1] == "nothing to change\n"
    _, out, _ = run("plan", *at, "--weight", "eu-west-1=25")
    assert "UPSERT eu-west-1.eu.api.acgs2.example CNAME eu-central-1: weight 3 -> api.eu-central-1" in out
    assert run("plan", *at)[1] == "nothing to change\n"
    status, _, err = run("apply", "local", "--zone-id", "ZNO", "--endpoint-url", zone.proxy.url, "--json")
    assert (status, json.loads(err)["error"]) == (3, "hosted-zone-unknown")
    away = f"http://127.0.0.1:{free_port()}"
    status, _, err = run("apply", "local", "--zone-id", "Z1", "--endpoint-url", away, "--deadline", "1")
    assert status == 4
    assert "Could not connect" in err


def test_the_command_without_aws(run: Run):
    status, out, _ = run("plan", "local", "--weight", "eu-west-1=25", "--down", "us-east-1", "--json")
    shown = json.loads(out)
    assert status == 0
    assert len(shown["health_checks"]) == 4
    assert [r for r in shown["records"] if r["set_id"] == "us-east-1" and "weight" in r] == []
    _, out, _ = run("plan", "local", "--down", "eu-west-1", "--down", "eu-central-1")
    assert "eu.api.acgs2.example is not answered: no-lawful-target" in out
    wrong = ["--weight=x=1", "--weight=eu-west-1=101", "--weight=eu-west-1", "--down=mars", "--partition=gcp"]
    for option in [*wrong, "--load-balancer=eu-west-1", "--load-balancer=eu-west-1=lb.example:Z1"]:
        assert run("plan", "local", option)[0] == 2


def with_check(**changed: Any) -> Topology:
    check = LOCAL.front.health_check.model_copy(update=changed)
    return LOCAL.model_copy(update={"front": LOCAL.front.model_copy(update={"health_check": check})})
