"""Drills over and over on one cluster: percentiles of what a single drill says once.

    python -m benchmarks.failover [--runs 20] [--faults kill,cut] [--baseline 5] [--minutes 240] [--to FILE] [--lock FILE]
    python -m benchmarks.failover --table FILE

Faults take turns, so that whatever else the machine does falls on all of them. Each run is appended to a file as one
line of JSON: whoever begins again with the same file goes on where it was left. A run that broke off is a line as
well, and the next one has a cluster of its own.

The baseline is the same `kill` with failover.automatic: false, now and then in between: edge, pairs and leases do
what they do by themselves, and nobody begins a plan.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from benchmarks.failover_table import NO_PLANS, Row, numbers_of, read, show

from acgs2.drill.adapted import adapted
from acgs2.drill.ending import end_on_sigterm
from acgs2.drill.outages import OUTAGES
from acgs2.drill.report import Report, not_run
from acgs2.drill.run import Settings, run_drill
from acgs2.errors import AcgsError
from acgs2.local.cluster import Cluster, up
from acgs2.local.state import default_path

DWELL_S = 1
SETTINGS = Settings(rate_per_s=20, steady_s=3, hold_s=6, limit_s=30, after_s=1)
#: A drill that takes longer than this hangs.
RUN_S = 400.0


class TimeOver(Exception):
    """There is no time left to wait for the others of this machine."""


class Stage:
    """The cluster that drills run on: one at a time, with plans or without, a new one where the old is broken."""

    def __init__(self, topology: str) -> None:
        self._name = topology
        self._automatic: bool | None = None
        self._stack = ExitStack()
        self._cluster: Cluster | None = None

    def cluster(self, *, automatic: bool) -> Cluster:
        """Return a cluster that is up."""
        if self._cluster is None or self._automatic is not automatic:
            self.close()
            self._automatic = automatic
            self._cluster = self._stack.enter_context(self._running())
        return self._cluster

    def close(self) -> None:
        """Leave nothing of it."""
        self._cluster = None
        self._stack.close()

    @contextmanager
    def _running(self) -> Iterator[Cluster]:
        with tempfile.TemporaryDirectory(prefix="acgs2-bench-", ignore_cleanup_errors=True) as made:
            folder = Path(made)
            folder.chmod(0o711)
            topology = adapted(self._name, folder, dwell_s=DWELL_S, automatic=self._automatic)
            try:
                yield up(topology, folder / "state")
            finally:
                if (folder / "state").exists():  # also where it was ended while it came up
                    Cluster.open(folder / "state").down()


def due(rows: Sequence[Row], wanted: dict[str, int]) -> str | None:
    """Return whose turn it is: the one that is furthest behind; None where all have their runs."""
    done = {name: sum(row["fault"] == name for row in rows) for name in wanted}
    behind = [name for name, want in wanted.items() if done[name] < want]
    return min(behind, key=lambda name: done[name] / wanted[name], default=None)


@contextmanager
def turn(path: Path | None, until_s: float) -> Iterator[None]:
    """Hold a lock that others on the machine take as well; raises TimeOver where it does not come in time."""
    if path is None:
        yield
        return

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeOver

    with path.open("a", encoding="utf-8") as file:
        signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, max(0.01, until_s - time.monotonic()))
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        yield


async def drilled(cluster: Cluster, fault: str) -> Report:
    async with asyncio.timeout(RUN_S):
        return await run_drill(cluster, fault, "", SETTINGS, lambda event: None, lambda line: None)


def one(stage: Stage, name: str) -> Row:
    """Run a drill and return its line; a cluster on which something was left undone is given up."""
    began_s, fault = time.monotonic(), name.removesuffix(NO_PLANS)
    began_at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    whole = False
    try:
        report = asyncio.run(drilled(stage.cluster(automatic=fault == name), fault))
        # A failback that was stopped is an operator's, and a region that is not ready is no ground to begin on.
        whole = report.recovered_s is not None and not any(b.startswith("failback") for b in report.broken)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is a line of the file, and the next run goes on
        report = not_run(fault, "", "local", SETTINGS.rate_per_s, error)
    row = numbers_of(name, report) | {"began_at": began_at, "load": round(os.getloadavg()[0], 1)}
    if not whole:
        try:
            stage.close()
        except AcgsError as error:
            row["raised"] = row["raised"] or f"{error.reference}: {error}"
    return row | {"took_s": round(time.monotonic() - began_s, 1)}


def said(number: int, row: Row) -> str:
    if row["raised"]:
        return f"run {number}, {row['fault']}: broke off after {row['took_s']} s: {row['raised']}"
    parts = ", ".join(
        f"{name} {row[name]}" for name in ("detected_s", "served_s", "failback_s", "failed", "lost")
    )
    missed = f"; missed: {'; '.join(row['missed'])}" if row["missed"] else ""
    return f"run {number}, {row['fault']}: {parts}; {row['took_s']} s at load {row['load']}{missed}"


def measure(to: Path, wanted: dict[str, int], until_s: float, lock: Path | None) -> None:
    """Run what is due until all have their runs or the time is over."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if to.exists() and (text := to.read_text(encoding="utf-8")) and not text.endswith("\n"):
        to.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")  # a line that was cut off
    stage = Stage("local")
    try:
        while (name := due(rows := read(to), wanted)) and time.monotonic() < until_s:
            with turn(lock, until_s):
                row = one(stage, name)
            with to.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(said(len(rows) + 1, row), flush=True)
    except TimeOver:
        print("The time is over.", flush=True)
    finally:
        stage.close()


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=int, default=20, help="of every fault, those of earlier times included"
    )
    parser.add_argument("--faults", default=",".join(OUTAGES), help="with commas between")
    parser.add_argument("--baseline", type=int, default=5, help="runs of kill without plans")
    parser.add_argument("--minutes", type=float, default=300, help="after which no run begins any more")
    parser.add_argument("--to", type=Path, help="the file that runs are appended to")
    parser.add_argument("--lock", type=Path, help="a file that is locked during each run and free in between")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="print the tables of a file, and run nothing"
    )
    chosen = parser.parse_args()
    to: Path = chosen.table or chosen.to or default_path("failover").with_suffix(".jsonl")
    if chosen.table is None:
        faults: list[str] = chosen.faults.split(",")
        if unknown := [fault for fault in faults if fault not in OUTAGES]:
            parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(OUTAGES)}")
        wanted = {**dict.fromkeys(faults, int(chosen.runs)), f"kill{NO_PLANS}": int(chosen.baseline)}
        # Whoever ends it ends the cluster as well; as Ctrl-C, which asyncio waits for.
        end_on_sigterm()
        try:
            measure(to, wanted, time.monotonic() + chosen.minutes * 60, chosen.lock)
        except KeyboardInterrupt:
            print("Ended early.", flush=True)
    rows = read(to)
    print(show(rows) if rows else "There are no runs yet.")


if __name__ == "__main__":
    main()
