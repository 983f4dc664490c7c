"""`acgs2 status`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import typer

from acgs2.cli.shared import JSON, call, cluster, console, emit, table
from acgs2.errors import AcgsError

app = typer.Typer()
_COLOURS = {"ready": "green", "down": "red", "crashed": "red", "frozen": "cyan"}


@app.command()
def status(as_json: bool = JSON) -> None:
    """Show regions and their processes, lag per link, zones and where their data is, open incidents.

    Exit status 0 when every process is ready, 5 otherwise.
    """
    found = cluster()
    state = found.ask("status")
    regions = list(found.state.topology.regions)
    with ThreadPoolExecutor(len(regions)) as pool:
        seen = dict(zip(regions, pool.map(lambda r: _look(found, r), regions), strict=True))
    well = all(c["phase"] == "ready" for parts in state["regions"].values() for c in parts)
    leader = _leader(seen)
    if as_json:
        emit({"ready": well, "leader": leader, "processes": state["regions"], "regions": seen})
        raise typer.Exit(0 if well else 5)
    out = console()
    shown = table("Regions", "region", "role", "database", "server", "gateway", "zones held", "incidents#")
    for region in regions:
        parts = {c["component"]: c["phase"] for c in state["regions"].get(region, [])}
        held = ", ".join(
            f"{zone} {sum(kinds.values())}" for zone, kinds in seen[region].get("holdings", {}).items()
        )
        phases = [_phase(parts.get(p, "-")) for p in ("postgres", "server", "gateway")]
        shown.add_row(
            region,
            found.state.topology.regions[region].role,
            *phases,
            held or "-",
            str(seen[region].get("incidents_open", "-")),
        )
    out.print(shown)
    for name in ("edge", "links"):
        for part in state["regions"].get(name, []):
            out.print(f"{name}: {_phase(part['phase'])}")
    for region in [*regions, "edge", "links"]:
        for part in state["regions"].get(region, []):
            if "said" in part:
                out.print(f"[red]{region} {part['component']}:[/] {part['said']}", soft_wrap=True)
    links = table("\nLag of the last minute", "from", "to", "link one way ms", "p50 ms", "p99 ms")
    delays = {frozenset((n.a, n.b)): n.rtt_ms / 2 for n in found.state.topology.links()}
    for region in regions:
        for row in seen[region].get("lag", []):
            links.add_row(
                row["source"],
                region,
                f"{delays[frozenset((row['source'], region))]:.1f}",
                f"{row['p50_ms']:.1f}",
                f"{row['p99_ms']:.1f}",
            )
    out.print(links)
    zones = table("\nZones", "zone", "regulation", "home regions", "acknowledged in")
    for name, zone in found.state.topology.zones.items():
        pair = " and ".join(found.state.topology.pair_of(name)) or "one region"
        for region in regions:
            if since := seen[region].get("alone", {}).get(name):
                pair = f"[yellow]{region} alone since {since[:19]}[/]"
        zones.add_row(name, zone.regulation, ", ".join(zone.regions), pair)
    out.print(zones)
    out.print(f"\nLeader: {leader['region']} in term {leader['term']}" if leader else "\nNo region leads.")
    raise typer.Exit(0 if well else 5)


def _phase(phase: str) -> str:
    return f"[{_COLOURS.get(phase, 'yellow')}]{phase}[/]"


def _leader(seen: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """Return the region that says of itself that it leads; of two that were asked in turn, the later term."""
    claims = [
        {"region": region, "term": health["leader"]["term"]}
        for region, health in seen.items()
        if health.get("leader", {}).get("held_here")
    ]
    return max(claims, key=lambda claim: claim["term"], default=None)


def _look(found: Any, region: str) -> dict[str, Any]:
    try:
        health = call(found, region, "GET", "/health")
        return {
            **health,
            "lag": call(found, region, "GET", "/api/v1/lag"),
            "holdings": call(found, region, "GET", "/api/v1/holdings"),
        }
    except AcgsError as error:
        return {"status": "away", "reason": error.message}
