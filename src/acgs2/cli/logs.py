"""`acgs2 logs`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from acgs2.cli.shared import cluster, console
from acgs2.errors import InputError
from acgs2.logs.read import parse, whole_lines

app = typer.Typer()
_COLOURS = {"info": "green", "warning": "yellow", "error": "red", "critical": "bold red", "debug": "dim"}


@app.command()
def logs(
    region: str = typer.Argument("", help="A region, `links` or `supervisor`; all if none is named."),
    component: str = typer.Option("", "--component", help="postgres, server or links."),
    lines: int = typer.Option(20, "-n", "--lines", min=0, help="How many lines of each log."),
    follow: bool = typer.Option(False, "-f", "--follow", help="Go on printing what is added."),
    as_json: bool = typer.Option(False, "--json", help="Print lines as they were written: JSON, by ours."),
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
    show = _raw if as_json else _readable()
    ends: dict[Path, int] = {}
    for file in files:
        text, ends[file] = whole_lines(file, 0)
        if not as_json:
            print(f"==> {file.name} <==")
        for line in deque(text, maxlen=lines):
            show(line)
    while follow:
        for file in files:
            text, ends[file] = whole_lines(file, ends[file])
            if text and not as_json:
                print(f"==> {file.name} <==")
            for line in text:
                show(line)
        time.sleep(0.3)


def _raw(line: str) -> None:
    print(line, flush=True)


def _readable() -> Callable[[str], Any]:
    from rich.text import Text

    out = console()

    def show(text: str) -> None:
        line = parse(text)
        shown = Text(text)
        if line is not None:
            colour = _COLOURS.get(line.level, "")
            shown = Text.assemble(
                (f"{line.time} ", "dim"),
                (f"{line.level:8} ", colour),
                (f"{line.event} ", "bold"),
                line.fields,
            )
        out.print(shown, soft_wrap=True)

    return show
