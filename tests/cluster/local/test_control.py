"""Whoever asks the supervisor or the links is never left to take silence, or a fault, for done."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest
from tests.cluster.conftest import free_port

from acgs2.errors import AcgsError, RuntimeFault
from acgs2.local.control import ask, serve


async def answered(request: dict[str, Any]) -> dict[str, Any]:
    port = free_port()

    async def handle(asked: dict[str, Any]) -> dict[str, Any]:
        return {"done": asked["what"] / 2}

    server = await serve(port, "token", handle)
    try:
        return await asyncio.to_thread(ask, port, "token", request)
    finally:
        server.close()


def test_an_answer_is_an_answer() -> None:
    assert asyncio.run(answered({"what": 4})) == {"done": 2}


@pytest.mark.parametrize("request_", [{"what": "x"}, {}], ids=["of a wrong type", "that lacks something"])
def test_what_nobody_foresaw_is_an_error(request_: dict[str, Any]) -> None:
    with pytest.raises(AcgsError):
        asyncio.run(answered(request_))


def test_who_breaks_off_has_not_done_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def break_off() -> None:
            conn, _ = listening.accept()
            conn.recv(1000)
            conn.close()

        thread = threading.Thread(target=break_off)
        thread.start()
        with pytest.raises(RuntimeFault, match="without an answer"):
            ask(listening.getsockname()[1], "token", {"action": "adopt"})
        thread.join()
