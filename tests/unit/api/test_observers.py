"""What is made of an answer, and how long one is waited for."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from acgs2.api.neighbours import Neighbours
from acgs2.api.observers import patience_s, problem_of

PROBLEM = {"type": "https://acgs2.example/problems/region-away", "status": 503}


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, {"status": "ready"}, None),
        (200, {"status": "not-ready"}, "answered 200"),
        (200, ["ready"], "answered 200"),
        (204, None, "answered 204"),
        (503, {"status": "not-ready", "missing": ["database", "lag"]}, "not-ready: database, lag"),
        (503, PROBLEM, "region-away"),
        (503, {"status": "ready"}, "answered 503"),
        (404, {}, "answered 404"),
    ],
)
def test_only_who_says_to_be_ready_is(status: int, body: object, problem: str | None) -> None:
    answer = httpx.Response(status) if body is None else httpx.Response(status, json=body)
    assert problem_of(answer) == problem


def test_what_is_no_json_is_no_answer_of_ours() -> None:
    assert problem_of(httpx.Response(200, text="<html>")) == "answered 200"


@pytest.mark.parametrize(("rtt_ms", "waits_s"), [(0, 1), (80, 1), (200, 1.6), (1000, 3)])
def test_a_far_region_is_waited_for_longer_within_bounds(rtt_ms: float, waits_s: float) -> None:
    assert patience_s(rtt_ms) == waits_s


async def _answering(after_s: list[float], connections: list[int]) -> asyncio.Server:
    """Serve on a free port; each answer comes after the next of `after_s`, or ends the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                wait_s = after_s.pop(0) if after_s else 0
                if wait_s < 0:
                    break
                await asyncio.sleep(wait_s)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


def test_what_is_answered_late_leaves_its_connection_to_the_next() -> None:
    async def run() -> None:
        connections: list[int] = []
        server = await _answering([0.2], connections)
        neighbours = Neighbours({"b": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"})
        with pytest.raises(TimeoutError):
            await neighbours.get("b", "/health/ready", 0.05)
        await asyncio.sleep(0.3)
        assert (await neighbours.get("b", "/health/ready", 1)).status_code == 200
        assert len(connections) == 1
        await neighbours.close()
        server.close()

    asyncio.run(run())


def test_a_kept_connection_that_was_closed_is_no_failure_and_nobody_there_is_one() -> None:
    async def run() -> None:
        connections: list[int] = []
        server = await _answering([0, -1], connections)
        neighbours = Neighbours({"b": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"})
        assert neighbours.regions == ("b",)
        for _ in range(2):
            assert (await neighbours.get("b", "/health/ready", 1)).status_code == 200
        assert len(connections) == 2
        server.close()
        await neighbours.close()
        away = Neighbours({"b": "http://127.0.0.1:1"})
        with pytest.raises(httpx.ConnectError):
            await away.get("b", "/health/ready", 1)
        await away.close()

    asyncio.run(run())
