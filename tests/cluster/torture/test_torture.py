"""A short run of what `make torture` runs for as long as it is told: no promise is broken, and the faults bite.

A seed replays: ACGS2_SEEDS=7 pytest tests/cluster/torture; ACGS2_TORTURE_S is how long the nemesis runs.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from tests.cluster.conftest import await_that, folder
from tests.cluster.torture.run import TOPOLOGY, torture

from acgs2.drill.checks import judge
from acgs2.drill.history import read_history
from acgs2.drill.states import Final
from acgs2.local.cluster import up

SEEDS = [int(s) for s in os.environ.get("ACGS2_SEEDS", "1").split(",")]
SECONDS = float(os.environ.get("ACGS2_TORTURE_S", "75"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken_under_faults(seed: int, tmp_path: Path) -> None:
    print(f"replay with ACGS2_SEEDS={seed} ACGS2_TORTURE_S={SECONDS:g}")
    with folder() as path:
        (path / "torture.yaml").write_text(TOPOLOGY, encoding="utf-8")
        cluster = up(path / "torture.yaml", path / "state")
        try:
            report = torture(cluster, seed, SECONDS, tmp_path, print, gap_s=3.0)
        finally:
            cluster.down()
        await_that(lambda: not processes_in(path), "every process to be gone")
    assert report.broken == []
    assert report.agreed_s is not None
    done = [op for op in report.history.operations if op.ok]
    assert len(done) > SECONDS * 4, "too little got through to mean anything"
    assert {op.kind for op in done} >= {
        "create",
        "read",
        "increment",
        "add",
        "remove",
        "set",
        "cas",
        "append",
    }
    # A backup that is restored and seeded again may alone take twenty seconds.
    assert len(report.bitten) >= SECONDS / 25, report.history.faults
    # Judged again from what the run left, without a cluster.
    assert judge(read_history(tmp_path / "history.jsonl"), Final.load(tmp_path / "final.json")) == []


def processes_in(path: Path) -> list[int]:
    found: list[int] = []
    for process in psutil.process_iter():
        try:
            if str(path) in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue  # it ended meanwhile
    return found
