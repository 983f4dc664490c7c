"""Nobody holds what nothing permits; permissions end when they say."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.transfers import NOW, REGIONS, ZONES, transfers

from acgs2.residency import Register, TransferRecord, decide

registers = st.lists(transfers, max_size=5).map(lambda t: Register(frozenset(REGIONS), ZONES, tuple(t)))


@given(registers, st.sampled_from(["agent", "user_profile"]), st.sampled_from(sorted(ZONES)))
def test_every_holder_is_a_home_or_has_a_transfer_in_force(
    register: Register, entity: str, zone: str
) -> None:
    decision = decide(entity, zone, register, NOW)
    for region in decision.residency:
        assert region in REGIONS
        permitted = any(
            t.zone == zone
            and t.to == region
            and entity in t.entities
            and t.in_force(NOW)
            and t.instrument == decision.basis[region]
            for t in register.transfers
        )
        assert permitted or (region in ZONES[zone] and decision.basis[region] == "home")
    assert set(ZONES[zone]) <= set(decision.residency)
    assert list(decision.residency) == sorted(decision.residency)


@given(registers, transfers, st.sampled_from(["agent", "user_profile"]))
def test_one_more_transfer_never_takes_a_right_away(
    register: Register, more: TransferRecord, entity: str
) -> None:
    wider = Register(register.regions, register.zones, (*register.transfers, more))
    assert set(decide(entity, "eu", register, NOW).residency) <= set(
        decide(entity, "eu", wider, NOW).residency
    )


@given(registers, st.sampled_from(["agent", "user_profile"]))
def test_the_decision_holds_until_the_moment_it_names(register: Register, entity: str) -> None:
    decision = decide(entity, "eu", register, NOW)
    if decision.valid_until is not None:
        last = decision.valid_until - timedelta(microseconds=1)
        assert decide(entity, "eu", register, last).residency == decision.residency


def test_an_expiry_is_exact_and_consent_alone_permits_nothing() -> None:
    transfer = TransferRecord("eu", "us-east-1", "scc", frozenset({"agent"}), expires=NOW)
    register = Register(frozenset(REGIONS), ZONES, (transfer,))
    assert "us-east-1" in decide("agent", "eu", register, NOW - timedelta(microseconds=1)).residency
    assert "us-east-1" not in decide("agent", "eu", register, NOW).residency
    consent = TransferRecord("eu", "us-east-1", "explicit_consent", frozenset({"agent"}))
    assert (
        "us-east-1"
        not in decide("agent", "eu", Register(frozenset(REGIONS), ZONES, (consent,)), NOW).residency
    )


def test_an_unknown_zone_is_held_nowhere_and_the_register_everywhere() -> None:
    register = Register(frozenset(REGIONS), ZONES)
    assert decide("agent", "atlantis", register, NOW).residency == ()
    assert decide("zone", "*", register, NOW).residency == tuple(sorted(REGIONS))
