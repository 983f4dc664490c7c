"""`acgs2 latency`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from acgs2.cli.shared import JSON, cluster, console, emit, table

if TYPE_CHECKING:
    from acgs2.local.latency import Waited
    from acgs2.topology import Topology

app = typer.Typer()


@app.command()
def latency(
    place: str = typer.Option("", "--place", help="Only clients of this place."),
    zone: str = typer.Option("", "--zone", help="Only requests about this zone."),
    requests: int = typer.Option(40, "--requests", min=1, max=10_000, help="How many for each pair."),
    writes: bool = typer.Option(
        False, "--writes", help="Create tenants named `acgs2 latency` instead of reading, and erase them."
    ),
    as_json: bool = JSON,
) -> None:
    """Measure how long clients of every place wait for an answer about every zone, through the edge.

    The promise is on what they see of their own zone: its p99 is within objectives.p99_ms. Beside it stands
    the round trip that no answer can do without: to the edge, to the region and, for a write, to its pair.
    Exit status 1 when an own zone is slower, a request failed, or what was written could not be erased.
    """
    import asyncio

    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from acgs2.local.latency import choose_pairs, measure

    found = cluster()
    topology = found.state.topology
    pairs = choose_pairs(topology, place, zone)
    found.ask("status")
    screen = Console(stderr=True)
    columns = (TextColumn("[bold]asking[/]"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=len(pairs) * requests)
        waited = asyncio.run(
            measure(found.state, pairs, requests, writes=writes, on_request=lambda: bar.advance(task))
        )
    rows = [_row(each, topology, writes) for each in waited]
    well = all(row["kept"] is not False and not row["failures"] and not row["left"] for row in rows)
    if as_json:
        emit({"objective_p99_ms": topology.objectives.p99_ms, "writes": writes, "well": well, "pairs": rows})
    else:
        _show(rows, topology.objectives.p99_ms, requests, writes)
    if not well:
        raise typer.Exit(1)


def _row(waited: Waited, topology: Topology, writes: bool) -> dict[str, Any]:
    from acgs2.local.latency import link_ms, spread

    found = spread(waited.took_ms)
    region = waited.region
    link = link_ms(topology, waited.place, region, waited.zone, writes=writes) if region else None
    return {
        "place": waited.place,
        "zone": waited.zone,
        "own": topology.places[waited.place].zone == waited.zone,
        "answered": len(waited.took_ms),
        "failed": waited.failures.total(),
        "failures": dict(waited.failures),
        "regions": dict(waited.regions.most_common()),
        "link_ms": None if link is None else round(link, 2),
        "p50_ms": round(found.p50_ms, 2) if region else None,
        "p99_ms": round(found.p99_ms, 2) if region else None,
        "max_ms": round(found.max_ms, 2) if region else None,
        "kept": waited.kept(topology),
        "left": waited.left,
    }


def _show(rows: list[dict[str, Any]], objective_ms: float, requests: int, writes: bool) -> None:
    out = console()
    what = "a keyed create" if writes else "a read"
    title = f"How long clients wait for {what}, {requests} each"
    shown = table(title, "place", "zone", "region", "link ms", "p50 ms", "p99 ms", "failed#", "own zone")
    promise = {None: "-", True: f"[green]within {objective_ms:g} ms[/]"}
    promise[False] = f"[red]over {objective_ms:g} ms[/]"
    for row in rows:
        shown.add_row(
            row["place"],
            row["zone"],
            _regions(row["regions"]),
            *("-" if row[name] is None else f"{row[name]:.1f}" for name in ("link_ms", "p50_ms", "p99_ms")),
            f"[red]{row['failed']}[/]" if row["failed"] else "0",
            promise[row["kept"]],
        )
    out.print(shown)
    for row in rows:
        who = f"{row['place']}, zone {row['zone']}"
        for failure, count in row["failures"].items():
            out.print(f"[red]{who}: {count} times {failure}[/]")
        if row["left"]:
            out.print(f"[red]{who}: {row['left']} tenants could not be erased[/]")
    if writes and not any(row["left"] for row in rows):
        out.print("What was written is erased again.")


def _regions(answers: dict[str, int]) -> str:
    if len(answers) < 2:
        return next(iter(answers), "-")
    return ", ".join(f"{region} {count / sum(answers.values()):.0%}" for region, count in answers.items())
