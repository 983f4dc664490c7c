"""`acgs2 up`."""

from __future__ import annotations

from typing import Any

import typer

from acgs2.cli.shared import JSON, console, emit, state_path

app = typer.Typer()

_STEPS = {
    "starting": "starting",
    "template": "preparing one database",
    "databases": "starting databases",
    "servers": "starting servers",
    "links": "linking regions, opening the edge",
    "ready": "ready",
}


def progress_lines(out: Any) -> Any:
    """Return a callback that prints a line per step and per region that became ready."""
    seen: set[str] = set()

    def show(status: dict[str, Any]) -> None:
        step = str(_STEPS.get(status["step"], status["step"]))
        if step not in seen:
            seen.add(step)
            out.print(f"[bold]{step}[/]")
        for region, components in status["regions"].items():
            for each in components:
                what = f"{region} {each['component']}"
                if each["phase"] == "ready" and what not in seen:
                    seen.add(what)
                    out.print(f"  {region:<16} {each['component']:<9} [green]ready[/]")

    return show


@app.command()
def up(
    topology: str = typer.Argument("local", help="A topology file, or local, global, guide."),
    as_json: bool = JSON,
) -> None:
    """Bring the regions of a topology up on this machine, or go on with what is there.

    Starts a PostgreSQL, a server and a gateway per region, an edge with a point of presence per place,
    and one process for all links, with the real distances.
    A second `up` resumes, also after everything was killed. Stop it with `acgs2 down`.
    """
    import time

    from acgs2.local.cluster import up as bring_up

    out = console()
    began_s = time.monotonic()
    cluster = bring_up(
        topology, state_path(), on_progress=(lambda _: None) if as_json else progress_lines(out)
    )
    took_s = time.monotonic() - began_s
    state = cluster.state
    regions = {name: state.url(name) for name in state.topology.regions}
    gateways = {name: state.gateway_url(name) for name in regions}
    edge = {place: state.edge_url(place) for place in state.topology.places}
    if as_json:
        emit(
            {
                "state": str(state.path),
                "regions": regions,
                "gateways": gateways,
                "edge": edge,
                "trust": str(state.trust),
                "took_s": round(took_s, 2),
            }
        )
        return
    out.print(f"{len(regions)} regions are up after {took_s:.1f} s; state in {state.path}")
    for place, url in edge.items():
        out.print(f"  edge for clients in {place:<16} {url}")
    out.print("Next: `acgs2 status`, `acgs2 lag`, `acgs2 chaos --help`; stop with `acgs2 down`.")
