"""An etcd of several members on loopback: real processes, started and stopped by id."""

from __future__ import annotations

import os
import platform
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from tests.cluster.conftest import await_that, free_port

__all__ = ["Etcd"]

#: Debian builds etcd for architectures that upstream did not support yet; it then wants to be told so.
_ARCHITECTURES = {"aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}


class Etcd:
    """Members m0, m1, ... in a folder.

    Args:
        program: the path of etcd.
        path: where members keep data and logs.
        count: how many members.
        flags: more for every member.
        tls: how clients speak https with it, where the flags say so.
    """

    def __init__(
        self,
        program: str,
        path: Path,
        count: int = 3,
        *,
        flags: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.members: Sequence[str] = [f"m{number}" for number in range(count)]
        scheme = "https" if tls else "http"
        self.urls: Mapping[str, str] = {m: f"{scheme}://127.0.0.1:{free_port()}" for m in self.members}
        self._program, self._path, self._flags, self._tls = program, path, list(flags), tls
        self._peers = {m: f"http://127.0.0.1:{free_port()}" for m in self.members}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def endpoints(self) -> list[str]:
        """Return the members' client URLs."""
        return list(self.urls.values())

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Run all members until the block ends."""
        try:
            for member in self.members:
                self._launch(member)
            for member in self.members:
                self._await(member)
            yield self
        finally:
            for process in self._processes.values():
                process.kill()  # a frozen one as well
                process.wait()

    def kill(self, member: str) -> None:
        """End a member at once; its data stays."""
        self._processes[member].kill()
        self._processes[member].wait()

    def start(self, member: str) -> None:
        """Start a member that was killed; it may take a moment to join the others."""
        self._launch(member)

    def freeze(self, member: str) -> None:
        """Stop a member in its tracks."""
        self._processes[member].send_signal(signal.SIGSTOP)

    def thaw(self, member: str) -> None:
        """Let it go on."""
        self._processes[member].send_signal(signal.SIGCONT)

    def _launch(self, member: str) -> None:
        command = [self._program, "--name", member, "--data-dir", str(self._path / member)]
        command += ["--listen-client-urls", self.urls[member], "--advertise-client-urls", self.urls[member]]
        command += ["--listen-peer-urls", self._peers[member]]
        command += ["--initial-advertise-peer-urls", self._peers[member]]
        command += ["--initial-cluster", ",".join(f"{m}={url}" for m, url in self._peers.items())]
        command += ["--initial-cluster-token", str(self._path), "--logger", "zap", "--log-level", "error"]
        kind = _ARCHITECTURES.get(platform.machine())
        given = {k: v for k, v in os.environ.items() if not k.startswith("ETCD_")}
        with (self._path / f"{member}.log").open("ab") as log:
            self._processes[member] = subprocess.Popen(
                [*command, *self._flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=given | ({"ETCD_UNSUPPORTED_ARCH": kind} if kind else {}),
            )

    def _await(self, member: str) -> None:
        process, began_s = self._processes[member], time.monotonic()

        def answers() -> bool:
            log = (self._path / f"{member}.log").read_text(encoding="utf-8", errors="replace")
            assert process.poll() is None, f"{member} ended after {time.monotonic() - began_s:.1f} s: {log}"
            try:
                return _get(f"{self.urls[member]}/health", self._tls)["health"] == "true"
            except (httpx.HTTPError, ValueError):
                return False

        await_that(answers, f"{member} to be healthy", 60)


def _get(url: str, tls: ssl.SSLContext | None) -> Any:
    with httpx.Client(verify=tls or True, timeout=2, trust_env=False) as client:
        return client.get(url).json()
