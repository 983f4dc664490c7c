"""`acgs2 halt|halts|resume`: stop at once, and go on only when two operators want to."""

from __future__ import annotations

from typing import Any

import typer

from acgs2.cli.shared import JSON, call_any, cluster, console, emit, table

_REASON = typer.Option(..., "--reason", help="Why; read in all regions, so name no person.")
_AS = typer.Option("operator@cli", "--as", metavar="NAME", help="The operator who does it.")
_REGION = typer.Option("", "--region", help="The region to ask; any that answers if not given.")
_WAIT = typer.Option(True, help="Wait until every region has said that it goes by it.")
_NAMES = {
    "halt": "Halt an agent, a tenant, or everything, in all regions.",
    "halts": "List the halts in force.",
    "resume": "Ask that a halt ends; it takes two operators.",
}


def app_for(name: str) -> typer.Typer:
    """Return the command halt with its sub-commands, halts, or resume."""
    app = typer.Typer(no_args_is_help=name != "halts", help=_NAMES[name])
    {"halt": _halt, "halts": _halts, "resume": _resume}[name](app)
    return app


def _halt(app: typer.Typer) -> None:
    @app.command()
    def agent(
        target: str = typer.Argument(metavar="AGENT", help="The agent's id."),
        reason: str = _REASON,
        by: str = _AS,
        region: str = _REGION,
        wait: bool = _WAIT,
        as_json: bool = JSON,
    ) -> None:
        """Halt one agent: it sends and receives nothing until it is resumed.

        Example: acgs2 halt agent 0199... --reason "sends the same order again and again"
        """
        _post({"scope": "agent", "target": target, "reason": reason, "wait": wait}, by, region, as_json)

    @app.command()
    def tenant(
        target: str = typer.Argument(metavar="TENANT", help="The tenant's id."),
        reason: str = _REASON,
        by: str = _AS,
        region: str = _REGION,
        wait: bool = _WAIT,
        as_json: bool = JSON,
    ) -> None:
        """Halt every agent of a tenant."""
        _post({"scope": "tenant", "target": target, "reason": reason, "wait": wait}, by, region, as_json)

    @app.command("all")
    def everything(
        reason: str = _REASON,
        by: str = _AS,
        region: str = _REGION,
        wait: bool = _WAIT,
        as_json: bool = JSON,
    ) -> None:
        """Halt every agent of every tenant. Records can still be read and written."""
        _post({"scope": "all", "reason": reason, "wait": wait}, by, region, as_json)


def _post(body: dict[str, Any], by: str, region: str, as_json: bool) -> None:
    done = call_any(cluster(), region, "POST", "/api/v1/halts", body=body, subject=by)
    if as_json:
        emit(done)
        return
    out, halt = console(), done["halt"]
    what = "everything" if halt["scope"] == "all" else f"{halt['scope']} {halt['target']}"
    out.print(f"[bold]{what} is halted[/]: {halt['id']}", soft_wrap=True)
    if not done["known_here"]:
        out.print("[yellow]no such one is known in the region that was asked[/]: check the id")
    out.print(_bound(done["binding"]), soft_wrap=True)
    out.print(f"to go on, two operators: acgs2 resume {halt['id']} --as NAME", soft_wrap=True)


def _halts(app: typer.Typer) -> None:
    @app.command()
    def halts(region: str = _REGION, as_json: bool = JSON) -> None:
        """List the halts in force, and who has asked that one ends."""
        rows = call_any(cluster(), region, "GET", "/api/v1/halts")
        if as_json:
            emit(rows)
            return
        if not rows:
            console().print("nothing is halted")
            return
        shown = table("Halts", "id", "since", "what", "target", "by", "reason", "wants to go on")
        for row in rows:
            wishes = ", ".join(each["by"] for each in row["resumes"]) or "-"
            cells = (row["id"], row["since"][:19], row["scope"], row["target"] or "-")
            shown.add_row(*cells, row["by"], row["reason"], wishes)
        console().print(shown)


def _resume(app: typer.Typer) -> None:
    @app.command()
    def resume(
        halt: str = typer.Argument(metavar="HALT", help="The halt's id, as `acgs2 halts` lists it."),
        by: str = typer.Option(
            ..., "--as", metavar="NAME", help="The operator who asks; a second one ends it."
        ),
        region: str = _REGION,
        wait: bool = _WAIT,
        as_json: bool = JSON,
    ) -> None:
        """Ask that a halt ends. The first operator's wish is noted for an hour; a second one's ends it.

        Example: acgs2 resume 0199... --as ann;  acgs2 resume 0199... --as bo
        """
        path = f"/api/v1/halts/{halt}/resume"
        done = call_any(cluster(), region, "POST", path, body={"wait": wait}, subject=by)
        if as_json:
            emit(done)
        elif done["outcome"] == "resumed":
            console().print(f"[bold]the halt is over[/]. {_bound(done['binding'])}", soft_wrap=True)
        else:
            console().print("noted; it ends when a second operator asks within an hour", soft_wrap=True)


def _bound(binding: dict[str, Any]) -> str:
    """Return in words whom a change binds."""
    if not binding["unconfirmed"]:
        return f"in force in all regions: {', '.join(binding['confirmed'])}"
    silent = ", ".join(binding["unconfirmed"])
    heard = ", ".join(binding["confirmed"]) or "a majority"
    within_s = binding["binds_all_within_ms"] / 1000
    return (
        f"in force in {heard}; not heard from {silent}: without it they govern for {within_s:.1f} s at most"
    )
