"""`python -m tests.cluster.torture`: what `make torture` runs; or judges a run again from what it left.

The seed decides which faults and operations there are and in which order. When exactly each happens, and so what
each meets, differs from run to run: a finding may need several runs of its seed to show itself again.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.conftest import folder
from tests.cluster.torture.run import TOPOLOGY, Report, torture

from acgs2.drill.checks import Broken, judge
from acgs2.drill.history import read_history
from acgs2.drill.states import Final
from acgs2.local.cluster import up


def say(text: str) -> None:
    print(text, flush=True)


def show(broken: list[Broken]) -> int:
    for found in broken[:100]:
        say(f"BROKEN {found.check}: {found.what}")
    say(f"{len(broken)} broken promises" if broken else "every promise was kept")
    return 1 if broken else 0


def tell(report: Report) -> int:
    counts = {kind: dict(sorted(found.items())) for kind, found in sorted(report.outcomes.items())}
    for kind, found in counts.items():
        say(f"{kind:12} " + "  ".join(f"{outcome} {n}" for outcome, n in found.items()))
    faults = report.history.faults
    say(
        f"{len(faults)} faults of {len({f.name for f in faults})} kinds, {sum(1 for f in faults if f.bitten)} are known to have bitten"
    )
    how = "after acgs2 repair" if report.repaired else "by themselves"
    say(
        "the regions do not agree"
        if report.agreed_s is None
        else f"the regions agreed after {report.agreed_s} s, {how}"
    )
    return max(show(report.broken), report.agreed_s is None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long the nemesis runs")
    parser.add_argument(
        "--seed", type=int, default=None, help="which faults and operations; chosen at random if left out"
    )
    parser.add_argument("--gap", type=float, default=5.0, help="seconds between two faults, on average")
    parser.add_argument("--out", type=Path, default=None, help="where history and final states are left")
    parser.add_argument(
        "--judge", type=Path, default=None, help="judge again what an earlier run left in this folder"
    )
    given = parser.parse_args()
    if given.judge:
        return show(
            judge(read_history(given.judge / "history.jsonl"), Final.load(given.judge / "final.json"))
        )
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    out = given.out or Path(tempfile.mkdtemp(prefix=f"acgs2-torture-{seed}-"))
    out.mkdir(parents=True, exist_ok=True)
    say(
        f"seed {seed}: replay with make torture MINUTES={given.minutes:g} SEED={seed}; the run is left in {out}"
    )
    # However it is told to stop, what it started is stopped first.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with folder() as path:
        (path / "torture.yaml").write_text(TOPOLOGY, encoding="utf-8")
        began_s = time.monotonic()
        cluster = up(path / "torture.yaml", path / "state")
        say(f"{len(cluster.state.topology.regions)} regions are up after {time.monotonic() - began_s:.1f} s")
        try:
            status = tell(torture(cluster, seed, given.minutes * 60, out, say, gap_s=given.gap))
        finally:
            cluster.down()
        if status:
            shutil.copytree(cluster.state.logs, out / "logs", dirs_exist_ok=True)
            say(f"the logs of all regions are in {out / 'logs'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
