"""What several benchmarks share: a cluster of their own, and a token for it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acgs2.api.tokens import mint
from acgs2.local.cluster import Cluster, up


@contextmanager
def running(topology: str) -> Iterator[Cluster]:
    """Run a cluster for a benchmark, and leave nothing of it."""
    folder = Path(tempfile.mkdtemp(prefix="acgs2-bench-"))
    folder.chmod(0o711)
    try:
        (folder / "topology.yaml").write_text(topology, encoding="utf-8")
        cluster = up(folder / "topology.yaml", folder / "state")
        try:
            yield cluster
        finally:
            cluster.down()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bearer(cluster: Cluster) -> str:
    key = cluster.state.path / "secrets" / "signing.json"
    return mint(key, "bench", "operator", cluster.state.topology.name, int(time.time()), lifetime_s=6 * 3600)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
