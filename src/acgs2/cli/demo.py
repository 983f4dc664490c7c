"""`acgs2 demo`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from acgs2.cli.shared import JSON, console, emit, state_path, table

if TYPE_CHECKING:
    from acgs2.drill.demo import Report

app = typer.Typer()


@app.command()
def demo(
    seconds: float = typer.Option(6, "--seconds", min=1, max=120, help="How long to write."),
    keep: bool = typer.Option(False, "--keep", help="Leave the cluster running."),
    seed: int = typer.Option(1, "--seed", help="Seed of the random writes."),
    as_json: bool = JSON,
) -> None:
    """Bring four regions and a witness up, write everywhere, cut a link, kill a region; show what is where.

    Every figure is read from the databases or seen by the clients. Leaves nothing running unless --keep.
    Exit status 1 when a promise was not kept.
    """
    import asyncio
    from dataclasses import asdict
    from random import Random

    from acgs2.cli.up import progress_lines
    from acgs2.drill.demo import run_demo
    from acgs2.errors import InputError
    from acgs2.local.cluster import Cluster
    from acgs2.local.cluster import up as bring_up
    from acgs2.local.state import default_path

    out = console()
    quiet: Any = lambda *_: None  # noqa: E731 - a callback that does nothing
    named = state_path()
    path = named or default_path("demo")
    if (path / "state.json").exists() and not keep:
        if named is not None:
            raise InputError(
                "cluster-there",
                f"There is a cluster in {named}, and a demo removes what it has made.",
                hint="Name another directory, or none: a demo has one of its own; with --keep it stays.",
            )
        Cluster.open(path).destroy()
    began_s = time.monotonic()
    cluster = bring_up("local", path, on_progress=quiet if as_json else progress_lines(out))
    if not as_json:
        out.print(
            f"{len(cluster.state.topology.regions)} regions are up after {time.monotonic() - began_s:.1f} s\n"
        )
    try:
        say = (
            quiet
            if as_json
            else lambda text: out.print(f"[dim]{time.monotonic() - began_s:5.1f} s[/]  {text}")
        )
        report = asyncio.run(run_demo(cluster, seconds, say, Random(seed)))
    finally:
        if not keep:
            cluster.destroy()
    if as_json:
        emit(asdict(report) | {"good": report.good})
    else:
        _print(out, cluster, report, keep)
    raise typer.Exit(0 if report.good else 1)


def _print(out: Any, cluster: Any, report: Report, keep: bool) -> None:
    _tables(out, cluster, report)
    _verdict(out, report)
    out.print(
        "\nTry next: acgs2 up; acgs2 status; acgs2 chaos link us-east-1 eu-west-1 --cut; "
        "acgs2 topology lint guide"
    )
    out.print(
        f"Still running in {cluster.state.path}; stop with acgs2 --state {cluster.state.path} down"
        if keep
        else "Nothing is left running."
    )


def _tables(out: Any, cluster: Any, report: Report) -> None:
    zones = list(cluster.state.topology.zones)
    placed = table(
        "\nWhere each zone's records are (read from every database)", "region", *(f"{z}#" for z in zones)
    )
    for region in cluster.state.topology.regions:
        row = report.placement.get(region, {})
        placed.add_row(region, *(str(row.get(z, "-")) for z in zones))
    out.print(placed)
    lost = table(
        "\nConcurrent changes and how they were resolved",
        "entity",
        "field",
        "strategy",
        "lost value",
        "lost in",
        "won in",
        "kept in",
    )
    for row in report.conflicts[:8]:
        lost.add_row(
            row["entity"],
            row["field"] or "(all)",
            row["strategy"],
            str(row["lost"])[:40],
            row["lost_in"],
            row["won_in"],
            ", ".join(row["kept_in"]),
        )
    out.print(lost)
    links = table("\nLag per link, the cut included", "from", "to", "link ms", "p50 ms", "p99 ms", "samples#")
    for row in report.lag:
        links.add_row(
            row["from"],
            row["to"],
            f"{row['link_ms']:.1f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
            str(row["samples"]),
        )
    out.print(links)
    writes = table("\nAcknowledged writes, as clients saw them", "zone", "p50 ms", "p99 ms", "durable in")
    for zone, (p50_ms, p99_ms) in report.write_ms.items():
        writes.add_row(
            zone,
            f"{p50_ms:.1f}",
            f"{p99_ms:.1f}",
            " and ".join(cluster.state.topology.pair_of(zone)) or "one region",
        )
    out.print(writes)


def _verdict(out: Any, report: Report) -> None:
    verdict = report.verdict
    out.print(f"\n{report.acknowledged} writes acknowledged; refused: {report.refused or 'none'}")
    _line(
        out, report.converged_s is not None, f"all regions agreed {report.converged_s} s after the last write"
    )
    _line(out, not verdict.misplaced, f"{len(verdict.misplaced)} records where they may not be")
    _line(out, not verdict.lost, f"{len(verdict.lost)} acknowledged records lost")
    _line(
        out,
        not report.paired_lost,
        f"{report.killed} was killed; of {report.paired_acknowledged} writes that it had "
        f"acknowledged for its pair, the other region lacks {report.paired_lost}",
    )


def _line(out: Any, good: bool, text: str) -> None:
    out.print(f"{'[green]kept[/]  ' if good else '[red]BROKEN[/]'} {text}")
