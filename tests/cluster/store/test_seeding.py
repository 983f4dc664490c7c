"""A region is given what it lacks by whoever holds it, by right or by consent."""

from __future__ import annotations

from uuid import uuid4

from tests.cluster.conftest import Server
from tests.cluster.store.regions import CENTRAL, SG, US, WEST, regions_of


def test_a_region_that_holds_by_consent_gives_what_it_has_to_one_that_lost_it(server: Server) -> None:
    with regions_of(server) as regions:
        tenant = regions.tenant("eu", WEST)
        person = regions.user(WEST, tenant, "eu")
        regions.settled()
        regions.consent(WEST, tenant, person, SG)
        regions.until(lambda: regions.holds(SG, person), "the person to be in the region consented to")
        regions.settled()
        with regions.admin[CENTRAL].transaction():
            regions.admin[CENTRAL].execute(b"SET LOCAL session_replication_role = replica")
            regions.admin[CENTRAL].execute(b"DELETE FROM acgs.user_profile WHERE key = %s", (person,))
        # As a new life asks each peer, and as anti-entropy asks for a range.
        regions.admin[SG].execute(
            b"SELECT acgs.ask(%s, %s, 'user_profile', 'eu', NULL, NULL, false)", (uuid4(), CENTRAL)
        )
        regions.until(lambda: regions.holds(CENTRAL, person), "the person to be back at home")
        regions.settled()


def test_nothing_is_waited_for_that_nobody_else_may_hold(server: Server) -> None:
    with regions_of(server) as regions:
        admin = regions.admin[US]
        regions.settled()
        # As in a new data directory: the rules are worked out for the first time.
        admin.execute(b"DELETE FROM acgs.rule WHERE zone = 'us'")
        admin.execute(b"SELECT acgs.refresh_rules()")
        wanted = b"SELECT count(*) FROM acgs.acquisition WHERE zone = 'us' AND entity = %s"
        assert admin.execute(wanted, ("consent",)).fetchone() == (0,), "no other region may hold it"
        assert admin.execute(wanted, ("tenant",)).fetchone() == (1,)
        regions.settled()


def test_nobody_is_asked_who_has_lost_the_right_to_answer(server: Server) -> None:
    with regions_of(server) as regions:
        transfer = regions.transfer(WEST, "us", CENTRAL, "none_required", ["tenant"])
        regions.settled()
        regions.admin[US].execute(
            b"INSERT INTO acgs.acquisition (entity, zone, source) VALUES ('tenant', 'us', %s)", (CENTRAL,)
        )
        regions.revoke(US, transfer)
        left = b"SELECT count(*) FROM acgs.acquisition WHERE source = %s"
        assert regions.admin[US].execute(left, (CENTRAL,)).fetchone() == (0,)
        regions.settled()
