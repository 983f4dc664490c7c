"""A full disk is a clear error, and what was acknowledged is there when it has space again."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.cluster.conftest import await_that, folder
from tests.cluster.local.test_cluster import DUO, US, has, write, written

from acgs2.errors import RuntimeFault
from acgs2.local.cluster import up


@contextlib.contextmanager
def disk(megabytes: int) -> Iterator[Path]:
    """A small file system of its own; needs the right to mount."""
    with folder() as path:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=711", "tmpfs", str(path)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"may not mount a small file system: {done.stderr.strip()}")
        try:
            (path / "duo.yaml").write_text(DUO, encoding="utf-8")
            yield path
        finally:
            subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_disk_that_is_too_small_is_a_clear_error() -> None:
    with disk(25) as path:
        with pytest.raises(RuntimeFault) as caught:
            up(path / "duo.yaml", path / "state")
        assert caught.value.reference == "disk-full"
        assert "space" in caught.value.hint


def test_a_disk_that_fills_up_loses_nothing_that_was_acknowledged() -> None:
    with disk(450) as path:
        cluster = up(path / "duo.yaml", path / "state")
        try:
            keys = [written(cluster, US, "us")]
            with contextlib.suppress(OSError), (path / "filler").open("wb") as filler:
                while True:
                    filler.write(b"\x00" * 1_000_000)
                    filler.flush()
            refused = 0
            for _ in range(400):
                try:
                    answer = write(cluster, US, "us", body={"name": "x" * 200})
                except httpx.HTTPError:
                    refused += 1
                    continue
                if answer.status_code == 201:
                    keys.append(answer.json()["id"])
                else:
                    assert answer.status_code == 503, answer.text
                    assert answer.json()["hint"]
                    refused += 1
                if refused > 5:
                    break
            assert refused, "the disk was not full"
            (path / "filler").unlink()
            keys.append(written(cluster, US, "us"))
            for key in keys:
                assert has(cluster, US, key)
                await_that(lambda k=key: has(cluster, "us-west-2", k), "the other region to have it too")
        finally:
            cluster.down()
