"""Concurrent changes of one record are joined field by field, and what may not be held is not even sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cluster.conftest import Server
from tests.cluster.store.regions import CENTRAL, SG, US, WEST, Regions, regions_of

from acgs2.drill.checker import agreement


@pytest.fixture(scope="module")
def regions(server: Server) -> Iterator[Regions]:
    with regions_of(server) as found:
        yield found


def test_concurrent_changes_are_joined_and_the_value_that_loses_is_kept(regions: Regions) -> None:
    tenant = regions.tenant("eu", WEST)
    key = regions.user(WEST, tenant, "eu")
    regions.app[WEST].execute(
        b"UPDATE acgs.user_profile SET preferences = '{a,b}', login_count = 5 WHERE key = %s", (key,)
    )
    regions.until(lambda: regions.holds(CENTRAL, key), "the record")
    regions.settled()
    regions.cut(WEST, CENTRAL)
    regions.cut(CENTRAL, WEST)
    for region, locale, email, preferences in (
        (WEST, "'en'", "email", "array_remove(preferences, 'a')"),
        (CENTRAL, "locale", "'ann@example.org'", "preferences || '{c}'"),
    ):
        statement = (
            f"UPDATE acgs.user_profile SET display_name = %s, locale = {locale}, email = {email},"
            f" preferences = {preferences}, login_count = coalesce(login_count, 0) + 1 WHERE key = %s"
        )
        regions.app[region].execute(statement.encode(), (f"Ann of {region}", key))
    regions.heal()
    regions.settled()
    query = (
        b"SELECT display_name, locale, email, preferences, login_count FROM acgs.user_profile WHERE key = %s"
    )
    kept = b"SELECT field, loser_value FROM acgs.conflict WHERE key = %s"
    for region in (WEST, CENTRAL):
        found = regions.owner[region].execute(query, (key,)).fetchone()
        assert found == (f"Ann of {CENTRAL}", "en", "ann@example.org", ["b", "c"], 7)
        assert regions.owner[region].execute(kept, (key,)).fetchall() == [("display_name", f"Ann of {WEST}")]
    assert agreement(regions.admin) == []


def test_what_may_not_be_held_is_not_even_sent(regions: Regions) -> None:
    """The receiver would refuse it, and raise an incident; the sender's filter is the door."""
    tenant = regions.tenant("eu", WEST)
    regions.app[WEST].execute(
        b"INSERT INTO acgs.agent (key, zone, tenant_id, name) VALUES (gen_random_uuid(), 'eu', %s, 'a')",
        (tenant,),
    )
    regions.settled()
    for region in (US, SG):
        assert regions.owner[region].execute(b"SELECT kind, entity FROM acgs.incident").fetchall() == []
