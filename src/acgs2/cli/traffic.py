"""`acgs2 traffic`: where requests go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from acgs2.cli.shared import JSON, call_any, cluster, console, emit, table
from acgs2.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(no_args_is_help=True)
_REGION = typer.Argument(..., metavar="REGION")
#: A region that is silent is not waited for when the next one can be asked.
_PATIENCE_S = 5.0


@app.command()
def show(
    zone: str = typer.Option("", "--zone", help="Only this zone."),
    entity: str = typer.Option("", "--entity", help="What requests are about, such as user_profile."),
    as_json: bool = JSON,
) -> None:
    """Show the regions that requests go to: the first that is well, in shares where there are several.

    Lawful regions of the zone, the nearest to the place first. What is behind `then` stands by.
    """
    import asyncio

    from acgs2.local.front import Views
    from acgs2.plan import route

    found = cluster()
    topology = found.state.topology
    seen = asyncio.run(Views(found.state).look())
    rights, shares = seen.rights, seen.shares
    if rights is None:
        raise UnavailableError("no-region-ready", "No region answers.", hint="See `acgs2 status`.")
    _check(zone, sorted(rights.zones), "zone")
    _check(entity, sorted({name for _, name in rights.holders}), "entity")
    rows: list[dict[str, Any]] = []
    for place in topology.places:
        for name in [zone] if zone else sorted(rights.zones):
            decided = route(
                topology, rights, shares.health, shares.weights, place, name, entity=entity or None
            )
            targets = [
                {"region": t.region, "rtt_ms": t.rtt_ms, "share": round(t.share, 4)} for t in decided.targets
            ]
            rows.append({"place": place, "zone": name, "targets": targets, "problem": decided.problem})
    if as_json:
        emit({"routes": rows, "version": seen.version, "down": shares.down, "weights": shares.weights})
        return
    shown = table("Where requests go", "place", "zone", "to", "then")
    for row in rows:
        first = [t for t in row["targets"] if t["share"]]
        then = [t for t in row["targets"] if not t["share"]]
        shown.add_row(
            row["place"],
            row["zone"],
            ", ".join(_target(t, len(first) > 1) for t in first) or f"[red]503 {row['problem']}[/]",
            ", ".join(_target(t, False) for t in then) or "-",
        )
    console().print(shown)
    for region in sorted(shares.down):
        console().print(f"[yellow]{region} takes no part[/]")
    for region, weight in sorted(shares.weights.items()):
        console().print(f"[yellow]{region} takes {weight} % of what reaches it[/]")


@app.command()
def weight(
    region: str = _REGION,
    percent: int = typer.Argument(..., min=0, max=100, help="What it takes of what reaches it."),
    as_json: bool = JSON,
) -> None:
    """Have a region take a percentage of what would reach it; the next lawful ones take the rest.

    One that was drained takes part again.
    """
    _change(region, as_json, weight=percent)


@app.command()
def drain(region: str = _REGION, as_json: bool = JSON) -> None:
    """Send a region no more requests; zones that have no other lawful region answer 503."""
    _change(region, as_json, down=True)


@app.command()
def restore(region: str = _REGION, as_json: bool = JSON) -> None:
    """Send a region all that is its own again."""
    _change(region, as_json, weight=100)


def _check(name: str, known: Sequence[str], what: str) -> None:
    """Refuse a name that there is not; raises InputError."""
    if name and name not in known:
        raise InputError(
            f"{what}-unknown", f"There is no {what} {name!r}.", hint=f"There are: {', '.join(known)}."
        )


def _change(region: str, as_json: bool, **change: Any) -> None:
    body = {"region": region, **change}
    told = call_any(cluster(), "", "POST", "/api/v1/traffic", body=body, timeout_s=_PATIENCE_S)
    if as_json:
        emit(told)
        return
    out = console()
    out.print(f"{region}: the edge goes by it within a second. See `acgs2 traffic show`.")
    if region in told["down"] and region not in told["operator"]["down"]:
        out.print(f"[yellow]{region} stays out[/]: a failover took it out; see `acgs2 failback`.")


def _target(target: dict[str, Any], shared: bool) -> str:
    share = f" {target['share']:.0%}" if shared else ""
    return f"{target['region']}{share} ({target['rtt_ms']:.0f} ms)"
