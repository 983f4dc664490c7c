"""Every act by which a right ends, in every situation that could undo it: no trace, no resurrection, ever."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from tests.cluster.conftest import Server
from tests.cluster.store.races import ACTS, Act, Races, races_of
from tests.cluster.store.regions import CENTRAL, SG, US, WEST, consent_key
from tests.cluster.store.situations import SITUATIONS

from acgs2.drill.checker import agreement, misplaced


@pytest.fixture(scope="module")
def regions(server: Server) -> Iterator[Races]:
    with races_of(server) as found:
        yield found


def wrong(act: Act) -> list[str]:
    """Return everything that is not as it must be after an act."""
    regions = act.regions
    found = [f"{r}: {regions.traces(r, act.token)}" for r in act.forbidden if regions.traces(r, act.token)]
    found += misplaced(regions.admin) + agreement(regions.admin)
    for region in regions.names:
        rows = (
            regions.owner[region]
            .execute(
                b"SELECT erased, CASE WHEN NOT erased THEN coalesce(login_count, 0) END FROM acgs.user_profile WHERE key = %s",
                (act.person,),
            )
            .fetchall()
        )
        if not act.keepers:
            right = rows == [(True, None)]
        else:
            right = rows == ([(False, act.added)] if region in act.keepers else [])
        if not right:
            found.append(f"{region} has {rows} of the person; {act.added} were added")
        for kind in act.kinds:
            if regions.holds(region, act.keys[kind], kind) is not (region in act.holders(kind)):
                found.append(f"{region} holds or lacks the {kind}")
    return found


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("name", ACTS)
def test_no_resurrection_ever(regions: Races, name: str, situation: str) -> None:
    act = ACTS[name](regions)
    act.prepare()
    act.remember()
    SITUATIONS[situation](act)
    regions.settled()
    forbidden = {r: regions.traces(r, act.token) for r in act.forbidden}
    assert not any(forbidden.values()), "while what is ahead of its time is still set aside"
    regions.until(lambda: regions.tick() or not regions.set_aside(), "clocks to catch up")
    regions.settled()
    assert wrong(act) == []
    assert act.unreported() == []
    # Once more, by everybody: every link anew, everything sent again, and old rows as late as can be.
    for source in regions.names:
        for target in regions.names:
            if source != target:
                regions.cut(source, target)
    for region in act.writers:
        act.put(region)
    act.emit_again()
    regions.heal()
    regions.settled()
    assert act.repeat() > 0
    regions.settled()
    assert wrong(act) == []
    assert act.unreported() == []


@pytest.mark.parametrize("name", ["transfer revoked", "transfer expires", "tenant moves"])
def test_what_was_being_written_when_the_right_ended_does_not_stay(regions: Races, name: str) -> None:
    """A transaction that began before and is committed after everything else was swept."""
    act = ACTS[name](regions)
    act.prepare()
    with regions.server.connect(regions.names[act.loser], "acgs_app") as conn:
        conn.execute(b"BEGIN")
        late = uuid4()
        conn.execute(
            b"INSERT INTO acgs.agent (key, zone, tenant_id, name) VALUES (%s, %s, %s, %s)",
            (late, act.zone, act.tenant, act.token),
        )
        act.carry_out()
        regions.until(lambda: not regions.holds(act.loser, act.person), "the rest to be swept")
        conn.execute(b"COMMIT")
    regions.settled()
    assert wrong(act) == []
    assert act.unreported() == []
    assert all(regions.holds(region, late, "agent") for region in act.keepers)


def test_a_move_reaches_whoever_was_sent_it_meanwhile(regions: Races) -> None:
    """The one who moves a tenant does not know to whom others sent it; those who forget it pass that on."""
    act = ACTS["tenant moves"](regions)
    act.prepare()
    for region in regions.names:
        if region != US:
            regions.cut(region, US)
    transfer = regions.transfer(CENTRAL, "fr", SG, "scc", ["tenant", "user_profile"])
    regions.until(
        lambda: regions.holds(SG, act.person) and regions.holds(SG, act.tenant, "tenant"), "SG to have it"
    )
    act.carry_out()
    regions.settled()
    regions.heal()
    regions.settled()
    assert wrong(act) == []
    regions.revoke(CENTRAL, transfer)
    regions.settled()


def gained(regions: Races, before: dict[str, set[tuple[str, UUID]]]) -> dict[str, set[tuple[str, UUID]]]:
    after = regions.held()
    return {region: after[region] - before[region] for region in after if after[region] - before[region]}


def test_a_new_transfer_sends_what_it_allows_and_only_that(regions: Races) -> None:
    act = ACTS["transfer revoked"](regions)
    act.prepare()
    act.put(US)
    regions.settled()
    before = regions.held()
    agents = {
        ("agent", key)
        for (key,) in regions.owner[WEST].execute(
            b"SELECT key FROM acgs.agent WHERE zone = 'eu' AND NOT erased"
        )
    }
    assert ("agent", act.keys["agent"]) in agents
    regions.transfer(CENTRAL, "eu", SG, "scc", ["agent"])
    regions.settled()
    assert gained(regions, before) == {SG: agents}
    assert before[US] == regions.held()[US]
    assert agreement(regions.admin) + misplaced(regions.admin) == []


def test_a_consent_sends_what_is_about_that_person_and_only_that(regions: Races) -> None:
    tenant = regions.tenant("de", WEST)
    key, _ = regions.user(WEST, tenant, "de"), regions.user(WEST, tenant, "de")
    regions.settled()
    before = regions.held()
    regions.consent(CENTRAL, tenant, key, SG, "de")
    regions.settled()
    consent = ("consent", consent_key(key, SG))
    assert gained(regions, before) == {
        WEST: {consent},
        CENTRAL: {consent},
        SG: {consent, ("user_profile", key)},
    }
    assert agreement(regions.admin) + misplaced(regions.admin) == []


def test_a_move_sends_what_is_the_tenants_and_only_that(regions: Races) -> None:
    tenants = [regions.tenant("us", US) for _ in range(2)]
    people = {tenant: [regions.user(US, tenant, "us") for _ in range(3)] for tenant in tenants}
    regions.settled()
    before = regions.held()
    assert regions.app[US].execute(b"SELECT acgs.move_tenant(%s, 'fr')", (tenants[0],)).fetchone() == (1,)
    regions.settled()
    moved = {("tenant", tenants[0]), *(("user_profile", key) for key in people[tenants[0]])}
    assert gained(regions, before) == {WEST: moved, CENTRAL: moved}
    assert agreement(regions.admin) + misplaced(regions.admin) == []
