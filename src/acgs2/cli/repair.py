"""`acgs2 repair`."""

from __future__ import annotations

import typer

from acgs2.cli.shared import JSON, call, cluster, console, emit, table

app = typer.Typer()


@app.command()
def repair(
    region: str = typer.Argument(..., help="The region that compares itself."),
    peer: str = typer.Option("", "--peer", help="With which region; all by default."),
    as_json: bool = JSON,
) -> None:
    """Compare a region with its peers by ranges, and repair what differs; it also happens by itself.

    Exit status 0 when all were equal or skipped, 1 when something differed and is being repaired.
    """
    params = {"peer": peer} if peer else {}
    done = call(cluster(), region, "POST", "/api/v1/repair", params=params, timeout_s=600)
    differed = sum(f["differing"] for f in done["compared"])
    if as_json:
        emit(done)
        raise typer.Exit(1 if differed else 0)
    columns = ("with", "zone", "entity", "records#", "ranges#", "differing#", "given up#")
    shown = table(f"Compared from {region}", *columns)
    for f in done["compared"]:
        if f["compared"] or f["differing"] or f["skipped"]:
            counts = (str(f[n]) for n in ("compared", "ranges", "differing", "doubted"))
            shown.add_row(f["peer"], f["zone"], f["entity"], *counts)
    console().print(shown)
    for name in done["away"]:
        console().print(f"[yellow]{name} is away and was not compared[/]")
    outcome = "everything was equal" if not differed else f"{differed} ranges differed and are being repaired"
    console().print(f"{outcome}; {done['seconds']} s")
    raise typer.Exit(1 if differed else 0)
