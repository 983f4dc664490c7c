"""Inboxes as streams: server-sent events, and a WebSocket with a window of credit."""

# Annotations are values here, so that OpenAPI is true.

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Request, WebSocket, get, websocket
from litestar.connection import ASGIConnection
from litestar.exceptions import WebSocketDisconnect
from litestar.params import HeaderParameter, QueryParameter
from litestar.response import Stream
from msgspec import Meta

from acgs2.api.door import authenticate, guard_read
from acgs2.api.event_streams import ALIVE_S, FAULTS, LASTS_S, on_one_line, problem_of
from acgs2.api.inboxes import Agent, Claims, consumer
from acgs2.api.region import RegionServer
from acgs2.api.routes import RESPONSES, Zone
from acgs2.bus.claims import ClaimId, of_generation
from acgs2.bus.desk import Claimed, Receiver
from acgs2.bus.inboxes import Inboxes
from acgs2.bus.streams import Flow
from acgs2.errors import InputError
from acgs2.model import entities

__all__ = ["HANDLERS"]

_FRAME_BYTES = 64 * 1024
_READ = guard_read(entities()["message"])
Credit = Annotated[int, QueryParameter(name="credit", ge=1, le=100, description="Claims held at once.")]
LastEvent = Annotated[
    str | None,
    HeaderParameter(
        name="Last-Event-ID", max_length=200, description="The last claim of the stream that broke."
    ),
]
Hold = Annotated[float, QueryParameter(name="hold_s", ge=1, le=3600, description="How long each is held.")]


class CreditFrame(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="credit"):
    """How many claims the consumer holds at once at most."""

    credit: Annotated[int, Meta(ge=0, le=100)]


class AcknowledgeFrame(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="acknowledge"):
    """Claims that are done with."""

    claims: Claims


class ReturnFrame(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="return"):
    """Claims to be delivered again."""

    claims: Claims
    delay_s: Annotated[float, Meta(ge=0, le=3600)] = 0


_FRAME = msgspec.json.Decoder(CreditFrame | AcknowledgeFrame | ReturnFrame)


def _flow(server: RegionServer, receiver: Receiver, credit: int, hold_s: float) -> Flow:
    inboxes = server.inboxes
    return Flow(
        inboxes.desk,
        receiver,
        lambda known: inboxes.require(receiver, known),
        credit=credit,
        hold_s=hold_s,
        idle_s=ALIVE_S,
    )


