"""The trace of a message, put together from the regions that know parts of it, and printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from acgs2.cli.shared import call, console, table
from acgs2.errors import AcgsError

if TYPE_CHECKING:
    from acgs2.local.cluster import Cluster

__all__ = ["joined", "print_trace", "traced"]

_DECISIONS = {"allow": "[green]allowed[/]", "deliberate": "[yellow]held[/]", "deny": "[red]denied[/]"}
_ELSEWHERE = "elsewhere"


def traced(of: Cluster, region: str, message: str) -> dict[str, Any]:
    """Return a message's trace as one region has it, with what others know beside, and every proof checked.

    All regions are asked that had the message: one that accepted it too may be known to nobody else. Those
    that are away are passed over; `regions` says which have answered.

    Raises:
        AcgsError: that region is away, or its answer is a problem.
    """
    from acgs2.cli.audit import is_proven, trusted_keys
    from acgs2.client.requests import id_text

    path = f"/api/v1/messages/{id_text(message)}/trace"
    found = call(of, region, "GET", path)
    others: dict[str, Any] = {}
    for each in found["receipt"]["been_in"]:
        if each == found["region"]:
            continue
        try:
            others[each] = call(of, each, "GET", path)
        except AcgsError:
            continue
    whole = joined(found, others)
    trusted, _ = trusted_keys("", None)
    if whole["audit"] is not None:
        whole["audit"] = [{**leaf, "proven": is_proven(leaf, trusted)} for leaf in whole["audit"]]
    return whole


def joined(found: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return one region's trace with what others answered: each is believed about its own log and inboxes."""
    leaves = found["audit"]
    if leaves is not None:
        leaves = [leaf for leaf in leaves if leaf["region"] not in others]
        leaves += [
            leaf
            for region, each in others.items()
            for leaf in each["audit"] or ()
            if leaf["region"] == region
        ]
        leaves.sort(key=lambda leaf: leaf["at"])
    traces = [found, *others.values()]
    receipt = found["receipt"] | {
        name: sorted({region for each in traces for region in each["receipt"][name]})
        for name in ("durable_in", "been_in")
    }
    serving = others.get(found["deliveries"]["served_by"], found)
    return {
        **found,
        "regions": [found["region"], *others],
        "receipt": receipt,
        "deliveries": serving["deliveries"],
        "audit": leaves,
    }


def print_trace(found: Mapping[str, Any]) -> None:
    """Print a trace for people."""
    out = console()
    for line in (*_heads(found), *_verdict(found), *_deliberation(found), *_receipt(found)):
        out.print(line, soft_wrap=True)
    _deliveries(found["deliveries"])
    _leaves(found["audit"])


def _heads(found: Mapping[str, Any]) -> list[str]:
    message = found["message"]
    to = message["to_agent"] or f"topic {escape(message['topic'])}"
    other = f" of tenant {message['to_tenant_id']}" if message["to_tenant_id"] else ""
    lines = [
        f"[bold]{escape(message['message_type'])}[/] {message['message_id']}",
        f"  from     {message['from_agent']} of tenant {message['tenant_id']}",
        f"  to       {to}{other}",
        f"  sent by  {escape(_name(message['proposer']))}, priority {message['priority']}, "
        f"conversation {message['conversation_id']}",
    ]
    return lines + ([f"  expires  {message['expires_at']}"] if message["expires_at"] else [])


def _verdict(found: Mapping[str, Any]) -> list[str]:
    verdict = found["verdict"]
    basis = verdict["basis"] or {}
    lines = [
        f"[bold]Verdict[/] {_DECISIONS[verdict['decision']]} by "
        f"{escape(', '.join(basis.get('policies', []))) or 'no policy'}; impact {verdict['impact']:.3f}"
    ]
    lines += [f"  because  {escape(reason)}" for reason in basis.get("reasons", [])]
    lines += [
        f"  weighs   {each['share'] / 1000:.3f}: {escape(each['why'])}" for each in basis.get("factors", [])
    ]
    if constitution := basis.get("constitution"):
        lines.append(
            f"  under    constitution version {constitution['version']}, {constitution['digest'][:16]}"
        )
    for each in verdict["accepted"]:
        lines.append(f"  accepted {each['at']} in {each['region']}: {each['decision']}")
    return lines


def _deliberation(found: Mapping[str, Any]) -> list[str]:
    held = found["deliberation"]
    if held is None:
        return []
    lines = [f"[bold]Deliberation[/] {held['state']}; held since {held['held_since']}"]
    for hold in held["holds"] or ():
        lines.append(f"  needs    {hold['approvals']} of {escape(hold['group'])}")
    for said in held["approvals"] or ():
        why = f": {escape(said['reason'])}" if said["reason"] else ""
        lines.append(f"  said     {said['at']} {escape(_name(said['approver']))} {said['decision']}{why}")
    if held["state"] == "open":
        missing = ", ".join(f"{n} of {escape(group)}" for group, n in held["missing"].items())
        lines.append(f"  waits    for {missing or 'nobody'} until {held['deadline']}")
    else:
        lines.append(f"  ended    {held['ended_at']} in {held['decided_in']}")
    return lines


def _receipt(found: Mapping[str, Any]) -> list[str]:
    receipt = found["receipt"]
    grounds = (f"{region} ({ground or 'no ground now'})" for region, ground in receipt["residency"].items())
    return [
        f"[bold]Data[/] of zone {receipt['zone']}",
        f"  lawful   {', '.join(grounds)}",
        f"  on disk  {', '.join(receipt['durable_in'])}",
        f"  been in  {', '.join(receipt['been_in'])}",
    ]


def _deliveries(deliveries: Mapping[str, Any]) -> None:
    served = deliveries["served_by"]
    who = f"served by {served}, generation {deliveries['generation']}" if served else "served by nobody known"
    title = f"[bold]Deliveries[/] {who}"
    if not deliveries["items"]:
        console().print(f"{title}: none")
        return
    console().print(title)
    shown = table("", "agent", "state", "attempts#", "as known in", "at")
    shown.title = None
    for each in deliveries["items"]:
        state = f"{each['state']} ({each['reason']})" if each["reason"] else each["state"]
        shown.add_row(each["agent"], state, str(each["attempts"]), each["region"], each["at"] or "-")
    console().print(shown)


def _leaves(leaves: list[dict[str, Any]] | None) -> None:
    if leaves is None:
        console().print("[bold]Audit log[/] not yours to read")
        return
    shown = table("Audit log", "leaf", "at", "in", "index#", "proof", "witnesses")
    for leaf in leaves:
        names = ", ".join(name.rpartition("/")[2] for name in leaf["witnesses"])
        index = "-" if leaf["index"] is None else str(leaf["index"])
        shown.add_row(leaf["kind"], leaf["at"], leaf["region"], index, _proof(leaf), names or "-")
    console().print(shown)
    for command in dict.fromkeys(leaf["prove"] for leaf in leaves):
        console().print(f"  prove    {command}", soft_wrap=True)


def _proof(leaf: Mapping[str, Any]) -> str:
    if leaf["state"] == "proven":
        return "[green]checked[/]" if leaf["proven"] else "[red]does not hold[/]"
    words = {
        "not-yet-sequenced": "not yet sequenced",
        _ELSEWHERE: "its region is away",
        "missing": "[red]missing[/]",
    }
    return words[leaf["state"]]


def _name(principal: str) -> str:
    """Return a principal's own name: that of a tenant's begins with the tenant."""
    return principal.rpartition("\n")[2]
