"""A seed decides what clients do and which faults there are; faults leave a majority, and a copy of everything."""

from __future__ import annotations

from itertools import islice

import pytest
from tests.cluster.torture.run import MOVABLE, STILL, TOPOLOGY

from acgs2.drill.crew import makers_of
from acgs2.drill.faults import Cut
from acgs2.drill.nemesis import KINDS, Planned, Terrain, plan_faults
from acgs2.drill.plan import Plan, Step, stock_of
from acgs2.topology import parse

SEEDS = range(20)
TORTURE = parse(TOPOLOGY)
STOCK = stock_of(TORTURE, "t", MOVABLE)
CLIENTS = {f"{region}.{n}": region for region in TORTURE.regions for n in range(2)}


def faults(seed: int, count: int = 100) -> list[Planned]:
    return list(islice(plan_faults(seed, Terrain(TORTURE, STOCK, "all", STILL), gap_s=4.0), count))


def steps(seed: int, name: str, count: int = 300) -> list[Step]:
    plan = Plan(seed, name, CLIENTS[name], makers_of(STOCK, CLIENTS), STOCK, 0.2)
    return list(islice(plan, count))


def test_a_seed_is_one_plan() -> None:
    assert faults(1) == faults(1) != faults(2)
    name = "eu-west-1.0"
    assert steps(1, name) == steps(1, name) != steps(2, name)
    assert [s.act.key for s in steps(1, name)] != [s.act.key for s in steps(1, "eu-west-1.1")]


def test_every_kind_of_fault_comes_before_any_comes_again() -> None:
    assert len(KINDS) >= 10
    begun = {(type(p.fault), p.fault.name) for p in faults(3, len(KINDS))}
    assert len(begun) >= len(KINDS) - 3, "kinds of killing share a name"
    assert any(isinstance(p.fault, Cut) and p.fault.one_way for p in faults(3, len(KINDS)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_majority_stays_and_only_one_disk_goes_at_a_time(seed: int) -> None:
    planned = faults(seed)
    for p in planned:
        at_once = [o for o in planned if o.at_s <= p.at_s < o.until_s]
        down = {region for o in at_once for region in o.fault.down}
        assert len(down) <= 2, [o.fault.did for o in at_once]
        if p.fault.loses:
            during = [o for o in planned if o is not p and o.at_s < p.until_s + 15 and p.at_s < o.until_s]
            assert not [o.fault.did for o in during if o.fault.loses or o.fault.down], p.fault.did


@pytest.mark.parametrize("name", CLIENTS)
def test_clients_of_every_region_with_data_change_what_was_created(name: str) -> None:
    if TORTURE.regions[CLIENTS[name]].role == "witness":
        assert not STOCK.access[CLIENTS[name]]["user_profile"]
        return
    everybody = [s for n in CLIENTS if STOCK.access[CLIENTS[n]]["user_profile"] for s in steps(1, n)]
    made = {s.act.key for s in everybody if s.act.method == "POST"}
    changes = [s.act for s in steps(1, name) if s.act.method == "PATCH"]
    assert len(changes) > 100
    assert sum(act.key in made for act in changes) > len(changes) * 0.7
