"""Rights that end: transfers, consents, tenants that move, erasure. Raced, late, cut off: no resurrection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from tests.cluster.conftest import Server, await_that
from tests.cluster.store.regions import (
    CENTRAL,
    SG,
    US,
    WEST,
    Regions,
    consent_key,
    genesis_transfer,
    regions_of,
)


@pytest.fixture(scope="module")
def regions(server: Server) -> Iterator[Regions]:
    with regions_of(server) as found:
        yield found


def test_a_revoked_transfer_leaves_nothing_behind_and_is_reported(regions: Regions) -> None:
    tenant = regions.tenant("us", US)
    name = f"Zoe-{uuid4()}"
    key = regions.user(US, tenant, "us", name)
    regions.until(lambda: regions.holds(WEST, key), "the record to arrive")
    regions.app[WEST].execute(b"UPDATE acgs.user_profile SET locale = 'en' WHERE key = %s", (key,))
    regions.revoke(CENTRAL, genesis_transfer(0, "us", WEST, "none_required"))
    regions.settled()
    assert regions.traces(WEST, name) == {}
    assert not regions.holds(WEST, tenant, "tenant")
    assert regions.holds(US, key)
    done = (
        regions.owner[CENTRAL]
        .execute(b"SELECT entity, records FROM acgs.disposal WHERE region = %s AND zone = 'us'", (WEST,))
        .fetchall()
    )
    assert dict(done)["user_profile"] == 1
    regions.app[US].execute(b"UPDATE acgs.user_profile SET locale = 'fr' WHERE key = %s", (key,))
    # A new transfer widens again: what is newly allowed is sent, and only that.
    regions.transfer(SG, "us", WEST, "none_required", ["user_profile"])
    regions.until(lambda: regions.holds(WEST, key), "the record to come back")
    regions.settled()
    assert not regions.holds(WEST, tenant, "tenant")


def test_consent_gives_and_withdrawal_takes(regions: Regions) -> None:
    tenant = regions.tenant("eu", WEST)
    name = f"Yan-{uuid4()}"
    key, other = regions.user(WEST, tenant, "eu", name), regions.user(WEST, tenant, "eu")
    regions.until(lambda: regions.holds(US, key) and regions.holds(CENTRAL, key), "the record to arrive")
    regions.settled()
    assert not regions.holds(SG, key)
    regions.consent(CENTRAL, tenant, key, SG)
    regions.until(lambda: regions.holds(SG, key), "the record to be given")
    regions.app[SG].execute(b"UPDATE acgs.user_profile SET locale = 'sg' WHERE key = %s", (key,))
    regions.settled()
    assert not regions.holds(SG, other)
    regions.withdraw(WEST, tenant, key, SG)
    regions.until(lambda: not regions.holds(SG, key), "the record to be taken")
    regions.settled()
    assert regions.traces(SG, name) == {}
    # Only the report itself names the key, until its partition goes: no content, and no fence in the clear.
    assert {t for t in regions.traces(SG, str(key)) if not t.startswith("acgs.journal")} == set()
    query = b"SELECT locale FROM acgs.user_profile WHERE key = %s"
    assert regions.owner[CENTRAL].execute(query, (key,)).fetchone() == ("sg",)
    owed = b"SELECT region, done_at IS NOT NULL FROM acgs.duty WHERE key = %s AND kind = 'expel'"
    assert regions.owner[WEST].execute(owed, (key,)).fetchall() == [(SG, True)]
    regions.consent(WEST, tenant, key, SG)
    regions.until(lambda: regions.holds(SG, key), "the record to be given again")


def test_a_withdrawal_wins_over_a_grant_that_did_not_know_it(regions: Regions) -> None:
    tenant = regions.tenant("eu", WEST)
    key = regions.user(WEST, tenant, "eu")
    regions.consent(WEST, tenant, key, SG)
    regions.until(lambda: regions.holds(SG, key), "the record to be given")
    regions.settled()
    regions.cut(WEST, CENTRAL)
    regions.cut(CENTRAL, WEST)
    regions.withdraw(WEST, tenant, key, SG)
    regions.consent(CENTRAL, tenant, key, SG)
    regions.app[CENTRAL].execute(b"UPDATE acgs.user_profile SET locale = 'de' WHERE key = %s", (key,))
    regions.settled()
    regions.heal()
    regions.settled()
    for region in (WEST, CENTRAL):
        row = (
            regions.owner[region]
            .execute(b"SELECT residency FROM acgs.user_profile WHERE key = %s", (key,))
            .fetchone()
        )
        assert row is not None
        assert SG not in row[0]
    assert not regions.holds(SG, key)


def test_a_late_put_does_not_bring_back_what_was_withdrawn(regions: Regions) -> None:
    tenant = regions.tenant("eu", WEST)
    name = f"Lea-{uuid4()}"
    key = regions.user(WEST, tenant, "eu", name)
    regions.consent(WEST, tenant, key, SG)
    regions.until(lambda: regions.holds(SG, key) and regions.holds(CENTRAL, key), "the record to be given")
    regions.settled()
    regions.cut(CENTRAL, SG)
    regions.app[CENTRAL].execute(b"UPDATE acgs.user_profile SET locale = 'de' WHERE key = %s", (key,))
    regions.withdraw(WEST, tenant, key, SG)
    regions.until(lambda: not regions.holds(SG, key), "the record to be taken")
    regions.settled()
    regions.heal()
    regions.settled()
    assert regions.traces(SG, name) == {}


def test_an_erasure_reaches_whoever_was_sent_it_meanwhile(regions: Regions) -> None:
    tenant = regions.tenant("eu", WEST)
    name = f"Max-{uuid4()}"
    key = regions.user(WEST, tenant, "eu", name)
    regions.until(lambda: regions.holds(CENTRAL, key), "the record to arrive")
    regions.settled()
    regions.cut(CENTRAL, WEST)
    regions.cut(WEST, CENTRAL)
    regions.consent(CENTRAL, tenant, key, SG)
    regions.until(lambda: regions.holds(SG, key), "the record to be given")
    regions.app[WEST].execute(b"UPDATE acgs.user_profile SET erased = true WHERE key = %s", (key,))
    regions.settled()
    assert regions.holds(SG, key)  # nobody who knows of both has been heard yet
    regions.heal()
    regions.settled()
    for region in regions.names:
        assert regions.traces(region, name) == {}, region


def test_a_tenant_moves_and_its_old_regions_forget_it(regions: Regions) -> None:
    regions.transfer(US, "eu", US, "adequacy_dpf", ["tenant", "tenant_config", "agent", "consent"])
    regions.settled()
    tenant = regions.tenant("eu", WEST)
    name = f"Tom-{uuid4()}"
    key = regions.user(WEST, tenant, "eu", name)
    regions.until(lambda: regions.holds(US, key) and regions.holds(US, tenant, "tenant"), "the records")
    regions.settled()
    regions.cut(CENTRAL, US)
    late = regions.user(CENTRAL, tenant, "eu", name)
    moved = regions.app[US].execute(b"SELECT acgs.move_tenant(%s, 'us')", (tenant,)).fetchone()
    assert moved == (1,)
    regions.until(lambda: not regions.holds(CENTRAL, key), "the old region to forget")
    regions.settled()
    regions.heal()
    regions.settled()
    assert regions.holds(US, late)
    for region in (CENTRAL, SG):
        assert regions.traces(region, name) == {}
    row = (
        regions.owner[US]
        .execute(b"SELECT zone, residency FROM acgs.user_profile WHERE key = %s", (late,))
        .fetchone()
    )
    assert row is not None
    assert row[0] == "us"
    assert CENTRAL not in row[1]


def test_the_record_of_a_consent_goes_with_it(regions: Regions) -> None:
    """It is about the person too: where it may be by that consent it is held no longer than they are."""
    transfer = regions.transfer(WEST, "eu", SG, "explicit_consent", ["consent"])
    tenant = regions.tenant("eu", WEST)
    key = regions.user(WEST, tenant, "eu")
    regions.consent(WEST, tenant, key, SG)
    found = consent_key(key, SG)
    where = b"SELECT residency FROM acgs.consent WHERE key = %s"
    regions.until(lambda: regions.holds(SG, found, "consent"), "the consent to be given")
    regions.settled()
    for home in (WEST, CENTRAL):
        assert SG in regions.owner[home].execute(where, (found,)).fetchone()[0]
    regions.withdraw(CENTRAL, tenant, key, SG)
    regions.settled()
    assert not regions.holds(SG, found, "consent")
    for home in (WEST, CENTRAL):
        assert SG not in regions.owner[home].execute(where, (found,)).fetchone()[0]
    regions.revoke(WEST, transfer)
    regions.settled()


def test_every_report_is_kept_also_while_the_register_is_ahead_of_its_time(regions: Regions) -> None:
    """The register's version is its newest clock; one written by a fast clock stays the newest for a while."""
    west = regions.owner[WEST]
    west.execute(b"UPDATE acgs.self SET clock_offset_us = 60000000")
    west.execute(b"SELECT acgs.refresh_rules()")
    regions.transfer(WEST, "sg", US, "scc", ["agent"])
    west.execute(b"UPDATE acgs.self SET clock_offset_us = 0")
    west.execute(b"SELECT acgs.refresh_rules()")
    reported = b"SELECT done_at FROM acgs.disposal WHERE (region, entity, zone) = (%s, 'agent', 'eu') ORDER BY 1 DESC"
    reports = []
    for _ in range(2):
        key = regions.transfer(CENTRAL, "eu", SG, "scc", ["agent"])
        regions.settled()
        regions.revoke(CENTRAL, key)
        regions.settled()
        reports.append(west.execute(reported, (SG,)).fetchone())
    assert reports[0] < reports[1]


