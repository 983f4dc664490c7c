"""Tests against other people's programs and servers.

Without the program a test is skipped and says what is missing. With ACGS2_CONFORMANCE=required, as in CI, it
fails: there, a test that silently does not run would be worth nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from tests.cluster.conftest import folder
from tests.conformance.etcd import Etcd

__all__ = ["etcd", "etcd_program", "need"]


def need(program: str, package: str) -> str:
    """Return the path of a program; skip the test without it, or fail where conformance is required.

    Args:
        program: its name, found by PATH.
        package: Debian's package that has it, for the reason.
    """
    path = shutil.which(program)
    if path is None:
        missing(f"{program} is not installed; Debian has it: apt-get install {package}")
    return str(path)


def missing(reason: str) -> None:
    """Skip the test for what is missing, or fail it where conformance is required."""
    if os.environ.get("ACGS2_CONFORMANCE") == "required":
        pytest.fail(f"ACGS2_CONFORMANCE=required, and {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def etcd_program() -> str:
    """The path of Debian's etcd."""
    return need("etcd", "etcd-server")


@pytest.fixture
def etcd(etcd_program: str) -> Iterator[Etcd]:
    """Three members of etcd, new for every test."""
    with folder() as path, Etcd(etcd_program, path).running() as cluster:
        yield cluster
