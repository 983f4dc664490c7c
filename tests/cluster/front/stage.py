"""A front without regions: the edge and gateways as they are run, and behind them what records all it is sent."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import ssl
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from tests.cluster.conftest import TRIO, await_that, folder, free_port

from acgs2.drivers.envoy import Traffic
from acgs2.local.child import Child
from acgs2.local.proxies import Proxies
from acgs2.local.state import State, create_state
from acgs2.plan import rights_of

T = TypeVar("T")
PROBLEM = "application/problem+json"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
#: What a recorder does with a request that is no probe.
Mode = Literal["answer", "hold", "reset", "nothing-stored", "deaf"]


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Recorder:
    """What stands where a region's server would: it keeps every byte, and answers 200 or as it is told."""

    def __init__(self, loop: Loop, port: int) -> None:
        self.port = port
        self.seen = bytearray()
        self.mode: Mode = "answer"
        self.under_way = 0
        self._loop = loop
        self._connections: set[asyncio.Transport] = set()
        self._held: list[asyncio.Transport] = []
        self._server: asyncio.Server | None = None

    def listen(self) -> None:
        async def begin() -> None:
            self._server = await self._loop.loop.create_server(
                lambda: _Connection(self), "127.0.0.1", self.port
            )

        self._loop.run(begin())

    def drop(self) -> None:
        """End all connections, and take no other."""

        async def end() -> None:
            if self._server is not None:
                self._server.close()
            for transport in self._connections:
                transport.abort()
            self._connections.clear()

        self._loop.run(end())

    def joined(self, transport: asyncio.Transport) -> None:
        self._connections.add(transport)

    def release(self) -> None:
        """Answer all that is held, and what comes from now on."""

        async def answer() -> None:
            self.mode = "answer"
            for transport in self._held:
                transport.write(answer_of(200))
            self._held.clear()
            self.under_way = 0

        self._loop.run(answer())

    def take(self, head: bytes, transport: asyncio.Transport) -> None:
        if b" /health" in head.split(b"\r\n", 1)[0]:
            transport.write(answer_of(200))
        elif self.mode == "hold":
            self.under_way += 1
            self._held.append(transport)
        elif self.mode == "reset":
            transport.abort()
        elif self.mode == "nothing-stored":
            transport.write(answer_of(503, "x-acgs2-nothing-stored: 1\r\n"))
        elif self.mode == "answer":
            transport.write(answer_of(200))

    def tokens(self) -> set[str]:
        """Return the tokens that were in what came."""
        return set(re.findall("token-[0-9a-f]+", self.seen.decode("latin-1")))


def answer_of(status: int, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\ncontent-length: 2\r\n{headers}\r\nok".encode()


class Relay:
    """Carries bytes to another port, and keeps them all."""

    def __init__(self, loop: Loop, port: int, target: int) -> None:
        self.port = port
        self.seen = bytearray()
        self._target = target
        self._carrying: set[asyncio.Task[Any]] = set()
        self._server = loop.run(asyncio.start_server(self._join, "127.0.0.1", port))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        ways = asyncio.gather(self._carry(reader, back), self._carry(there, writer))
        self._carrying.add(asyncio.ensure_future(ways))  # type: ignore[arg-type]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.seen += data
                writer.write(data)
        except ConnectionError:
            pass  # the other end is told below
        finally:
            writer.close()

    async def close(self) -> None:
        self._server.close()
        for ways in self._carrying:
            ways.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)


class _Connection(asyncio.Protocol):
    """Finds where requests end; bodies have a length or come in chunks."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._recorder.joined(transport)

    def data_received(self, data: bytes) -> None:
        self._recorder.seen += data
        self._rest += data
        head, found, body = self._rest.partition(b"\r\n\r\n")
        if not found:
            return
        if b"transfer-encoding" in head.lower():
            whole = body.endswith(b"0\r\n\r\n")
        else:
            length = _LENGTH.search(head)
            whole = len(body) >= int(length[1] if length else 0)
        if whole:
            self._rest = b""
            self._recorder.take(head, self._transport)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> str:
        """Return the reference of the problem document that this is; whatever is none, fails."""
        assert self.headers["content-type"] == PROBLEM, (self.status, self.headers)
        document = json.loads(self.body)
        assert {"type", "title", "status", "detail"} <= document.keys(), document
        assert document["status"] == self.status
        return str(document["type"].rsplit("/", 1)[1])


class Client:
    """One connection to one port, made again when it is gone."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.connection = http.client.HTTPSConnection("localhost", port, timeout=40, context=context)

    def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        self.connection.request(method, path, body, {**(headers or {})})
        found = self.connection.getresponse()
        lowered = {name.lower(): value for name, value in found.getheaders()}
        return Answer(found.status, lowered, found.read())

    def close(self) -> None:
        self.connection.close()


