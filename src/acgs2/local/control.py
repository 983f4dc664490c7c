"""Talking to the supervisor and to the links: JSON lines over loopback, with a token."""

from __future__ import annotations

import json
import socket
from typing import Any

from acgs2.errors import AcgsError, InputError, RuntimeFault

__all__ = ["ask", "raise_answer"]


def ask(port: int, token: str, request: dict[str, Any], *, timeout_s: float = 10.0) -> dict[str, Any]:
    """Send one request and return its answer.

    Raises:
        RuntimeFault: nobody listens there (`not-running`).
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
    answer: dict[str, Any] = json.loads(line or b"{}")
    raise_answer(answer)
    return answer


def raise_answer(answer: dict[str, Any]) -> None:
    """Raise the error that an answer carries, if it does."""
    if "error" not in answer:
        return
    kind: type[AcgsError] = InputError if answer["error"].startswith(("unknown", "bad")) else RuntimeFault
    raise kind(answer["error"], answer.get("message", ""), hint=answer.get("hint", ""))
