"""What an Envoy is told: the guide's figures, and files that are whole, or as they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from acgs2.drivers.envoy import GatewaySite, gateway_files, http_api, static, write
from acgs2.drivers.envoy.files import Resources

SITE = GatewaySite(
    "eu-west-1", "acgs2.example", Path("/tls"), Path("/log"), 1, 2, 3, 4, {"us-east-1": (5, 6)}
)


def find(value: Any, name: str) -> Iterator[Any]:
    """Yield what stands under a name, wherever."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == name:
                yield inner
            yield from find(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from find(inner, name)


def test_a_gateway_has_the_guides_figures() -> None:
    told = json.loads(static("x", gateway_files(SITE)))
    breakers, waiting = find(told, "thresholds")
    assert (breakers[0]["max_connections"], breakers[0]["max_pending_requests"]) == (100, 10)
    assert waiting[0]["max_connections"] == 1024, "who waits takes no connection from the others"
    outlier, _ = find(told, "outlier_detection")
    assert outlier["consecutive_local_origin_failure"] == 5
    assert outlier["enforcing_consecutive_local_origin_failure"] == 100
    assert (outlier["interval"], outlier["base_ejection_time"]) == ("10s", "30s")
    assert outlier["max_ejection_percent"] == 50
    actions = [a for a in find(told, "route") if isinstance(a, dict)]
    assert {a["cluster"] for a in actions} == {"server", "waiting", "health"}
    for action in (a for a in actions if a["cluster"] == "server"):
        assert action["timeout"] == "30s"
        assert action["retry_policy"]["num_retries"] == 3
        assert action["retry_policy"]["per_try_timeout"] == "10s"


def test_nothing_listens_but_on_this_machine() -> None:
    told = json.loads(static("x", gateway_files(SITE)))
    assert {a["address"] for a in find(told, "socket_address")} == {"127.0.0.1"}


def test_only_what_has_changed_is_written(tmp_path: Path) -> None:
    table = http_api.RouteConfiguration(name="p", virtual_hosts=[])
    made = replace(gateway_files(SITE), routes={"p": table})
    folder = tmp_path / "new"
    assert write(folder, made) == ["clusters.json", "routes.p.json", "listeners.json"]
    assert write(folder, made) == []
    files = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert write(folder, Resources(made.listeners, made.clusters[:1], made.routes)) == ["clusters.json"]
    after = {path.name: path.stat().st_ino for path in folder.iterdir()}
    # Moved into place, not written over: Envoy never reads half of it.
    assert {name for name, inode in after.items() if files[name] != inode} == {"clusters.json"}
    assert after.keys() == {"clusters.json", "routes.p.json", "listeners.json"}