class Stage:
    """Edge and gateways of a topology, and a recorder in place of each region's server."""

    def __init__(self, state: State, loop: Loop) -> None:
        self.state = state
        self.topology = state.topology
        self.traffic = Traffic(rights_of(state.topology, datetime.now(UTC)))
        self.collector = Recorder(loop, int(str(state.topology.observability.otlp).rpartition(":")[2]))
        self.proxies = Proxies(state)
        self.proxies.certify()
        self.recorders = {r: Recorder(loop, state.ports[f"api/{r}"]) for r in self.topology.stacks()}
        self.gateways: dict[str, Child] = {}
        self.edge: Child | None = None
        self.loop = loop
        self._context = ssl.create_default_context(cafile=str(state.trust))

    def client(self, place: str) -> Client:
        return Client(self.state.ports[f"edge/{place}"], self._context)

    def near(self, region: str) -> Client:
        """Return a client of a region's gateway."""
        return Client(self.state.ports[f"gateway/{region}"], self._context)

    def start(self) -> None:
        self.collector.listen()
        for region, recorder in self.recorders.items():
            recorder.listen()
            self.open(region)
        if self.topology.places:
            self.edge = self.proxies.edge(self.traffic)
            self.loop.run(self.edge.start())
            for place in self.topology.places:
                await_that(lambda p=place: self._listens(f"edge/{p}"), f"the edge in {place}")

    def open(self, region: str) -> None:
        """Start a region's gateway, and wait until it has found its server."""
        if region not in self.gateways:
            self.gateways[region] = self.proxies.gateway(region)
        self.loop.run(self.gateways[region].start())
        await_that(lambda: self._listens(f"gateway/{region}"), f"the gateway of {region}")

    def kill(self, region: str) -> None:
        """Have connections to a region refused."""
        self.loop.run(self.gateways[region].kill())

    def _listens(self, name: str) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.state.ports[name])) == 0

    def logged(self) -> str:
        """Return every log of every proxy."""
        return "".join(p.read_text(errors="replace") for p in self.state.logs.iterdir())

    def stop(self) -> None:
        for child in (*self.gateways.values(), *([self.edge] if self.edge else [])):
            self.loop.run(child.kill())
        for recorder in (*self.recorders.values(), self.collector):
            recorder.drop()


@contextmanager
def staged(topology: str) -> Iterator[Stage]:
    """Run a front for the text of a topology; there are no distances."""
    loop = Loop()
    try:
        with folder() as path:
            traced = f"{topology}observability: {{otlp: 'http://127.0.0.1:{free_port()}'}}\n"
            (path / "topology.yaml").write_text(traced, encoding="utf-8")
            state = create_state(path / "state", path / "topology.yaml")
            direct = {
                f"route/{way.a}/{way.b}": state.ports[f"gateway/{way.b}"]
                for way in state.topology.client_links()
            }
            stage = Stage(replace(state, ports={**state.ports, **direct}), loop)
            try:
                stage.start()
                yield stage
            finally:
                stage.stop()
    finally:
        loop.close()


class Caller:
    """Requests that each have a connection of their own and wait for their answers."""

    def __init__(self, stage: Stage, port: int, method: str = "GET") -> None:
        self.answers: list[tuple[int, bytes]] = []
        self._stage = stage
        self._port = port
        self._context = ssl.create_default_context(cafile=str(stage.state.trust))
        self.method = method
        self._under_way: set[asyncio.Task[None]] = set()

    def send(self, count: int = 1, headers: str = "") -> None:
        async def begin() -> None:
            for _ in range(count):
                self._under_way.add(asyncio.create_task(self._one(headers)))

        self._stage.loop.run(begin())

    async def _one(self, headers: str) -> None:
        reader, writer = await asyncio.open_connection("localhost", self._port, ssl=self._context)
        writer.write(f"{self.method} /api/v1/users HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: ([0-9]+)", head)
        self.answers.append((int(head.split()[1]), await reader.readexactly(int(length[1] if length else 0))))
        writer.close()

    def count(self, status: int) -> int:
        return sum(1 for found, _ in self.answers if found == status)

    def problems(self) -> set[str]:
        return {json.loads(body)["type"].rsplit("/", 1)[1] for status, body in self.answers if status != 200}


#: Three regions, with clients near each.
SMALL = f"""{TRIO}places:
  dublin: {{location: [53.35, -6.26], zone: eu}}
  frankfurt: {{location: [50.11, 8.68], zone: eu}}
  new-york: {{location: [40.71, -74.01], zone: us}}
"""


def builtin(name: str) -> str:
    """Return the text of a built-in topology."""
    from acgs2.topology import locate

    return Path(locate(name)).read_text(encoding="utf-8")
