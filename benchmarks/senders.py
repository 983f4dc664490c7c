"""Sends governed messages over a few connections, at a rate or as fast as they are answered; prints what it saw.

    python benchmarks/senders.py PLAN.json

A process of its own, so that it does not share an interpreter with what reads the results. Messages are written
before the clock starts, and what a message took counts from when it was due, not from when there was time for it:
a server that falls behind cannot hide it (coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import uvloop

from acgs2.model.ids import uuid7


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with one request at a time."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.answer: asyncio.Future[int] | None = None
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0]
        if len(rest) >= int(length or 0):
            self.buffer = rest[int(length or 0) :]
            if self.answer is not None and not self.answer.done():
                self.answer.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(exc or ConnectionError("closed"))

    async def ask(self, request: bytes) -> int:
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        async with asyncio.timeout(30):
            return await self.answer


def requests(plan: dict[str, Any], count: int) -> list[bytes]:
    """Return messages as they go over the wire, each with an id of its own, in conversations of 16."""
    host = urlsplit(plan["url"]).netloc
    made: list[bytes] = []
    now_ms = time.time_ns() // 1_000_000
    conversation: UUID = uuid4()
    for number in range(count):
        if number % 16 == 0:
            conversation = uuid4()
        sender, receiver = random.sample(plan["agents"], 2)
        body = json.dumps(
            {
                "message_id": str(uuid7(now_ms, os.urandom(10))),
                "conversation_id": str(conversation),
                "tenant_id": plan["tenant"],
                "from_agent": sender,
                "to_agent": receiver,
                "message_type": "greeting",
                "content": "x" * plan.get("content_bytes", 200),
                "payload": {"order": number, "note": "as agreed"},
                "constitutional_hash": plan["constitution"],
            }
        ).encode()
        head = (
            f"POST /api/v1/messages HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {plan['token']}\r\n"
            f"x-data-sovereignty: {plan['zone']}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


class Run:
    """One measurement."""

    def __init__(self, plan: dict[str, Any], messages: list[bytes]) -> None:
        self.plan = plan
        self.messages = messages
        self.took_ms: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.next = 0

    async def worker(self, began_s: float, until_s: float) -> None:
        """Send what is due next until there is no time or no message left."""
        url = urlsplit(self.plan["url"])
        loop = asyncio.get_running_loop()
        tls = None
        if url.scheme == "https":
            tls = ssl.create_default_context(cafile=self.plan["ca"])
        _, connection = await loop.create_connection(Connection, url.hostname, url.port, ssl=tls)
        rate = self.plan.get("rate")
        while self.next < len(self.messages):
            number = self.next
            self.next += 1
            due_s = began_s + number / rate if rate else time.perf_counter()
            if due_s >= until_s:
                break
            if (early_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            try:
                status = str(await connection.ask(self.messages[number]))
            except (OSError, TimeoutError) as error:
                status = type(error).__name__
                _, connection = await loop.create_connection(Connection, url.hostname, url.port, ssl=tls)
            self.statuses[status] += 1
            if status in ("200", "201"):
                self.took_ms.append((time.perf_counter() - due_s) * 1000)
        connection.transport.close()


async def measure(plan: dict[str, Any]) -> dict[str, Any]:
    count = int(plan["seconds"] * (plan.get("rate") or plan.get("at_most_per_s", 12_000)))
    messages = requests(plan, count)
    run = Run(plan, messages)
    began_s = time.perf_counter()
    cpu_s = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(plan["connections"]):
            group.create_task(run.worker(began_s, began_s + plan["seconds"]))
    took_s = time.perf_counter() - began_s
    return {
        "seconds": took_s,
        "took_ms": run.took_ms,
        "statuses": dict(run.statuses),
        "generator": (time.process_time() - cpu_s) / took_s,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))))
