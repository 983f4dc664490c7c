"""A topology as a drill wants it: the same regions and law, other settings of failover."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from acgs2.topology import locate

__all__ = ["adapted"]


def adapted(topology: str, folder: Path, **failover: Any) -> Path:
    """Write a copy of a topology and of its constitution; return the topology's path.

    Args:
        topology: a file, or the name of a built-in topology.
        folder: where to.
        failover: settings that take the place of those of its `failover`.
    """
    file = locate(topology)
    body = yaml.safe_load(file.read_text(encoding="utf-8"))
    body["failover"] = {**body.get("failover", {}), **failover}
    beside = file.parent / body["constitution"].get("path", "constitution.yaml")
    if beside.is_file():
        shutil.copyfile(beside, folder / beside.name)
        body["constitution"]["path"] = beside.name
    made = folder / "topology.yaml"
    made.write_text(yaml.safe_dump(body, sort_keys=False), encoding="utf-8")
    return made