def test_looking_at_the_clock_does_not_undo_what_was_just_learned(regions: Regions) -> None:
    """Rules are worked out anew once a second: one that began before a change must not write its answer after it."""
    looking = regions.server.connect(regions.names[SG], "acgs_owner")
    thread = threading.Thread(target=lambda: looking.execute(b"SELECT acgs.refresh_rules()"))
    waits = b"SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    with looking:
        with regions.app[SG].transaction():
            key = regions.transfer(SG, "sg", WEST, "scc", ["agent"])
            thread.start()
            pid = looking.info.backend_pid
            await_that(lambda: regions.admin[SG].execute(waits, (pid,)).fetchone(), "the other to wait")
        thread.join()
    rule = b"SELECT residency FROM acgs.rule WHERE entity = 'agent' AND zone = 'sg'"
    assert WEST in regions.owner[SG].execute(rule).fetchone()[0]
    regions.revoke(SG, key)
    regions.settled()


def test_a_tenant_that_comes_back_is_given_again_to_those_who_had_forgotten_it(regions: Regions) -> None:
    kinds = ["tenant", "user_profile", "consent", "agent", "tenant_config", "audit_event"]
    regions.transfer(WEST, "eu", US, "scc", kinds)
    regions.settled()
    tenant = regions.tenant("eu", WEST)
    key = regions.user(WEST, tenant, "eu")
    regions.until(lambda: regions.holds(US, key) and regions.holds(CENTRAL, key), "the record to be sent")
    for zone, held in (("us", False), ("eu", True), ("us", False), ("eu", True)):
        regions.app[US].execute(b"SELECT acgs.move_tenant(%s, %s)", (tenant, zone))
        regions.settled()
        assert regions.holds(CENTRAL, tenant, "tenant") is held
        assert regions.holds(CENTRAL, key) is held, zone


