"""`acgs2 quarantine list|show|retry|drop`."""

from __future__ import annotations

import typer

from acgs2.cli.shared import JSON, call, cluster, console, emit, table

app = typer.Typer(no_args_is_help=True, help="See, retry and give up rows that could not be merged.")
_REGION = typer.Option(..., "--region", help="The region to ask.")
_PATH = "/api/v1/quarantine"


@app.command("list")
def list_(region: str = _REGION, as_json: bool = JSON) -> None:
    """List what a region has set aside, oldest first."""
    rows = call(cluster(), region, "GET", _PATH)
    if as_json:
        emit(rows)
        return
    columns = ("number#", "since", "from", "zone", "entity", "reason", "sqlstate")
    shown = table(f"Set aside in {region}", *columns)
    for row in rows:
        shown.add_row(
            str(row["id"]),
            row["at"][:19],
            row["source"],
            row["zone"],
            row["entity"],
            row["reason"],
            row["sqlstate"] or "-",
        )
    console().print(shown)


@app.command()
def show(number: int, region: str = _REGION) -> None:
    """Show one row with its content, as JSON."""
    emit(call(cluster(), region, "GET", f"{_PATH}/{number}"))


@app.command()
def retry(number: int, region: str = _REGION, as_json: bool = JSON) -> None:
    """Take a row in again; it stays if that still fails."""
    done = call(cluster(), region, "POST", f"{_PATH}/{number}/retry")
    emit(done) if as_json else console().print(f"row {number} was merged")


@app.command()
def drop(
    number: int,
    region: str = _REGION,
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    as_json: bool = JSON,
) -> None:
    """Give a row up for good: what it held is lost in this region."""
    if not yes:
        typer.confirm(f"Row {number} is lost in {region} then. Drop it?", abort=True)
    call(cluster(), region, "DELETE", f"{_PATH}/{number}")
    emit({"dropped": number}) if as_json else console().print(f"row {number} is dropped")
