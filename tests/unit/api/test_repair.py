"""What a region does that has nobody to compare with."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from acgs2.api.region import Config, RegionServer
from acgs2.api.repair import run_repair
from acgs2.api.tokens import create_keys
from acgs2.topology import parse

ALONE = """name: alone
domain: d.example
constitution: {id: cdd01ef066bc6cf2}
regions:
  eu-west-1: {country: IE}
zones:
  eu: {regulation: gdpr, regions: [eu-west-1]}
"""


def config(folder: Path) -> Config:
    create_keys(folder)
    return Config(
        region="eu-west-1",
        topology="",
        listen_port=1,
        database="",
        owner_database="",
        peers={},
        peer_databases={},
        life_path="",
        jwks_path=str(folder / "jwks.json"),
    )


def test_a_region_alone_lets_others_run(tmp_path: Path) -> None:
    async def both() -> None:
        server = RegionServer(config(tmp_path), parse(ALONE))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_repair(server), 0.05)

    signal.alarm(10)  # ends the process, if nothing else can
    try:
        asyncio.run(both())
    finally:
        signal.alarm(0)