@get(
    "/api/v1/inboxes/{agent:uuid}/events",
    guards=[authenticate, _READ],
    tags=["inbox"],
    summary="Take messages as they come (server-sent events)",
    responses=RESPONSES,
    media_type="text/event-stream",
)
async def events(
    request: Request[Any, Any, Any],
    agent: Agent,
    credit: Credit = 10,
    hold_s: Hold = 30,
    last: LastEvent = None,
    zone: Zone = None,
) -> Stream:
    """Send each claim as an event `message`, its id the claim; acknowledge them by the route for that.

    As many are under way as `credit` says. What is not acknowledged comes again when its hold ends; when the
    stream ends, all of that is given back at once. An event `problem` is the last: it says why, and where to
    go on. `Last-Event-ID` acknowledges nothing: it names the stream that broke, which is over then.
    """
    server: RegionServer = request.app.state.server
    receiver = await consumer(request, agent)
    server.inboxes.require(receiver)
    flow = _flow(server, receiver, credit, hold_s)
    return Stream(
        _events(server.inboxes, flow, last),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(inboxes: Inboxes, flow: Flow, last: str | None) -> AsyncIterator[bytes]:
    ends_s = time.monotonic() + LASTS_S
    yield b"retry: 1000\n\n"
    try:
        async with inboxes.streams.opened(flow, last), contextlib.aclosing(flow.claims()) as claims:
            async for claim in claims:
                if claim is None:
                    yield b": alive\n\n"
                else:
                    yield b"".join(
                        (
                            b"id: ",
                            claim.claim.encode(),
                            b"\nevent: message\ndata: ",
                            on_one_line(_told(flow, claim)),
                            b"\n\n",
                        )
                    )
                if time.monotonic() > ends_s:
                    return
    except FAULTS as error:
        yield b"event: problem\ndata: " + msgspec.json.encode(problem_of(error)) + b"\n\n"


def _told(flow: Flow, claim: Claimed, **more: Any) -> bytes:
    return msgspec.json.encode({**more, "generation": flow.generation, **msgspec.structs.asdict(claim)})


@websocket("/api/v1/inboxes/{agent:uuid}/stream")
async def stream(socket: WebSocket[Any, Any, Any], agent: Agent) -> None:
    """Push claims as frames of JSON, within a window of credit; acknowledgements come back as frames.

    From here: open, message, outcome, alive, problem (the last). To here: credit, acknowledge, return. What
    the consumer holds when the connection ends is returned at once.
    """
    await socket.accept()
    try:
        flow, receiver = await _opened(socket, agent)
    except FAULTS as error:
        await _end(socket, error)
        return
    talk = _Talk(socket, flow, receiver)
    await talk.run()


async def _opened(socket: WebSocket[Any, Any, Any], agent: Any) -> tuple[Flow, Receiver]:
    connection: ASGIConnection[Any, Any, Any, Any] = socket
    handler: Any = None
    authenticate(connection, handler)
    _READ(connection, handler)
    server: RegionServer = socket.app.state.server
    receiver = await consumer(connection, agent)
    try:
        credit = int(socket.query_params.get("credit", 10))
        hold_s = float(socket.query_params.get("hold_s", 30))
    except ValueError:
        credit, hold_s = -1, 0.0
    if not (0 <= credit <= 100 and 1 <= hold_s <= 3600):
        raise InputError("bad-request", "credit is 0 to 100, hold_s 1 to 3600.", hint="Leave them out.")
    flow = _flow(server, receiver, credit, hold_s)
    flow.generation = server.inboxes.require(receiver)
    return flow, receiver


async def _end(socket: WebSocket[Any, Any, Any], error: Exception) -> None:
    """Say why, and close with a code that is 4000 and the status that HTTP would have."""
    found = problem_of(error)
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the other end may be gone
        await socket.send_data(
            msgspec.json.encode({**found, "problem": found["type"], "type": "problem"}), "text"
        )
        await socket.close(code=4000 + found["status"], reason=found["title"])


class _Talk:
    """One open WebSocket."""

    def __init__(self, socket: WebSocket[Any, Any, Any], flow: Flow, receiver: Receiver) -> None:
        self._socket = socket
        self._flow = flow
        self._receiver = receiver
        self._inboxes = socket.app.state.server.inboxes

    async def run(self) -> None:
        """Push and listen until either end has enough, then return what the consumer still holds."""
        parts = [asyncio.create_task(self._push()), asyncio.create_task(self._listen())]
        try:
            async with asyncio.timeout(LASTS_S):
                await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        finally:
            for part in parts:
                part.cancel()
            ended = await asyncio.gather(*parts, return_exceptions=True)
            with contextlib.suppress(*FAULTS):  # else they come again when their hold ends
                await self._flow.end()
        fault = next((each for each in ended if isinstance(each, FAULTS)), None)
        if fault is not None:
            await _end(self._socket, fault)
        else:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await self._socket.close(code=1000)

    async def _send(self, frame: bytes) -> None:
        await self._socket.send_data(frame, "text")

    async def _push(self) -> None:
        await self._send(msgspec.json.encode({"type": "open", "generation": self._flow.generation}))
        async with contextlib.aclosing(self._flow.claims()) as claims:
            async for claim in claims:
                if claim is None:
                    await self._send(b'{"type":"alive"}')
                else:
                    await self._send(_told(self._flow, claim, type="message"))

    async def _listen(self) -> None:
        while True:
            try:
                raw = await self._socket.receive_data("text")
            except WebSocketDisconnect:
                return
            if len(raw) > _FRAME_BYTES:
                raise InputError(
                    "body-too-large", "The frame is larger than 64 KiB.", hint="Send smaller ones."
                )
            try:
                frame = _FRAME.decode(raw)
            except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
                raise InputError(
                    "bad-request", f"This is no frame: {error}", hint="See docs/delivery.md."
                ) from error
            if isinstance(frame, CreditFrame):
                self._flow.credit(frame.credit)
            else:
                await self._settle(frame)

    async def _settle(self, frame: AcknowledgeFrame | ReturnFrame) -> None:
        claims = [ClaimId.parse(each) for each in frame.claims]
        generation = self._inboxes.require(self._receiver)
        of_generation(claims, generation)
        if isinstance(frame, AcknowledgeFrame):
            outcomes = await self._inboxes.desk.acknowledge(self._receiver, claims)
        else:
            outcomes = await self._inboxes.desk.give_back(self._receiver, claims, generation, frame.delay_s)
        self._inboxes.require(self._receiver, generation)
        said = [{"claim": c, "outcome": o} for c, o in zip(frame.claims, outcomes, strict=True)]
        await self._send(msgspec.json.encode({"type": "outcome", "claims": said}))


HANDLERS: list[Any] = [events, stream]
