"""A topology that is wrong says where and what would be right."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acgs2.errors import TopologyError
from acgs2.topology import DatabaseAgreement, EtcdAgreement, Topology, builtin, load, parse
from acgs2.topology.links import estimate_rtt_ms

GOOD = """name: small
domain: d.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
  us-east-1: {country: US}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1]}
"""


@pytest.mark.parametrize(
    ("wrong", "right", "line", "says"),
    [
        ("{country: IE}", "{country: IE, rolle: primary}", 5, "Did you mean role?"),
        ("{country: IE}", "{country: ie}", 5, "pattern"),
        ("regions: [eu-west-1]", "regions: [eu-west-2]", 8, "Did you mean eu-west-1?"),
        ("regions: [eu-west-1]", "regions: []", 8, "at least 1"),
        ("  eu: {regulation", "  eu: [regulation", 8, "YAML"),
        ("name: small\n", "", 1, "required"),
        ("name: small", "name: [1]", 1, "string"),
        ("zones:\n", "front: {clients: {silence_s: 5}}\nzones:\n", 7, "longer than limits.timeout_s"),
    ],
)
def test_an_error_names_its_line(wrong: str, right: str, line: int, says: str) -> None:
    with pytest.raises(TopologyError) as caught:
        parse(GOOD.replace(wrong, right, 1))
    error = caught.value
    assert says in f"{error.message} {error.hint}"
    assert abs(error.context["line"] - line) <= 1


@given(
    st.text()
    | st.from_type(int).map(str)
    | st.sampled_from(["[]", "{}", "null", "a: &a [*a]", "\x00", "--- !!python/object:x {}"])
)
def test_whatever_is_not_a_topology_is_a_topology_error(text: str) -> None:
    with pytest.raises(TopologyError):
        parse(text)


def test_a_pair_is_the_first_two_homes_unless_told_otherwise() -> None:
    local = load("local")
    assert local.pair_of("eu") == ("eu-west-1", "eu-central-1")
    assert local.pair_of("us") == ()


def test_links_are_measured_where_known_and_never_cross_partitions() -> None:
    found = {frozenset((n.a, n.b)): n for n in load("global").links()}
    assert found[frozenset(("us-east-1", "eu-west-1"))].rtt_ms == 69.62
    assert frozenset(("us-east-1", "cn-north-1")) not in found
    assert found[frozenset(("cn-north-1", "cn-northwest-1"))].source == "distance"


def test_the_estimate_is_light_in_cables() -> None:
    assert estimate_rtt_ms((0, 0), (0, 0)) == 2
    assert 60 < estimate_rtt_ms((39.04, -77.49), (53.35, -6.26)) < 90


def test_the_published_schema_is_the_models() -> None:
    committed = json.loads((builtin("local").parent / "topology.schema.json").read_text(encoding="utf-8"))
    assert committed == Topology.model_json_schema()


def test_what_is_agreed_over_is_the_databases_unless_an_etcd_is_named() -> None:
    assert parse(GOOD).agreement == DatabaseAgreement()
    named = parse(
        GOOD + "agreement: {register: etcd, endpoints: ['http://10.0.0.1:2379', 'https://[::1]:1']}\n"
    )
    assert isinstance(named.agreement, EtcdAgreement)
    assert named.agreement.endpoints == ("http://10.0.0.1:2379", "https://[::1]:1")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("{register: etcd}", "required"),
        ("{register: etcd, endpoints: []}", "at least 1"),
        ("{register: etcd, endpoints: ['10.0.0.1:2379']}", "pattern"),
        ("{register: etcd, endpoints: ['http://a:1'], endpoint: x}", "endpoints"),
        ("{register: consul}", "database"),
        ("{register: database, endpoints: ['http://a:1']}", "endpoints"),
    ],
)
def test_a_wrong_agreement_is_explained(wrong: str, says: str) -> None:
    with pytest.raises(TopologyError) as caught:
        parse(f"{GOOD}agreement: {wrong}\n")
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.context["line"] == 9


def test_what_is_observed_goes_nowhere_unless_a_collector_is_named() -> None:
    assert parse(GOOD).observability.otlp is None
    named = parse(GOOD + "observability: {otlp: 'http://127.0.0.1:4318'}\nfailover: {lag_limit_s: 0.5}\n")
    assert (named.observability.otlp, named.failover.lag_limit_s) == ("http://127.0.0.1:4318", 0.5)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("observability: {otlp: '127.0.0.1:4318'}", "pattern"),
        ("observability: {otlp: 'http://user:secret@collector:1'}", "pattern"),
        ("observability: {oltp: 'http://collector:1'}", "otlp"),
        ("failover: {lag_limit_s: 0}", "greater than 0"),
        ("failover: {lag_limit_ms: 10}", "lag_limit_s"),
    ],
)
def test_wrong_settings_of_what_is_observed_are_explained(wrong: str, says: str) -> None:
    with pytest.raises(TopologyError) as caught:
        parse(f"{GOOD}{wrong}\n")
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.context["line"] == 9
