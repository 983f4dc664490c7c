"""`acgs2 inbox show|dead|requeue|move`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from acgs2.cli.shared import JSON, call, cluster, console, emit, table
from acgs2.errors import AcgsError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from acgs2.local.cluster import Cluster

app = typer.Typer(
    no_args_is_help=True, help="See inboxes, what was given up, and which region serves a zone."
)
_REGION = typer.Option("", "--region", help="The region to ask; the one that serves, if none is named.")
_AGENT = typer.Argument(..., metavar="AGENT", help="The id of an agent.")
_MESSAGES = typer.Option([], "--message", help="Only these; may be repeated.")
_PATH = "/api/v1/inboxes"


def _ask_any(of: Cluster, path: str) -> tuple[str, Any]:
    """Return the first answer of a region that has one, and which that is; raises what the last one said."""
    fault: AcgsError = NotFoundError("agent-unknown", "No region answers.", hint="See `acgs2 status`.")
    for region in of.state.topology.stacks():
        try:
            return region, call(of, region, "GET", path)
        except AcgsError as error:
            fault = error
    raise fault


def _find(of: Cluster, agent: str, region: str) -> tuple[str, dict[str, Any]]:
    """Return the region that serves an agent's inbox, or the one that was named, and how full it is there."""
    path = f"{_PATH}/{agent}"
    if region:
        return region, call(of, region, "GET", path)
    asked, shown = _ask_any(of, path)
    serves = shown["served_by"]
    if serves in (None, asked):
        return asked, shown
    return serves, call(of, serves, "GET", path)


@app.command()
def show(
    agent: str = typer.Argument("", metavar="[AGENT]"), region: str = _REGION, as_json: bool = JSON
) -> None:
    """Show which region serves each zone's inboxes, or how full an agent's inbox is."""
    of = cluster()
    if agent:
        at, found = _find(of, agent, region)
        if as_json:
            emit(found)
        else:
            say = f"{found['ready']} ready, {found['claimed']} claimed in {at}; zone {found['zone']}"
            console().print(
                f"{say} is served by {found['served_by'] or 'nobody'}, generation {found['generation']}"
            )
        return
    zones = _zones(of, region)
    if as_json:
        emit(zones)
        return
    shown = table("Inboxes", "zone", "served by", "generation#")
    for zone in zones:
        shown.add_row(zone["zone"], zone["region"] or "nobody", str(zone["generation"]))
    console().print(shown)


def _zones(of: Cluster, region: str) -> list[dict[str, Any]]:
    """Return who serves which zone, by what the regions say that know the latest generation."""
    found: dict[str, dict[str, Any]] = {}
    for each in [region] if region else of.state.topology.stacks():
        try:
            zones = call(of, each, "GET", _PATH)["zones"]
        except UnavailableError:
            continue
        for zone in zones:
            had = found.get(zone["zone"])
            if had is None or (zone["generation"], zone["region"] == each) > (had["generation"], had["own"]):
                found[zone["zone"]] = {**zone, "own": zone["region"] == each}
    return [{k: v for k, v in found[name].items() if k != "own"} for name in sorted(found)]


@app.command()
def dead(
    agent: str = _AGENT,
    region: str = _REGION,
    limit: int = typer.Option(100, min=1, max=500, help="How many at most."),
    as_json: bool = JSON,
) -> None:
    """List what was given up, the oldest first, and why."""
    of = cluster()
    at, _ = _find(of, agent, region)
    rows = call(of, at, "GET", f"{_PATH}/{agent}/dead", params={"limit": limit})["items"]
    if as_json:
        emit(rows)
        return
    shown = table(f"Given up in {at}", "message", "since", "reason", "attempts#", "priority#")
    for row in rows:
        shown.add_row(
            row["message_id"], row["at"][:19], row["reason"], str(row["attempts"]), str(row["priority"])
        )
    console().print(shown)


@app.command()
def requeue(
    agent: str = _AGENT,
    message: list[str] = _MESSAGES,
    region: str = _REGION,
    as_json: bool = JSON,
) -> None:
    """Deliver what was given up after all; it goes to the end of the inbox. What has expired stays."""
    of = cluster()
    at, _ = _find(of, agent, region)
    body = {"messages": message or None}
    done = call(of, at, "POST", f"{_PATH}/{agent}/dead/requeue", body=body)
    emit(done) if as_json else console().print(f"{len(done['requeued'])} put back in {at}")


@app.command()
def move(
    zone: str = typer.Argument(..., metavar="ZONE", help="Whose inboxes."),
    to: str = typer.Argument(..., metavar="REGION", help="Who shall serve them."),
    as_json: bool = JSON,
) -> None:
    """Let another region serve a zone's inboxes; it gives out only what was not acknowledged."""
    of = cluster()
    at = next((z["region"] for z in _zones(of, "") if z["zone"] == zone and z["region"]), None)
    if at is None:
        raise UnavailableError(
            "inbox-not-served", f"Nobody serves zone {zone} now.", hint="Try again in a moment."
        )
    done = call(of, at, "POST", f"{_PATH}/{zone}/move", body={"to": to})
    emit(done) if as_json else console().print(f"zone {zone}: from {done['from']} to {done['to']}")
