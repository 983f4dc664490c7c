"""A trace put together from what several regions know."""

from __future__ import annotations

from typing import Any

import pytest

from acgs2.cli.trace import joined, print_trace

WEST, CENTRAL = "eu-west-1", "eu-central-1"


def leaf(kind: str, region: str, state: str, at: str) -> dict[str, Any]:
    known = {"index": 4, "witnesses": [f"acgs2.example/x/{CENTRAL}"]} if state == "proven" else {}
    return {
        "kind": kind,
        "region": region,
        "state": state,
        "at": at,
        "index": None,
        "witnesses": [],
        "proven": state == "proven",
        "prove": f"acgs2 audit prove ID --region {region}",
        **known,
    }


def trace(region: str, audit: list[dict[str, Any]] | None, **changed: Any) -> dict[str, Any]:
    return {
        "region": region,
        "message": {
            "message_id": "M",
            "message_type": "[bold]payment[/bold]",
            "from_agent": "A",
            "to_agent": None,
            "to_tenant_id": None,
            "topic": "[red]prices[/red]",
            "tenant_id": "T",
            "proposer": "T\nservice@cli",
            "priority": 1,
            "conversation_id": "C",
            "expires_at": None,
        },
        "verdict": {
            "decision": "deliberate",
            "impact": 0.8,
            "basis": {"policies": ["p"], "factors": [{"share": 500, "why": "[x]"}]},
            "accepted": [{"region": WEST, "at": "1", "decision": "deliberate"}],
        },
        "deliberation": {
            "state": "open",
            "held_since": "1",
            "deadline": "9",
            "holds": [{"group": "safety", "approvals": 2}],
            "missing": {"safety": 1},
            "approvals": [{"approver": "T\n[b]ann[/b]", "decision": "approve", "at": "2", "reason": "[i]"}],
        },
        "receipt": {
            "zone": "eu",
            "residency": {WEST: "home", CENTRAL: None},
            "durable_in": [region],
            "been_in": [region],
        },
        "deliveries": {"served_by": CENTRAL, "generation": 3, "items": [], "asked": region},
        "audit": audit,
    } | changed


HERE = [leaf("message", WEST, "proven", "1"), leaf("approval", CENTRAL, "elsewhere", "2")]
THERE = [leaf("message", WEST, "elsewhere", "1"), leaf("approval", CENTRAL, "not-yet-sequenced", "2")]


def test_each_region_is_believed_about_its_own() -> None:
    whole = joined(trace(WEST, HERE), {CENTRAL: trace(CENTRAL, THERE)})
    assert [each["state"] for each in whole["audit"]] == ["proven", "not-yet-sequenced"]
    assert whole["deliveries"]["asked"] == CENTRAL
    assert whole["receipt"]["durable_in"] == [CENTRAL, WEST]
    assert whole["regions"] == [WEST, CENTRAL]


def test_what_a_region_that_is_away_knows_stays_open() -> None:
    whole = joined(trace(WEST, HERE), {})
    assert [each["state"] for each in whole["audit"]] == ["proven", "elsewhere"]
    assert (whole["regions"], whole["deliveries"]["asked"]) == ([WEST], WEST)


def test_a_log_that_is_not_the_bearers_stays_closed() -> None:
    assert joined(trace(WEST, None), {CENTRAL: trace(CENTRAL, THERE)})["audit"] is None


def test_what_people_wrote_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_trace(joined(trace(WEST, HERE), {}))
    said = capsys.readouterr().out
    for words in (
        "[bold]payment[/bold] M",
        "topic [red]prices[/red]",
        "0.500: [x]",
        "[b]ann[/b] approve: [i]",
        "waits    for 1 of safety until 9",
        "eu-central-1 (no ground now)",
        "served by eu-central-1, generation 3: none",
        "its region is away",
    ):
        assert words in said, said
    print_trace(trace(WEST, None))
    assert "not yours to read" in capsys.readouterr().out
