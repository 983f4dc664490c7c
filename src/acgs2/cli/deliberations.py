"""`acgs2 deliberations list|show|approve|deny|watch`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from acgs2.cli.shared import JSON, call, cluster, console, emit, minted, table

if TYPE_CHECKING:
    import httpx

    from acgs2.local.cluster import Cluster

app = typer.Typer(no_args_is_help=True, help="See messages that wait for people, and approve or deny them.")
_REGION = typer.Option(..., "--region", help="The region to ask.")
_AS = typer.Option("", "--as", metavar="NAME", help="Who you are: a named approver. Else an operator looks.")
_APPROVER = typer.Option(..., "--as", metavar="NAME", help="Who you are: one of those who were named.")
_REASON = typer.Option("", "--reason", help="Why; it is kept with what you say.")
_ID = typer.Argument(..., metavar="ID", help="The id of a held message.")
_PATH = "/api/v1/deliberations"
#: A stream that is silent for longer is broken: it says a word every 10 s.
_SILENCE_S = 30.0


@app.command("list")
def list_(region: str = _REGION, who: str = _AS, as_json: bool = JSON) -> None:
    """List what waits, the first to end first; with --as only what that approver was named for."""
    of = cluster()
    items = call(of, region, "GET", _PATH, headers=_headers(of, who), params={"limit": 200})["items"]
    if as_json:
        emit(items)
        return
    shown = table(f"Held messages known in {region}", "id", "type", "impact", "missing", "until")
    for item in items:
        shown.add_row(
            item["message_id"],
            escape(item["message_type"]),
            f"{item['impact']:.3f}",
            _missing(item),
            item["deadline"],
        )
    console().print(shown)


@app.command()
def show(message: str = _ID, region: str = _REGION, who: str = _AS, as_json: bool = JSON) -> None:
    """Show a held message: what it says, why it is held, who said what, and how it stands."""
    of = cluster()
    found = call(of, region, "GET", f"{_PATH}/{message}", headers=_headers(of, who))
    emit(found) if as_json else _print(found)


@app.command()
def approve(
    message: str = _ID,
    region: str = _REGION,
    who: str = _APPROVER,
    reason: str = _REASON,
    as_json: bool = JSON,
) -> None:
    """Let a held message go, as one of those who were named.

    Example: acgs2 deliberations approve ID --region eu-west-1 --as ann@acgs2.example --reason "I called."
    """
    _say(message, region, who, "approve", reason, as_json)


@app.command()
def deny(
    message: str = _ID,
    region: str = _REGION,
    who: str = _APPROVER,
    reason: str = _REASON,
    as_json: bool = JSON,
) -> None:
    """Refuse a held message; one denial ends it."""
    _say(message, region, who, "deny", reason, as_json)


@app.command()
def watch(region: str = _REGION, who: str = _AS, as_json: bool = JSON) -> None:
    """Show held messages as they come, as somebody says something, and as they end, until interrupted."""
    import httpx

    from acgs2.errors import UnavailableError
    from acgs2.local.loopback import loopback

    of = cluster()
    url = of.state.url(region) + f"{_PATH}/events"
    seen: dict[str, Any] = {}
    try:
        while True:  # a stream lasts as long as a token may, and begins anew
            headers = _headers(of, who) or {
                "authorization": f"Bearer {minted(of, 'operator@cli', 'operator')}"
            }
            with loopback().stream("GET", url, headers=headers, timeout=_SILENCE_S) as answer:
                for found in _events(answer, region):
                    if seen.get(found["message_id"]) != found:
                        seen[found["message_id"]] = found
                        print(json.dumps(found), flush=True) if as_json else console().print(_line(found))
    except httpx.HTTPError as error:
        raise UnavailableError(
            "region-away", f"{region} does not answer any more: {error}.", hint="See `acgs2 status`."
        ) from error


def _events(answer: httpx.Response, region: str) -> Iterator[dict[str, Any]]:
    """Yield what the events of a stream carry; raises UnavailableError where it is a problem."""
    from acgs2.errors import UnavailableError

    if answer.status_code != 200:
        raise UnavailableError(
            "region-away", f"{region} answers {answer.status_code}.", hint="See `acgs2 status`."
        )
    name = ""
    for line in answer.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            found = json.loads(value)
            if name == "problem":
                raise UnavailableError("region-away", f"{region}: {found['title']}", hint="Try again.")
            yield found


def _say(message: str, region: str, who: str, decision: str, reason: str, as_json: bool) -> None:
    of = cluster()
    headers = _headers(of, who)
    zone = call(of, region, "GET", f"{_PATH}/{message}", headers=headers)["zone"]
    body = {"decision": decision, "reason": reason}
    made = call(of, region, "POST", f"{_PATH}/{message}/approvals", zone=zone, body=body, headers=headers)
    emit(made) if as_json else console().print(_line(made))


def _headers(of: Cluster, who: str) -> dict[str, str]:
    return {"authorization": f"Bearer {minted(of, who, 'approver')}"} if who else {}


def _missing(item: dict[str, Any]) -> str:
    return ", ".join(f"{count} of {group}" for group, count in item["missing"].items()) or "nobody"


def _line(item: dict[str, Any]) -> str:
    waits = f", waits for {_missing(item)}" if item["state"] == "open" and item["missing"] else ""
    return f"{item['message_id']} {escape(item['message_type'])}: [bold]{item['state']}[/]{waits}"


def _print(item: dict[str, Any]) -> None:
    out = console()
    out.print(_line(item))
    out.print(f"  from {item['from_agent']} to {item['to_agent'] or 'topic ' + escape(str(item['topic']))}")
    out.print(f"  impact {item['impact']:.3f}: {escape(' '.join(item['reasons'])) or 'no reasons'}")
    out.print(f"  policies: {', '.join(item['policies']) or 'none'}")
    for part in (item["content"], json.dumps(item["payload"]) if item["payload"] else ""):
        if part:
            out.print(f"  {escape(part)}")
    for said in item["approvals"]:
        why = f": {escape(said['reason'])}" if said["reason"] else ""
        void = "" if said["counts"] else ", which does not count"
        out.print(f"  {said['at']} {escape(said['approver'])} said {said['decision']}{void}{why}")
    for group, count in item["wanting"].items():
        out.print(f"  nobody can approve it now: {escape(group)} has {count} too few members who were named")
    end = f"decided in {item['decided_in']}" if item["decided_in"] else f"until {item['deadline']}"
    out.print(f"  held since {item['held_since']}, {end}")
