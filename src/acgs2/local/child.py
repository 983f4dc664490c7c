"""A process that the supervisor owns, signalled with all its descendants."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import psutil

from acgs2.local.postgres import Owner
from acgs2.logs.read import last_words

__all__ = ["Child", "Phase"]

Phase = Literal["waiting", "starting", "ready", "down", "frozen", "crashed"]
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent(number: int) -> Callable[[], None]:
    """Return what a child runs before exec, so that it gets that signal when its parent is killed."""

    def before_exec() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)

    return before_exec


class Child:
    """One process of one region, or of no region (the links)."""

    def __init__(
        self,
        region: str,
        component: str,
        command: Sequence[str],
        log: Path,
        owner: Owner,
        *,
        stop_signal: int = signal.SIGTERM,
        parent_died_signal: int = signal.SIGKILL,
    ) -> None:
        self.region = region
        self.component = component
        self.phase: Phase = "waiting"
        self.restarts = 0
        self.starts = 0
        self.wanted = False
        self._command = list(command)
        self._log = log
        self._owner = owner
        self._stop_signal = stop_signal
        self._parent_died_signal = parent_died_signal
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Return the process id while the process runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start the process; it appends what it prints to its log."""
        self.wanted = True
        self.starts += 1
        self.phase = "starting"
        with self._log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                start_new_session=True,
                preexec_fn=die_with_parent(self._parent_died_signal),
                **self._owner.popen(),  # type: ignore[arg-type]
            )

    async def wait(self) -> int:
        """Wait for the process to end; return its exit status."""
        return await self._process.wait() if self._process is not None else 0

    async def stop(self, timeout_s: float = 15.0) -> None:
        """Ask the process to stop, and kill it when it does not."""
        self.wanted = False
        if self.pid is None or self._process is None:
            self.phase = "down"
            return
        self._each(signal.SIGCONT)
        self._process.send_signal(self._stop_signal)
        try:
            await asyncio.wait_for(self._process.wait(), timeout_s)
        except TimeoutError:
            await self.kill()
        self.phase = "down"

    async def kill(self) -> None:
        """Kill the process and all its descendants at once."""
        self.wanted = False
        self._each(signal.SIGKILL)
        await self.wait()
        self.phase = "down"

    def freeze(self) -> None:
        """Stop the process and its descendants in their tracks."""
        self._each(signal.SIGSTOP)
        self.phase = "frozen"

    def thaw(self) -> None:
        """Let them go on."""
        self._each(signal.SIGCONT)
        self.phase = "ready"

    def _each(self, number: int) -> None:
        if self.pid is None:
            return
        try:
            root = psutil.Process(self.pid)
            for process in (root, *root.children(recursive=True)):
                process.send_signal(number)
        except psutil.NoSuchProcess:
            return

    def status(self) -> dict[str, object]:
        """Return what there is to say of it; of one that does not run, the last that it said."""
        shown: dict[str, object] = {
            "component": self.component,
            "phase": self.phase,
            "pid": self.pid,
            "restarts": self.restarts,
        }
        return shown | ({"said": self.last_words()} if self.phase == "crashed" else {})

    def last_words(self) -> str:
        """Return the last line of the log."""
        return last_words(self._log)
