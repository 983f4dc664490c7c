"""`acgs2 down`."""

from __future__ import annotations

import typer

from acgs2.cli.shared import JSON, cluster, console, emit

app = typer.Typer()


@app.command()
def down(
    destroy: bool = typer.Option(
        False, "--destroy", help="Also remove the state directory with all its data."
    ),
    as_json: bool = JSON,
) -> None:
    """Stop every process of the cluster; its data stays unless --destroy is given."""
    found = cluster()
    found.destroy() if destroy else found.down()
    if as_json:
        emit({"state": str(found.state.path), "destroyed": destroy})
    else:
        console().print(f"stopped{' and removed' if destroy else ''}: {found.state.path}")
