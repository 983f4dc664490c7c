"""The relay with real sockets: every byte, in order, after the distance; faults that behave as faults do."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from tests.cluster.conftest import free_port

from acgs2.errors import InputError, RuntimeFault
from acgs2.local.links import LinksConfig, LinkSpec, RouteSpec
from acgs2.local.links.__main__ import Links

Scenario = Callable[[Links, int], Awaitable[None]]


def with_echo(scenario: Scenario, *, rtt_ms: float = 40, target_open: bool = True) -> None:
    """Run a scenario against links whose route leads to an echo server."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write(b"<end>")
        writer.close()

    async def run() -> None:
        listen, target = free_port(), free_port()
        server = await asyncio.start_server(echo, "127.0.0.1", target) if target_open else None
        route = RouteSpec(source="a", target="b", service="api", listen_port=listen, target_port=target)
        links = Links(
            LinksConfig(
                control_port=0, token="t", routes=[route], links=[LinkSpec(a="a", b="b", rtt_ms=rtt_ms)]
            )
        )
        await links.start()
        await asyncio.wait_for(scenario(links, listen), 30)
        if server is not None:
            server.close()

    asyncio.run(run())


def test_every_byte_arrives_in_order_and_the_end_after_them() -> None:
    async def scenario(links: Links, port: int) -> None:
        sent = Random(1).randbytes(6_000_000)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        writer.write_eof()
        assert await reader.read(-1) == sent + b"<end>"
        writer.close()

    with_echo(scenario)


def test_an_answer_takes_a_round_trip_and_a_connection_one_more() -> None:
    async def scenario(links: Links, port: int) -> None:
        began_s = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        assert time.monotonic() - began_s >= 0.04
        times = []
        for _ in range(20):
            began_s = time.monotonic()
            writer.write(b"y")
            await reader.readexactly(1)
            times.append(time.monotonic() - began_s)
        assert min(times) >= 0.04
        assert sorted(times)[10] < 0.08
        writer.close()

    with_echo(scenario)


def test_a_cut_holds_bytes_and_restoring_delivers_them() -> None:
    async def scenario(links: Links, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"1")
        await reader.readexactly(1)
        links.handle({"action": "cut", "a": "a", "b": "b"})
        writer.write(b"2")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.3)
        late = asyncio.create_task(asyncio.open_connection("127.0.0.1", port))
        links.handle({"action": "restore", "a": "a", "b": "b"})
        assert await reader.readexactly(1) == b"2"
        late_reader, late_writer = await late
        late_writer.write(b"3")
        assert await late_reader.readexactly(1) == b"3"
        writer.close()
        late_writer.close()

    with_echo(scenario, rtt_ms=4)


def test_restoring_with_a_reset_kills_what_was_cut() -> None:
    async def scenario(links: Links, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"1")
        await reader.readexactly(1)
        links.handle({"action": "cut", "a": "b", "b": "a", "one_way": True})
        links.handle({"action": "restore", "a": "a", "b": "b", "reset": True})
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()

    with_echo(scenario, rtt_ms=4)


def test_a_target_that_refuses_closes_the_connection_after_the_way_back() -> None:
    async def scenario(links: Links, port: int) -> None:
        began_s = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read(1) == b""
        assert time.monotonic() - began_s >= 0.04
        writer.close()

    with_echo(scenario, target_open=False)


def test_a_taken_port_and_an_unknown_link_are_clear_errors() -> None:
    async def run(port: int) -> None:
        route = RouteSpec(source="a", target="b", service="api", listen_port=port, target_port=1)
        links = Links(
            LinksConfig(control_port=0, token="t", routes=[route], links=[LinkSpec(a="a", b="b", rtt_ms=1)])
        )
        with pytest.raises(InputError, match="no link between a and mars"):
            links.handle({"action": "cut", "a": "a", "b": "mars"})
        with pytest.raises(InputError, match="no action"):
            links.handle({"action": "explode", "a": "a", "b": "b"})
        await links.start()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RuntimeFault, match=r"Port \d+ for a to b"):
            asyncio.run(run(taken.getsockname()[1]))
