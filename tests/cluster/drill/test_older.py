"""Of what is older only digests are compared, and whatever is wrong with it is found all the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.cluster.conftest import Server
from tests.cluster.store.regions import CENTRAL, QUARTET, SG, US, WEST, Regions, regions_of

from acgs2.drill.checks import agreement, misheld
from acgs2.drill.older import read_newer
from acgs2.drill.states import Final, read_final
from acgs2.topology import parse

TOPOLOGY = parse(QUARTET)


@pytest.fixture(scope="module")
def regions(server: Server) -> Iterator[Regions]:
    with regions_of(server) as found:
        yield found


@pytest.fixture
def users(regions: Regions) -> list[str]:
    """Five users of the eu, wherever they may be, all the same."""
    tenant = regions.tenant("eu", WEST)
    made = [str(regions.user(WEST, tenant, "eu")) for _ in range(5)]
    regions.settled()
    return made


def soon() -> datetime:
    """A moment before which all that there is was written."""
    return datetime.now(UTC) + timedelta(seconds=5)


def read(regions: Regions, since: datetime) -> Final:
    return read_final(TOPOLOGY, regions.admin, traced=False, held=read_newer(TOPOLOGY, regions.admin, since))


def wrong(final: Final) -> list[str]:
    return [found.what for check in (agreement, misheld) for found in check(final)]


def by_hand(regions: Regions, region: str, statement: str) -> None:
    """Change something past all triggers."""
    conn = regions.admin[region]
    conn.execute(b"SET session_replication_role = replica")
    assert conn.execute(statement.encode()).rowcount == 1
    conn.execute(b"RESET session_replication_role")


def test_what_is_older_and_agrees_is_not_read_and_what_is_newer_is(
    regions: Regions, users: list[str]
) -> None:
    older = read(regions, soon())
    assert wrong(older) == []
    for region in regions.names:
        assert not older.held[region]["user_profile"]
        assert older.held[region]["zone"], "the register is always read"
    newer = read(regions, datetime.now(UTC) - timedelta(hours=1))
    assert set(users) <= set(newer.held[WEST]["user_profile"])


def test_an_old_row_that_a_region_lost_is_found(regions: Regions, users: list[str]) -> None:
    row = f"FROM acgs.user_profile WHERE key = '{users[0]}'"
    by_hand(regions, US, f"CREATE TABLE acgs.kept AS SELECT * {row}")
    by_hand(regions, US, f"DELETE {row}")
    assert any(users[0] in what and "lacking" in what for what in wrong(read(regions, soon())))
    by_hand(regions, US, "INSERT INTO acgs.user_profile SELECT * FROM acgs.kept")
    regions.admin[US].execute(b"DROP TABLE acgs.kept")
    assert wrong(read(regions, soon())) == []


def test_an_old_row_that_was_changed_by_hand_is_found(regions: Regions, users: list[str]) -> None:
    change = f"UPDATE acgs.user_profile SET locale = %s WHERE key = '{users[1]}'"
    by_hand(regions, CENTRAL, change.replace("%s", "'forged'"))
    assert any(users[1] in what and "locale" in what for what in wrong(read(regions, soon())))
    by_hand(regions, CENTRAL, change.replace("%s", "NULL"))
    assert wrong(read(regions, soon())) == []


def test_an_old_row_that_is_the_same_everywhere_and_may_not_be_there_is_found(
    regions: Regions, users: list[str]
) -> None:
    there = [WEST, CENTRAL, US]
    for region in there:
        by_hand(
            regions,
            region,
            f"UPDATE acgs.user_profile SET residency = '{{{WEST},{CENTRAL},{US},{SG}}}' WHERE key = '{users[2]}'",
        )
    assert any(users[2] in what for what in wrong(read(regions, soon())))
    for region in there:
        by_hand(
            regions,
            region,
            f"UPDATE acgs.user_profile SET residency = '{{{WEST},{CENTRAL},{US}}}' WHERE key = '{users[2]}'",
        )


def test_an_old_row_that_is_erased_in_one_region_only_is_found(regions: Regions, users: list[str]) -> None:
    by_hand(regions, US, f"UPDATE acgs.user_profile SET erased = true WHERE key = '{users[3]}'")
    assert any(users[3] in what and "erased" in what for what in wrong(read(regions, soon())))
    by_hand(regions, US, f"UPDATE acgs.user_profile SET erased = false WHERE key = '{users[3]}'")
    assert wrong(read(regions, soon())) == []
