"""A local cluster from outside: up, down, status. What commands, tests and benchmarks use."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from acgs2.errors import InputError, RuntimeFault
from acgs2.local.control import ask, raise_answer
from acgs2.local.state import State, create_state, default_path, open_state
from acgs2.logs.read import last_words
from acgs2.topology import Topology, load, locate

__all__ = ["Cluster", "up"]

Progress = Callable[[dict[str, Any]], None]


class Cluster:
    """A handle on the cluster of a state directory."""

    def __init__(self, state: State) -> None:
        self.state = state

    @classmethod
    def open(cls, path: Path | None = None) -> Cluster:
        """Open the cluster in a state directory; raises RuntimeFault `no-cluster`."""
        return cls(open_state(path or default_path()))

    def ask(self, action: str, **request: Any) -> dict[str, Any]:
        """Ask the supervisor; raises RuntimeFault `not-running`."""
        return ask(
            self.state.ports["supervisor"],
            self.state.secrets["supervisor"],
            {"action": action, **request},
            timeout_s=90,
        )

    def link(self, action: str, a: str = "", b: str = "", **request: Any) -> dict[str, Any]:
        """Ask the links process to cut, restore or change a link."""
        return ask(
            self.state.ports["links"],
            self.state.secrets["links"],
            {"action": action, "a": a, "b": b, **request},
        )

    def adopt(self, topology: Topology, text: str) -> None:
        """Have the supervisor go by a changed topology; raises RuntimeFault if something does not come up.

        Args:
            topology: what the cluster shall run by; regions that it lacks have been retired.
            text: the topology file that says so.
        """
        self.state = self.state.adopt(topology, text)
        self.ask("adopt")

    def clock(self, region: str, offset_ms: float) -> None:
        """Set how far a region's time is ahead of the machine's; its database is given that time at once.

        Raises:
            InputError: there is no such region (`unknown-region`).
        """
        if region not in self.state.topology.regions:
            raise InputError(
                "unknown-region",
                f"There is no region {region}.",
                hint=f"Regions: {', '.join(self.state.topology.regions)}.",
            )
        try:
            with psycopg.connect(
                self.state.dsn(region, "acgs_owner"), autocommit=True, connect_timeout=5
            ) as conn:
                conn.execute(b"UPDATE acgs.self SET clock_offset_us = %s", (round(offset_ms * 1000),))
                conn.execute(b"SELECT acgs.refresh_rules()")
        except psycopg.OperationalError as error:
            raise RuntimeFault(
                "not-running", f"The database of {region} does not answer.", hint="Start it first."
            ) from error

    def running(self) -> bool:
        """Return whether the supervisor answers."""
        try:
            self.ask("status")
        except RuntimeFault:
            return False
        return True

    def down(self, timeout_s: float = 60.0) -> None:
        """Stop every process; returns when the last has ended.

        Raises:
            RuntimeFault: it takes too long (`not-stopping`).
        """
        try:
            self.ask("stop")
        except RuntimeFault as error:
            if error.reference != "not-running":
                raise
            return
        deadline_s = time.monotonic() + timeout_s
        while self.running():
            if time.monotonic() > deadline_s:
                raise RuntimeFault("not-stopping", "The cluster does not stop.", hint="See `acgs2 logs`.")
            time.sleep(0.05)

    def destroy(self) -> None:
        """Stop everything and remove the state directory with all its data."""
        self.down()
        shutil.rmtree(self.state.path)


def up(
    topology: str | Path = "local",
    path: Path | None = None,
    *,
    on_progress: Progress = lambda _: None,
    timeout_s: float = 180.0,
) -> Cluster:
    """Bring a cluster up, or go on with the one in the state directory.

    Args:
        topology: a file, or the name of a built-in topology.
        path: the state directory.
        on_progress: called with the supervisor's status whenever it changed.
        timeout_s: how long it may take.

    Raises:
        AcgsError: what went wrong, with what to do.
    """
    name = load(topology).name
    state = create_state((path or default_path(name)).absolute(), locate(topology))
    cluster = Cluster(state)
    with state.locked():
        if not cluster.running():
            with (state.logs / "supervisor.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "acgs2.local.supervisor", str(state.path)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    start_new_session=True,
                )
            _await_ready(cluster, process, on_progress, timeout_s)
        else:
            _restart_dead(cluster)
    return cluster


def _await_ready(
    cluster: Cluster, process: subprocess.Popen[bytes], on_progress: Progress, timeout_s: float
) -> None:
    deadline_s = time.monotonic() + timeout_s
    last: dict[str, Any] = {}
    while True:
        try:
            status = cluster.ask("status")
        except RuntimeFault as error:
            if process.poll() is not None:
                raise RuntimeFault(
                    "supervisor-failed",
                    f"The supervisor ended: {last_words(cluster.state.logs / 'supervisor.log')}",
                    hint=f"See {cluster.state.logs / 'supervisor.log'}.",
                ) from error
            status = {}
        if status and status != last:
            on_progress(status)
            last = status
        if status.get("failure"):
            cluster.down()
            raise_answer(status["failure"])
        if status.get("step") == "ready":
            return
        if time.monotonic() > deadline_s:
            cluster.down()
            raise RuntimeFault(
                "not-ready", f"The cluster is not ready after {timeout_s:g} s.", hint="See `acgs2 logs`."
            )
        time.sleep(0.05)


def _restart_dead(cluster: Cluster) -> None:
    """Start what was killed on purpose since."""
    for region, components in cluster.ask("status")["regions"].items():
        for component in components:
            if component["phase"] == "down":
                cluster.ask("start", region=region, component=component["component"])
            elif component["phase"] == "frozen":
                cluster.ask("thaw", region=region, component=component["component"])
