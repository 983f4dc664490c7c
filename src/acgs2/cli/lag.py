"""`acgs2 lag`."""

from __future__ import annotations

import typer

from acgs2.cli.shared import JSON, call, cluster, console, emit, table
from acgs2.errors import AcgsError

app = typer.Typer()


@app.command()
def lag(
    window_s: int = typer.Option(60, "--window", min=1, max=300, help="Seconds to look back."),
    as_json: bool = JSON,
) -> None:
    """Show how long changes were under way per link, beside the link's own delay.

    Measured where they arrive: from the writing statement to the merge, heartbeats and a sample of records.
    """
    found = cluster()
    delays = {frozenset((n.a, n.b)): n.rtt_ms / 2 for n in found.state.topology.links()}
    rows: list[dict[str, object]] = []
    away: list[str] = []
    for region in found.state.topology.regions:
        try:
            for row in call(found, region, "GET", "/api/v1/lag", params={"window_s": window_s}):
                delay_ms = delays[frozenset((row["source"], region))]
                rows.append(
                    {
                        "from": row["source"],
                        "to": region,
                        "samples": row["samples"],
                        "link_ms": delay_ms,
                        "p50_ms": row["p50_ms"],
                        "p99_ms": row["p99_ms"],
                    }
                )
        except AcgsError:
            away.append(region)
    if as_json:
        emit({"links": rows, "away": away})
        return
    shown = table(f"Lag of the last {window_s} s", "from", "to", "samples#", "link ms", "p50 ms", "p99 ms")
    for row in rows:
        shown.add_row(
            str(row["from"]),
            str(row["to"]),
            str(row["samples"]),
            f"{row['link_ms']:.1f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
        )
    console().print(shown)
    for region in away:
        console().print(f"[red]{region} does not answer[/]")
