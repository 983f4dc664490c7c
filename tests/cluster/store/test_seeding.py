"""A region is given what it lacks by whoever holds it, by right or by consent."""

from __future__ import annotations

from uuid import uuid4

from tests.cluster.conftest import Server
from tests.cluster.store.regions import CENTRAL, SG, WEST, regions_of


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
            b"SELECT acgs.ask(%s, %s, 'user_profile', 'eu', NULL, NULL)", (uuid4(), CENTRAL)
        )
        regions.until(lambda: regions.holds(CENTRAL, person), "the person to be back at home")
        regions.settled()
