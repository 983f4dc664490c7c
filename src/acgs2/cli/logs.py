"""`acgs2 logs`."""

from __future__ import annotations

import time
from collections import deque

import typer

from acgs2.cli.shared import cluster
from acgs2.errors import InputError

app = typer.Typer()


@app.command()
def logs(
    region: str = typer.Argument("", help="A region, `links` or `supervisor`; all if none is named."),
    component: str = typer.Option("", "--component", help="postgres, server or links."),
    lines: int = typer.Option(20, "-n", "--lines", min=0, help="How many lines of each log."),
    follow: bool = typer.Option(False, "-f", "--follow", help="Go on printing what is added."),
) -> None:
    """Show what the processes of the cluster logged."""
    folder = cluster().state.logs
    files = sorted(
        f
        for f in folder.glob("*.log")
        if f.name.startswith(region) and (not component or f".{component}." in f.name)
    )
    if not files:
        names = ", ".join(sorted({f.name.partition(".")[0] for f in folder.glob("*.log")}))
        raise InputError(
            "log-unknown",
            f"There is no log of {region} {component}".strip() + ".",
            hint=f"There are logs of {names}.",
        )
    ends: dict[str, int] = {}
    for file in files:
        print(f"==> {file.name} <==")
        with file.open(encoding="utf-8", errors="replace") as text:
            print("".join(deque(text, maxlen=lines)), end="")
            ends[file.name] = text.tell()
    while follow:
        for file in files:
            with file.open(encoding="utf-8", errors="replace") as text:
                text.seek(ends[file.name])
                if added := text.read():
                    print(f"==> {file.name} <==\n{added}", end="", flush=True)
                ends[file.name] = text.tell()
        time.sleep(0.3)
