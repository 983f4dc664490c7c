"""What the typed builders make, Envoy accepts: of every built-in topology, with traces and without."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from acgs2.drivers.envoy import EdgeSite, GatewaySite, Traffic, edge_files, gateway_files, static
from acgs2.local import pki
from acgs2.local.proxies import find_envoy
from acgs2.plan import rights_of
from acgs2.topology import Topology, load


def validate(path: Path) -> str:
    command = [find_envoy(), "--mode", "validate", "-c", path, "--log-level", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    # What is deprecated or unknown is said as a warning.
    return "" if done.returncode == 0 and not done.stderr else f"{path.name}: {done.stderr}"


TRACED = {"untraced": None, "plain": "http://127.0.0.1:4318", "secure": "https://collector.example"}


def documents(topology: Topology, folder: Path) -> dict[str, str]:
    """Return what every proxy of a topology is told, in one piece each."""
    tls = folder / "tls"
    pki.ensure(tls, topology.domain, topology.regions, datetime.now(UTC))
    places = {place: 20000 + n for n, place in enumerate(topology.places)}
    ways = {(n.a, n.b): 21000 + number for number, n in enumerate(topology.client_links())}
    edge = EdgeSite(folder, tls, folder, places, ways)
    traffic = Traffic(rights_of(topology, datetime.now(UTC)), weights={topology.stacks()[0]: 25})
    region = GatewaySite("", topology.domain, tls, folder / "log", 20000, 20001, 20002, 20003)
    found: dict[str, str] = {}
    for kind, traced in TRACED.items():
        # Each place has ten thousand lines; with traces, one speaks for all.
        ports = places if traced is None else dict([*places.items()][:1])
        resources, _ = edge_files(replace(edge, ports=ports, otlp=traced), topology, traffic, inline=True)
        found[f"edge.{kind}"] = static("edge", resources)
        for number, name in enumerate(topology.regions):
            # Each region once; those with traces and those without take turns.
            if number % 2 == (traced is None):
                egress = {peer: (22000 + n, 23000 + n) for n, peer in enumerate(topology.peers(name))}
                beside = {peer: 24000 + n for n, peer in enumerate(egress)}
                site = replace(region, region=name, egress=egress, neighbours=beside, otlp=traced)
                site = replace(site, limits=topology.front.limits)
                found[name] = static(name, gateway_files(site))
    return found


@pytest.mark.parametrize("name", ["local", "global"])
def test_envoy_accepts_what_it_is_told(name: str, tmp_path: Path) -> None:
    topology = load(name)
    found = documents(topology, tmp_path)
    assert found.keys() == {*(f"edge.{kind}" for kind in TRACED), *topology.regions}
    paths = [tmp_path / f"{document}.json" for document in found]
    for path, text in zip(paths, found.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    with ThreadPoolExecutor(2) as pool:
        assert [said for said in pool.map(validate, paths) if said] == []


def test_what_envoy_does_not_know_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text('{"node": {"id": "x", "cluster": "x", "nonsense": 1}}')
    assert "nonsense" in validate(path)
