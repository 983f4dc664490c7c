"""Talking to the supervisor and to the links: JSON lines over loopback, with a token. Both ends."""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from acgs2.errors import AcgsError, InputError, RuntimeFault
from acgs2.logs.write import get_logger

__all__ = ["ask", "raise_answer", "serve"]

_LOG = get_logger("acgs2.control")
Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def ask(port: int, token: str, request: dict[str, Any], *, timeout_s: float = 10.0) -> dict[str, Any]:
    """Send one request and return its answer.

    Raises:
        RuntimeFault: nobody listens there (`not-running`).
            or who listens breaks off without an answer (`no-answer`).
        AcgsError: the answer is an error.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as sock:
            sock.sendall(json.dumps({**request, "token": token}).encode() + b"\n")
            with sock.makefile("rb") as file:
                line = file.readline()
    except OSError as error:
        raise RuntimeFault(
            "not-running",
            f"The cluster does not answer on port {port}: {error}.",
            hint="Start it with `acgs2 up`.",
        ) from error
    if not line:
        raise RuntimeFault(
            "no-answer",
            f"What listens on port {port} broke off without an answer.",
            hint="See `acgs2 logs`, and try again.",
        )
    answer: dict[str, Any] = json.loads(line)
    raise_answer(answer)
    return answer


def raise_answer(answer: dict[str, Any]) -> None:
    """Raise the error that an answer carries, if it does."""
    if "error" not in answer:
        return
    kind: type[AcgsError] = InputError if answer["error"].startswith(("unknown", "bad")) else RuntimeFault
    raise kind(answer["error"], answer.get("message", ""), hint=answer.get("hint", ""))


async def serve(port: int, token: str, handle: Handler) -> asyncio.Server:
    """Answer requests on a loopback port; what `handle` raises of ours becomes the answer."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await _answer(line, token, handle)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # The caller went away, or sent a line without end.
        finally:
            writer.close()

    return await asyncio.start_server(talk, "127.0.0.1", port)


async def _answer(line: bytes, token: str, handle: Handler) -> dict[str, Any]:
    try:
        request = json.loads(line)
        if not isinstance(request, dict) or not hmac.compare_digest(str(request.get("token")), token):
            raise InputError("forbidden", "The token is missing or wrong.")
        return await handle(request)
    except AcgsError as error:
        return error.as_dict()
    except (ValueError, TypeError) as error:
        return {"error": "bad-request", "message": f"Not a request: {error}"}
    except Exception as error:  # noqa: BLE001 - the edge of a process: whoever asked must not take silence for done
        _LOG.exception("request-failed", action=_action(line))
        return {"error": "internal", "message": f"It failed in a way that nobody foresaw: {error}"}


def _action(line: bytes) -> str:
    return str(json.loads(line).get("action"))