def test_a_move_is_on_its_way_when_it_is_acknowledged(regions: Regions) -> None:
    regions.transfer(WEST, "eu", US, "scc", ["tenant"])
    regions.transfer(WEST, "us", WEST, "none_required", ["tenant"])
    regions.settled()
    tenant = regions.tenant("eu", WEST)
    regions.until(lambda: regions.holds(US, tenant, "tenant"), "the tenant to be sent")
    regions.app[US].execute(b"SELECT acgs.move_tenant(%s, 'us')", (tenant,))

    def moved() -> bool:
        query = b"SELECT zone FROM acgs.tenant WHERE key = %s"
        return regions.owner[WEST].execute(query, (tenant,)).fetchone() == ("us",)

    # Nobody works: what waits for the worker is not in the log, and no peer could have confirmed it.
    await_that(moved, "the move to arrive", 5)
    regions.settled()


@pytest.mark.parametrize("how", ["asked again", "half a minute later"])
def test_nobody_is_told_to_forget_what_moved_before_it_is_safe_where_it_went(
    regions: Regions, how: str
) -> None:
    """Until then theirs may be the last copy, should the one who moved it lose its disk."""
    kinds = ["tenant", "user_profile", "consent", "agent", "tenant_config", "audit_event"]
    regions.transfer(WEST, "eu", US, "scc", kinds)
    regions.transfer(WEST, "us", WEST, "none_required", kinds)
    regions.settled()
    tenant = regions.tenant("eu", WEST)
    key = regions.user(WEST, tenant, "eu")
    regions.until(lambda: regions.holds(US, key) and regions.holds(CENTRAL, key), "the record to be sent")
    regions.cut(US, WEST)
    regions.app[US].execute(b"SELECT acgs.move_tenant(%s, 'us')", (tenant,))
    done = b"SELECT 1 FROM acgs.move WHERE tenant = %s AND done_at IS NOT NULL"
    regions.until(lambda: regions.owner[US].execute(done, (tenant,)).fetchone(), "all to be taken along")
    regions.work()
    assert regions.holds(CENTRAL, key)
    assert regions.holds(CENTRAL, tenant, "tenant")
    # The one who moved it is lost: another goes on when it is asked to, or after a while by itself.
    mover = b"UPDATE acgs.move SET mover = false WHERE tenant = %s"
    regions.owner[US].execute(mover, (tenant,))
    regions.heal()
    regions.until(lambda: zone_of(regions, WEST, tenant) == "us", "the move to arrive")
    regions.work()
    assert regions.holds(CENTRAL, key)
    if how == "asked again":
        again = regions.app[US].execute(b"SELECT acgs.move_tenant(%s, 'us')", (tenant,)).fetchone()
        assert again == (1,), "it is the same move"
    else:
        past = b"UPDATE acgs.move SET at = at - interval '31 seconds' WHERE tenant = %s"
        regions.owner[US].execute(past, (tenant,))
    regions.settled()
    assert not regions.holds(CENTRAL, key)
    assert not regions.holds(CENTRAL, tenant, "tenant")
    assert zone_of(regions, WEST, key, "user_profile") == "us"
    assert regions.app[US].execute(b"SELECT acgs.move_tenant(%s, 'us')", (tenant,)).fetchone() == (None,)


