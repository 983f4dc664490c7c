"""The register over Debian's etcd does what every register must, and what only etcd can get wrong."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.behaviours.register import RegisterBehaviours
from tests.cluster.conftest import folder
from tests.conformance.certificates import make_certificates
from tests.conformance.etcd import Etcd

from acgs2.api.agreement import register_for
from acgs2.consensus import EtcdRegister, Lease
from acgs2.errors import RuntimeFault, UnavailableError
from acgs2.topology import parse

WITH_ETCD = """
name: one
domain: acgs2.example
constitution: {{id: x}}
regions:
  eu-west-1: {{country: IE}}
zones:
  eu: {{regulation: gdpr, regions: [eu-west-1]}}
agreement: {{register: etcd, endpoints: {endpoints}{more}}}
"""


class Members:
    """The members of an etcd as a group that agrees."""

    def __init__(self, etcd: Etcd) -> None:
        self.etcd = etcd
        self.kill, self.start, self.freeze, self.thaw = etcd.kill, etcd.start, etcd.freeze, etcd.thaw

    @property
    def members(self) -> Sequence[str]:
        return self.etcd.members

    @asynccontextmanager
    async def register(self, me: str) -> AsyncIterator[EtcdRegister]:
        made = EtcdRegister(self.etcd.endpoints, "test", rng=Random(me))
        try:
            yield made
        finally:
            await made.close()


@pytest.fixture
def group(etcd: Etcd) -> Members:
    return Members(etcd)


class TestEtcd(RegisterBehaviours):
    pass


class Lossy:
    """A way to a member that carries every request through, and loses the answers to changes."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])
        self.lost = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        member, to_member = await asyncio.open_connection("127.0.0.1", self._port)
        changing = asyncio.Event()
        for pump in (
            self._requests(client, to_member, changing),
            self._answers(member, to_client, changing),
        ):
            self._tasks.add(asyncio.create_task(pump))

    async def _requests(
        self, client: asyncio.StreamReader, sink: asyncio.StreamWriter, changing: asyncio.Event
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await client.read(65536):
                if b"/v3/kv/txn" in data:
                    changing.set()
                sink.write(data)
                await sink.drain()
        sink.close()

    async def _answers(
        self, member: asyncio.StreamReader, sink: asyncio.StreamWriter, changing: asyncio.Event
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await member.read(65536):
                if changing.is_set():
                    self.lost += 1
                    continue
                sink.write(data)
                await sink.drain()
        sink.close()


def test_a_change_whose_answer_is_lost_is_done_once(etcd: Etcd) -> None:
    """Adding one does not know its own effect: done twice it would be two."""
    lossy = Lossy(etcd.endpoints[0])
    seen: list[Any] = []

    def add_one(value: Any) -> Any:
        seen.append(value)
        return (value or 0) + 1

    async def run() -> None:
        async with lossy.listening() as url:
            register = EtcdRegister([url, *etcd.endpoints[1:]], "test", rng=Random(0))
            assert (await register.change("k", add_one)).version == 1
            assert lossy.lost == 1
            assert seen == [None], "its own effect was known by its name"
            agreed = await register.read("k")
            assert (agreed.version, agreed.value) == (1, 1)
            await register.close()

    asyncio.run(run())


def test_a_lease_that_was_granted_unheard_is_held_nevertheless(etcd: Etcd) -> None:
    lossy = Lossy(etcd.endpoints[0])

    async def run() -> None:
        async with lossy.listening() as url:
            register = EtcdRegister([url, etcd.endpoints[1]], "test", timeout_s=0.5, rng=Random(0))
            lease = Lease(register, "serve", "a", 10.0)
            assert await lease.step()
            assert (lossy.lost, lease.term) == (1, 1)
            await register.close()

    asyncio.run(run())


def test_a_member_that_does_not_serve_the_gateway_is_named(etcd_program: str) -> None:
    async def run(etcd: Etcd) -> None:
        register = EtcdRegister(etcd.endpoints, "test")
        with pytest.raises(UnavailableError, match=etcd.endpoints[0]) as caught:
            await register.read("k")
        assert caught.value.reference == "register-refuses"
        assert "gateway" in caught.value.hint
        await register.close()

    flags = ["--enable-grpc-gateway=false"]
    with folder() as path, Etcd(etcd_program, path, 1, flags=flags).running() as etcd:
        asyncio.run(run(etcd))


def test_etcd_that_asks_for_certificates_is_spoken_to_as_the_topology_says(etcd_program: str) -> None:
    with folder() as path:
        make_certificates(path, ["ca", "other"])
        flags = ["--client-cert-auth", "--trusted-ca-file", str(path / "ca.pem")]
        flags += ["--cert-file", str(path / "ca-peer.pem"), "--key-file", str(path / "ca-peer.key")]
        tls = ssl.create_default_context(cafile=str(path / "ca.pem"))
        tls.load_cert_chain(path / "ca-peer.pem", path / "ca-peer.key")
        with Etcd(etcd_program, path, 1, flags=flags, tls=tls).running() as etcd:
            asyncio.run(_speak(etcd, path))


async def _speak(etcd: Etcd, path: Path) -> None:
    async def version(ca: str, own: str | None) -> int:
        named = f", certificate: {path / own}.pem, key: {path / own}.key" if own else ""
        topology = parse(WITH_ETCD.format(endpoints=etcd.endpoints, more=f", ca: {path / ca}.pem{named}"))
        register = register_for(topology, "eu-west-1", {})
        assert isinstance(register, EtcdRegister)
        try:
            return (await register.change("k", lambda v: (v or 0) + 1)).version
        finally:
            await register.close()

    assert await version("ca", "ca-peer") == 1
    for ca, own in (("ca", None), ("ca", "other-peer"), ("other", "ca-peer")):
        with pytest.raises(UnavailableError):
            await version(ca, own)
    assert await version("ca", "ca-peer") == 2
    with pytest.raises(RuntimeFault, match="etcd") as caught:
        await version("ca", "missing")
    assert caught.value.reference == "etcd-tls"
