"""`acgs2 chaos`: faults on purpose."""

from __future__ import annotations

from typing import Any

import typer

from acgs2.cli.shared import JSON, cluster, console, emit, table
from acgs2.errors import InputError

app = typer.Typer(no_args_is_help=True)
_COMPONENT = typer.Option("all", "--component", help="postgres, server, gateway or all.")


@app.command()
def link(
    a: str,
    b: str,
    cut: bool = typer.Option(False, "--cut", help="Carry nothing; connections stay open and hang."),
    one_way: bool = typer.Option(False, "--one-way", help="Only from A to B."),
    restore: bool = typer.Option(False, "--restore", help="Carry again what was held, at the usual speed."),
    reset: bool = typer.Option(False, "--reset", help="With --restore: kill the connections that were cut."),
    slow: float = typer.Option(0, "--slow", min=0, help="Multiply the latency."),
    rtt_ms: float = typer.Option(-1, "--rtt-ms", help="Set the round trip time."),
    loss: float = typer.Option(-1, "--loss", help="Share of chunks that have to be sent again, 0 to 1."),
    as_json: bool = JSON,
) -> None:
    """Cut, slow or restore the link between two regions.

    Examples: acgs2 chaos link us-east-1 eu-west-1 --cut;  acgs2 chaos link us-east-1 eu-west-1 --slow 5
    """
    changes: dict[str, Any] = {}
    if slow:
        changes["factor"] = slow
    if rtt_ms >= 0:
        changes["rtt_ms"] = rtt_ms
    if loss >= 0:
        changes["loss"] = loss
    if sum((cut, restore, bool(changes))) != 1 or loss >= 1:
        raise InputError(
            "chaos-unclear",
            "Say one thing: --cut, --restore, or how the link shall be.",
            hint="See `acgs2 chaos link --help`.",
        )
    action = "cut" if cut else "restore" if restore else "set"
    _show(cluster().link(action, a, b, one_way=one_way, reset=reset, **changes), as_json, {a, b})


@app.command()
def links(as_json: bool = JSON) -> None:
    """Show every link as it is now."""
    _show(cluster().link("status"), as_json, None)


def _show(status: dict[str, Any], as_json: bool, only: set[str] | None) -> None:
    if as_json:
        emit(status)
        return
    shown = table("Links", "from", "to", "rtt ms", "times", "loss", "state", "MB")
    for line in status["lines"]:
        if only is None or {line["from"], line["to"]} == only:
            shown.add_row(
                line["from"],
                line["to"],
                f"{line['rtt_ms']:.1f}",
                f"{line['factor']:g}",
                f"{line['loss']:g}",
                "[red]cut[/]" if line["cut"] else "open",
                f"{line['bytes'] / 1e6:.1f}",
            )
    console().print(shown)


def _signal(action: str, region: str, component: str, as_json: bool) -> None:
    status = cluster().ask(action, region=region, component=component)
    parts = status["regions"].get(region, [])
    if as_json:
        emit(parts)
        return
    for part in parts:
        console().print(f"{region} {part['component']}: {part['phase']}")


@app.command()
def kill(region: str, component: str = _COMPONENT, as_json: bool = JSON) -> None:
    """Kill a region's processes with SIGKILL; they stay dead until `chaos start` or `up`."""
    _signal("kill", region, component, as_json)


@app.command()
def start(region: str, component: str = _COMPONENT, as_json: bool = JSON) -> None:
    """Start what was killed."""
    _signal("start", region, component, as_json)


@app.command()
def freeze(region: str, component: str = _COMPONENT, as_json: bool = JSON) -> None:
    """Stop a region's processes in their tracks; connections stay open."""
    _signal("freeze", region, component, as_json)


@app.command()
def thaw(region: str, component: str = _COMPONENT, as_json: bool = JSON) -> None:
    """Let frozen processes go on."""
    _signal("thaw", region, component, as_json)


@app.command()
def clock(
    region: str,
    offset_ms: float = typer.Option(
        ..., "--offset-ms", help="How far ahead; negative is behind; 0 is right."
    ),
) -> None:
    """Set a region's clock ahead or behind; over 500 ms from most regions it writes nothing.

    Example: acgs2 chaos clock us-east-1 --offset-ms 2000
    """
    cluster().clock(region, offset_ms)
    console().print(f"{region}: clock {offset_ms:+g} ms")