def zone_of(regions: Regions, region: str, key: UUID, entity: str = "tenant") -> str | None:
    row = (
        regions.owner[region]
        .execute(f"SELECT zone FROM acgs.{entity} WHERE key = %s".encode(), (key,))
        .fetchone()
    )
    return row[0] if row else None


def test_a_withdrawn_consent_does_not_keep_out_what_rests_on_another_ground(regions: Regions) -> None:
    tenant = regions.tenant("eu", WEST)
    key = regions.user(WEST, tenant, "eu")
    regions.consent(WEST, tenant, key, SG)
    regions.until(lambda: regions.holds(SG, key), "the record to be given")
    regions.withdraw(CENTRAL, tenant, key, SG)
    regions.settled()
    assert not regions.holds(SG, key)
    # A tenant that moved makes regions look at each record of the zone closely.
    regions.transfer(WEST, "eu", US, "scc", ["tenant"])
    regions.settled()
    other = regions.tenant("eu", WEST)
    regions.until(lambda: regions.holds(US, other, "tenant"), "the tenant to be sent")
    regions.app[US].execute(b"SELECT acgs.move_tenant(%s, 'us')", (other,))
    regions.settled()
    transfer = regions.transfer(WEST, "eu", SG, "scc", ["user_profile"])
    regions.settled()
    assert regions.holds(SG, key), "it needs no consent any more"
    regions.revoke(WEST, transfer)
    regions.settled()
    assert not regions.holds(SG, key), "and now it does again"
