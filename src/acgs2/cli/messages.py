"""`acgs2 messages send|watch|show|trace`."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from acgs2.cli.shared import JSON, call, cluster, console, emit, minted
from acgs2.errors import ForbiddenError, InputError

if TYPE_CHECKING:
    from acgs2.client.sync import SyncInboxMessage
    from acgs2.local.cluster import Cluster

app = typer.Typer(
    no_args_is_help=True, help="Send messages as an agent, take an agent's, and see what became of one."
)
_REGION = typer.Option(..., "--region", help="The region to ask.")
_ZONE = typer.Option(..., "--zone", help="The zone of the sender's tenant.")
_TENANT = typer.Option(..., "--tenant", help="The tenant that the agent belongs to.")
_ID = typer.Argument(..., metavar="ID", help="The id of a message.")


@app.command()
def send(
    region: str = _REGION,
    zone: str = _ZONE,
    tenant: str = _TENANT,
    sender: str = typer.Option(..., "--from", metavar="AGENT", help="Who says it."),
    to: str = typer.Option("", "--to", metavar="AGENT", help="Who is to hear it."),
    topic: str = typer.Option("", "--topic", help="All who subscribed to it are to hear it."),
    to_tenant: str = typer.Option("", "--to-tenant", help="The receiver's tenant, if it is another."),
    kind: str = typer.Option(..., "--type", help="What kind of message it is, such as question."),
    content: str = typer.Option("", "--content", help="Text."),
    payload: str = typer.Option("", "--payload", metavar="JSON", help="A document: one JSON object."),
    priority: int = typer.Option(1, "--priority", min=0, max=3, help="3 is the most urgent."),
    conversation: str = typer.Option("", "--conversation", metavar="ID", help="What it belongs to."),
    expires: str = typer.Option("", "--expires", help="Not to be delivered after this instant (RFC 3339)."),
    message_id: str = typer.Option("", "--id", help="Its id (UUIDv7); the same one repeats it safely."),
    constitution: str = typer.Option("", "--constitution", help="The constitutional hash to name."),
    as_json: bool = JSON,
) -> None:
    """Send a message for an agent, as a service of its tenant.

    Says whether it is delivered, or held until people approve it. What policies refuse is an error, exit
    status 3, and says why. Example: acgs2 messages send --region eu-west-1 --zone eu --tenant T --from A
    --to B --type payment --payload '{"amount": 50000}'
    """
    from acgs2.client.bus import CONSTITUTION
    from acgs2.model.ids import uuid7

    known = message_id or str(uuid7(time.time_ns() // 1_000_000, os.urandom(10)))
    given = {
        "to_agent": to,
        "topic": topic,
        "to_tenant_id": to_tenant,
        "expires_at": expires,
        "payload": _document(payload),
    }
    body = {
        "message_id": known,
        "conversation_id": conversation or known,
        "tenant_id": tenant,
        "from_agent": sender,
        "message_type": kind,
        "content": content,
        "priority": priority,
        "constitutional_hash": constitution or CONSTITUTION,
        **{name: value for name, value in given.items() if value},
    }
    of = cluster()
    headers = {"authorization": f"Bearer {minted(of, 'service@cli', 'service', tenant)}"}
    try:
        made = call(of, region, "POST", "/api/v1/messages", zone=zone, body=body, headers=headers)
    except ForbiddenError as error:
        if error.reference == "denied-by-policy":
            error.hint = f"It is stored, and not delivered: acgs2 messages trace {known} --region {region}"
        raise
    emit(made) if as_json else _print_receipt(made)


@app.command()
def watch(
    agent: str = typer.Argument(..., metavar="AGENT", help="Whose inbox."),
    zone: str = _ZONE,
    tenant: str = _TENANT,
    count: int = typer.Option(0, "-n", "--count", min=0, help="End after so many; 0: go on."),
    as_json: bool = JSON,
) -> None:
    """Take what comes for an agent and show it, through takeovers, until interrupted.

    What was shown is acknowledged: it is not delivered to anybody else any more.
    """
    from acgs2.client import SyncClient

    of = cluster()
    urls = _urls(of, zone)
    token = minted(of, "service@cli", "service", tenant)
    with SyncClient(urls, zone=zone, token=token, ca=of.state.trust) as client:
        for number, message in enumerate(client.inbox(agent, limit=1), 1):
            _print_letter(message, as_json)
            if number == count:
                message.acknowledge()
                return


@app.command()
def show(message: str = _ID, region: str = _REGION, as_json: bool = JSON) -> None:
    """Show a message as it was accepted, with the verdict."""
    from acgs2.client.requests import id_text

    found = call(cluster(), region, "GET", f"/api/v1/messages/{id_text(message)}")
    emit(found) if as_json else _print_tree(found)


@app.command()
def trace(message: str = _ID, region: str = _REGION, as_json: bool = JSON) -> None:
    """Show what became of a message: verdict, approvals, where it is, deliveries, and checked proofs.

    What only another region knows, its leaves of the audit log and what is under way to an agent that it
    serves, is asked there. What the message says is shown by `acgs2 messages show`.
    """
    from acgs2.cli.trace import print_trace, traced

    found = traced(cluster(), region, message)
    emit(found) if as_json else print_trace(found)


def _document(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(
            "payload-invalid", "--payload is not a JSON object.", hint="""For example '{"amount": 5}'."""
        )
    return found


def _urls(of: Cluster, zone: str) -> list[str]:
    zones = of.state.topology.zones
    if zone not in zones:
        raise InputError("zone-unknown", f"There is no zone {zone}.", hint=f"Zones: {', '.join(zones)}.")
    return [of.state.url(region) for region in zones[zone].regions]


def _print_receipt(made: dict[str, Any]) -> None:
    out = console()
    out.print(f"[bold]{made['message_id']}[/] " + _verdict(made))
    basis = made.get("basis", {})
    out.print(f"  by {', '.join(basis.get('policies', [])) or 'no policy'}; impact {made['impact']:.3f}")
    out.print(f"  accepted in {made['accepted_in']}, durable in {', '.join(made['durable_in'])}")


def _verdict(made: dict[str, Any]) -> str:
    held = made.get("deliberation")
    if not held:
        return "is allowed"
    who = f"{held['approvals']} of {held['group']}" if held.get("group") else "approvers"
    return f"is held: {who} must approve it until {held['deadline']}"


def _print_letter(message: SyncInboxMessage, as_json: bool) -> None:
    import msgspec

    if as_json:
        print(json.dumps(msgspec.to_builtins(message.letter), default=str), flush=True)
        return
    out, letter = console(), message.letter
    again = f", delivery {message.attempt}" if message.attempt > 1 else ""
    out.print(f"[bold]{escape(letter.message_type)}[/] from {letter.from_agent}{again}")
    out.print(f"  {letter.message_id} in conversation {letter.conversation_id}")
    for part in (letter.content, json.dumps(letter.payload) if letter.payload else ""):
        if part:
            out.print(f"  {escape(part)}")


def _print_tree(value: Any, depth: int = 0) -> None:
    """Print a document: a line for each value, what is inside of what indented."""
    out, indent = console(), "  " * depth
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value, 1):
        if isinstance(inner, dict | list) and inner:
            out.print(f"{indent}[bold]{escape(str(name))}[/]")
            _print_tree(inner, depth + 1)
        else:
            shown = "-" if inner in (None, "", [], {}) else str(inner)
            out.print(f"{indent}[bold]{escape(str(name)):<18}[/] {escape(shown)}")
