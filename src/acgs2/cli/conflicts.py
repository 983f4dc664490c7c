"""`acgs2 conflicts`."""

from __future__ import annotations

import json

import typer

from acgs2.cli.shared import JSON, call, cluster, console, emit, table

app = typer.Typer()


@app.command()
def conflicts(
    region: str = typer.Option(..., "--region", help="In which region to look."),
    limit: int = typer.Option(20, "-n", "--limit", min=1, max=1000, help="How many, newest first."),
    as_json: bool = JSON,
) -> None:
    """Show concurrent changes: what lost, against what, by which strategy. Nothing is lost silently."""
    rows = call(cluster(), region, "GET", "/api/v1/conflicts", params={"limit": limit})
    if as_json:
        emit(rows)
        return
    shown = table(
        f"Conflicts known in {region}", "entity", "id", "field", "strategy", "lost in", "won in", "lost value"
    )
    for row in rows:
        shown.add_row(
            row["entity"],
            row["key"],
            row["field"] or "(all)",
            row["strategy"],
            row["loser_origin"].partition("#")[0],
            row["winner_origin"].partition("#")[0],
            json.dumps(row["loser_value"])[:60],
        )
    console().print(shown)
