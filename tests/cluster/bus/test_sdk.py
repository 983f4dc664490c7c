"""The SDK and the command line of the bus against a whole cluster: examples, takeovers, held messages."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from acgs2 import Client
from acgs2.errors import ConflictError, ForbiddenError
from acgs2.local.cluster import Cluster
from acgs2.local.loopback import health

from ..conftest import await_that
from .speaker import APPROVERS, PAYMENT, Speaker

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
WEST, CENTRAL = "eu-west-1", "eu-central-1"


@pytest.fixture(scope="module")
def eu(cluster: Cluster) -> Iterator[Speaker]:
    def governs(region: str) -> bool:
        return bool(health(cluster.state.url(region)).get("governance", {}).get("serving"))

    await_that(lambda: all(map(governs, (WEST, CENTRAL))), "both regions to govern")
    speaker = Speaker(cluster, "eu", WEST)
    await_that(lambda: served_by(speaker), "somebody to serve the zone's inboxes")
    yield speaker
    speaker.http.close()


def served_by(eu: Speaker, region: str = WEST) -> str | None:
    zones = eu.ask("GET", "/api/v1/inboxes", region=region).json()["zones"]
    return next((each["region"] for each in zones if each["zone"] == "eu"), None)


def urls(eu: Speaker) -> list[str]:
    return [eu.cluster.state.url(region) for region in (WEST, CENTRAL)]


def client(eu: Speaker, token: str = "", **more: Any) -> Client:
    ca = eu.cluster.state.trust
    return Client(urls(eu), **{"zone": "eu", "token": token or eu.service, "ca": ca, **more})


def example(eu: Speaker, name: str, **who: str) -> str:
    given = {"ACGS2_URLS": ",".join(urls(eu)), "ACGS2_CA": str(eu.cluster.state.trust)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env=os.environ | given | who,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cli(eu: Speaker, *words: str, status: int = 0) -> Any:
    command = [sys.executable, "-m", "acgs2.cli", "--state", str(eu.cluster.state.path), *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout if status == 0 else done.stderr)


def test_two_agents_talk(eu: Speaker) -> None:
    ann, ben, _ = eu.agents
    said = example(
        eu, "two_agents.py", ANN=ann, BEN=ben, ANN_TOKEN=eu.agent_token(ann), BEN_TOKEN=eu.agent_token(ben)
    )
    assert said == f"durable in {CENTRAL} {WEST}\nanswer HELLO\n"


def test_a_buyer_and_a_seller_agree(eu: Speaker) -> None:
    buyer, seller, _ = eu.agents
    tokens = {"BUYER_TOKEN": eu.agent_token(buyer), "SELLER_TOKEN": eu.agent_token(seller)}
    assert example(eu, "negotiation.py", BUYER=buyer, SELLER=seller, **tokens) == "counter 80\nagreed on 80\n"


def test_a_held_payment_is_approved_by_people(eu: Speaker) -> None:
    payer, bank, _ = eu.agents
    tokens = {"PAYER_TOKEN": eu.agent_token(payer), "BANK_TOKEN": eu.agent_token(bank)}
    tokens |= {
        name: eu.token(who, "approver")
        for name, who in zip(("FIRST_TOKEN", "SECOND_TOKEN"), APPROVERS, strict=False)
    }
    said = example(eu, "held_action.py", PAYER=payer, BANK=bank, **tokens).splitlines()
    assert said[0].startswith("deliberate ")
    assert said[-1] == "payment {'amount': 50000}"
    assert "approved" in said[-2]


def test_what_is_refused_is_an_error_that_explains(eu: Speaker) -> None:
    operator = eu.token("operator@test", "operator")
    body = {"tenant_id": eu.tenant, "name": "old", "status": "retired"}
    retired = eu.ask("POST", "/api/v1/agents", body, token=operator).json()["id"]

    async def act() -> None:
        said = {"from_agent": eu.agents[0], "message_type": "note"}
        async with client(eu) as ours:
            with pytest.raises(ForbiddenError) as caught:
                await ours.send(to_agent=retired, **said)
            assert caught.value.reference == "denied-by-policy"
            assert caught.value.context["basis"]["policies"]
        async with client(eu, constitution="0" * 16) as other:
            with pytest.raises(ConflictError) as mismatch:
                await other.send(to_agent=eu.agents[1], **said)
            assert mismatch.value.reference == "constitutional-hash-mismatch"

    asyncio.run(act())


def test_the_command_line_sends_holds_approves_and_takes(eu: Speaker) -> None:
    one, two, _ = eu.agents
    where = ("--region", WEST)
    as_sender = (*where, "--zone", "eu", "--tenant", eu.tenant, "--from", one, "--to", two)
    payload = json.dumps(PAYMENT["payload"])
    held = cli(
        eu, "messages", "send", *as_sender, "--type", "payment", "--payload", payload, "--priority", "3"
    )
    message = held["message_id"]
    assert held["decision"] == "deliberate"
    assert message in [each["message_id"] for each in cli(eu, "deliberations", "list", *where)]
    for name in APPROVERS[:2]:
        cli(eu, "deliberations", "approve", message, *where, "--as", name, "--reason", "fine")
    await_that(
        lambda: cli(eu, "deliberations", "show", message, *where)["state"] == "approved", "the verdict"
    )
    taken = cli(eu, "messages", "watch", two, "--zone", "eu", "--tenant", eu.tenant, "-n", "1")
    assert taken["message_id"] == message
    assert cli(eu, "messages", "show", message, *where)["decision"] == "deliberate"
    eve = cli(eu, "deliberations", "approve", message, *where, "--as", "eve", status=3)
    assert eve["error"] == "deliberation-unknown"
    wrong = cli(eu, "messages", "send", *as_sender, "--type", "note", "--payload", "[1]", status=2)
    assert wrong["error"] == "payload-invalid"


def test_nothing_is_worked_on_twice_while_the_serving_region_dies(eu: Speaker) -> None:
    sender, receiver = eu.agents[0], eu.agents[2]
    conversations = [str(uuid4()) for _ in range(3)]
    seen: list[tuple[str, int]] = []
    serving = served_by(eu)
    assert serving is not None

    async def send(ours: Client) -> None:
        for number in range(30):
            await ours.send(
                from_agent=sender,
                to_agent=receiver,
                message_type="note",
                payload={"number": number},
                conversation_id=conversations[number % 3],
                timeout_s=60,
            )
            if number == 9:
                await asyncio.to_thread(eu.cluster.ask, "kill", region=serving)

    async def act() -> None:
        async with client(eu) as ours, asyncio.timeout(150), asyncio.TaskGroup() as tasks:
            tasks.create_task(send(ours))
            async for message in ours.inbox(receiver, hold_s=5, wait_s=5, timeout_s=10):
                seen.append((str(message.conversation_id), message.payload["number"]))
                if len(seen) == 30:
                    await message.acknowledge()
                    break

    try:
        asyncio.run(act())
    finally:
        eu.cluster.ask("start", region=serving)
    for nth, conversation in enumerate(conversations):
        assert [n for c, n in seen if c == conversation] == list(range(nth, 30, 3))
