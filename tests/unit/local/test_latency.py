"""What is made of measured latencies: percentiles, the way that no answer can do without, and the promise."""

from __future__ import annotations

from collections import Counter

import pytest

from acgs2.errors import InputError
from acgs2.local.latency import Spread, Waited, choose_pairs, link_ms, spread
from acgs2.topology import Topology, parse

TOPOLOGY = """
name: two
domain: acgs2.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
  eu-central-1: {country: DE}
  us-east-1: {country: US}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1, eu-central-1]}
  us: {regulation: ccpa, regions: [us-east-1]}
places:
  dublin: {location: [53.35, -6.26], zone: eu, access_ms: 7}
  nowhere: {location: [0, 0], access_ms: 0}
objectives: {p99_ms: 50}
links:
  - {a: dublin, b: eu-west-1, rtt_ms: 2}
  - {a: dublin, b: us-east-1, rtt_ms: 80}
  - {a: eu-west-1, b: eu-central-1, rtt_ms: 30}
"""


@pytest.fixture(scope="module")
def topology() -> Topology:
    return parse(TOPOLOGY)


def test_percentiles_are_those_of_percentile_cont_and_never_beyond_what_was_seen() -> None:
    assert spread([float(n) for n in range(101)]) == Spread(50, 99, 100)
    assert spread([3.0, 1.0]) == Spread(2, pytest.approx(2.98), 3)
    assert spread([4.0]) == Spread(4, 4, 4)
    assert spread([]) == Spread(0, 0, 0)


def test_a_write_in_a_pair_also_goes_to_the_other_region(topology: Topology) -> None:
    assert link_ms(topology, "dublin", "eu-west-1", "eu") == pytest.approx(9)
    assert link_ms(topology, "dublin", "eu-west-1", "eu", writes=True) == pytest.approx(39)
    assert link_ms(topology, "dublin", "us-east-1", "us", writes=True) == pytest.approx(87)
    # A region that is not of the pair answers for itself.
    assert link_ms(topology, "dublin", "us-east-1", "eu", writes=True) == pytest.approx(87)


@pytest.mark.parametrize(
    ("place", "zone", "took_ms", "kept"),
    [
        ("dublin", "eu", [50.0, 50.0], True),
        ("dublin", "eu", [50.1, 50.1], False),
        ("dublin", "eu", [], False),
        ("dublin", "us", [500.0], None),
        ("nowhere", "eu", [500.0], None),
    ],
)
def test_the_promise_is_on_a_place_s_own_zone(
    topology: Topology, place: str, zone: str, took_ms: list[float], kept: bool | None
) -> None:
    assert Waited(place, zone, took_ms).kept(topology) is kept


def test_the_region_is_the_one_that_answered_most(topology: Topology) -> None:
    assert Waited("dublin", "eu", regions=Counter(a=1, b=2)).region == "b"
    assert Waited("dublin", "eu").region == ""


def test_pairs_are_all_places_with_all_zones_or_those_asked_for(topology: Topology) -> None:
    assert len(choose_pairs(topology)) == 4
    assert choose_pairs(topology, place="nowhere") == [("nowhere", "eu"), ("nowhere", "us")]
    assert choose_pairs(topology, "dublin", "us") == [("dublin", "us")]


@pytest.mark.parametrize(
    ("place", "zone", "says"), [("paris", "", "place paris"), ("dublin", "mars", "zone mars")]
)
def test_what_is_not_there_is_said_with_what_is(topology: Topology, place: str, zone: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        choose_pairs(topology, place, zone)
    assert "dublin" in refused.value.hint or "us" in refused.value.hint


def test_without_places_there_are_no_clients() -> None:
    before, _, rest = TOPOLOGY.partition("places:")
    bare = parse(before + "objectives" + rest.partition("objectives")[2].partition("links:")[0])
    with pytest.raises(InputError, match="no places"):
        choose_pairs(bare)
