"""Every fault of a drill is made of what there is, and says what is to come of it."""

from __future__ import annotations

import pytest

from acgs2.drill.faults import Cut, Together
from acgs2.drill.outages import OUTAGES, outage
from acgs2.errors import InputError
from acgs2.topology import load

LOCAL = load("local")
WEST, CENTRAL, US, SG, WITNESS = "eu-west-1", "eu-central-1", "us-east-1", "ap-southeast-1", "ca-central-1"


@pytest.mark.parametrize("name", OUTAGES)
def test_every_fault_is_of_regions_that_there_are(name: str) -> None:
    found = outage(name, LOCAL, WEST, SG)
    assert set(found.regions) <= set(LOCAL.regions)
    assert (found.expected == "fails over") == bool(found.gone)
    assert found.why
    assert found.injection.did


def test_two_regions_leave_every_zone_somewhere_to_go_and_a_pair_does_not() -> None:
    assert outage("two-regions", LOCAL, WEST, "").regions == (WEST, SG)
    assert outage("pair", LOCAL, WEST, "").regions == (WEST, CENTRAL)
    assert outage("pair", LOCAL, US, "").regions == (WEST, CENTRAL)


def test_a_region_is_cut_off_from_all_others_at_once() -> None:
    injection = outage("cut", LOCAL, WEST, "").injection
    assert isinstance(injection, Together)
    assert {(f.a, f.b) for f in injection.faults if isinstance(f, Cut)} == {
        (WEST, p) for p in LOCAL.peers(WEST)
    }


def test_one_way_it_is_cut_from_one_that_it_shares_no_pair_with() -> None:
    injection = outage("cut-one-way", LOCAL, WEST, "").injection
    assert isinstance(injection, Cut)
    assert injection.one_way
    assert injection.b not in (CENTRAL, WITNESS)


def test_the_leader_is_whoever_leads_and_a_witness_serves_nobody() -> None:
    assert outage("leader", LOCAL, WEST, SG).regions == (SG,)
    witness = outage("leader", LOCAL, WEST, WITNESS)
    assert (witness.regions, witness.expected) == ((WITNESS,), "stays")


def test_where_operators_begin_plans_none_is_expected_and_the_region_is_gone_all_the_same() -> None:
    by_hand = LOCAL.model_copy(update={"failover": LOCAL.failover.model_copy(update={"automatic": False})})
    found = outage("kill", by_hand, WEST, "")
    assert (found.expected, found.gone) == ("stays", {WEST})
    assert outage("witness", by_hand, WEST, "").gone == set()


@pytest.mark.parametrize(
    ("name", "region", "reference"),
    [
        ("flood", WEST, "fault-unknown"),
        ("kill", WITNESS, "region-unknown"),
        ("kill", "mars-1", "region-unknown"),
    ],
)
def test_what_cannot_be_drilled_is_refused(name: str, region: str, reference: str) -> None:
    with pytest.raises(InputError) as caught:
        outage(name, LOCAL, region, "")
    assert caught.value.reference == reference
