"""Everything that goes wrong, as one problem document (RFC 9457) with a stable type."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from psycopg_pool import PoolTimeout

from acgs2.api.observe import PROBLEM
from acgs2.api.tokens import TokenError
from acgs2.errors import (
    PROBLEM_TYPES,
    AcgsError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    OutcomeUnknown,
    OverloadedError,
    RefusedError,
    UnavailableError,
)
from acgs2.logs.write import get_logger

__all__ = ["HANDLERS", "NOTHING_STORED", "answer_to", "from_database", "problem"]

_LOG = get_logger("acgs2.api")
MEDIA_TYPE = "application/problem+json"
NOTHING_STORED = "x-acgs2-nothing-stored"

_STATUS = {
    "if-match-missing": 428,
    "version-mismatch": 412,
    "residency-not-lawful-here": 421,
    "other-region-preferred": 421,
    "inbox-served-elsewhere": 421,
    "erased": 410,
    "append-only": 405,
    "media-type-unknown": 415,
    "encoding-unknown": 415,
    "record-too-large": 413,
    "body-too-large": 413,
    "idempotency-key-reused": 409,
    "zone-mismatch": 403,
    "transfer-unlawful": 422,
    "residency-violation": 403,
}
_BY_CLASS: tuple[tuple[type[AcgsError], int], ...] = (
    (TokenError, 401),
    (NotFoundError, 404),
    (InputError, 400),
    (ForbiddenError, 403),
    (ConflictError, 409),
    (RefusedError, 409),
    (OverloadedError, 429),
    (UnavailableError, 503),
)
_DATABASE = {
    "AC001": ("residency-not-lawful-here", "The record may not be held in this region."),
    "AC002": ("erased", "The record was erased; its id is not used again."),
    "AC003": ("version-mismatch", "The record has another version than the one expected."),
    "AC004": ("append-only", "Records of this kind are never changed."),
    "AC005": ("record-too-large", "The record is larger than 256 KiB."),
    "AC006": ("zone-mismatch", "The record's zone is not its tenant's."),
    "AC008": ("identity-changed", "A record keeps its id, zone and tenant."),
    "AC013": ("region-not-seeded", "The region has just come to life and is being given its data."),
    "AC015": (
        "clock-apart",
        "The region's clock is over 500 ms from that of most regions; it writes nothing.",
    ),
    "AC009": ("required-missing", "A required field is missing."),
}


def from_database(error: psycopg.Error) -> AcgsError:
    """Return our error for one of the driver's; what it cannot be blamed on the caller is `unavailable`."""
    state = error.sqlstate or ""
    if state in _DATABASE:
        reference, message = _DATABASE[state]
        context = json.loads(error.diag.message_detail or "{}")
        if reference in ("region-not-seeded", "clock-apart"):
            return UnavailableError(reference, message, hint="Ask another region, or try again.", **context)
        kind = ConflictError if reference in ("version-mismatch", "erased") else InputError
        return kind(reference, message, hint="See the context.", **context)
    if state.startswith("22") or state == "23514" or isinstance(error, psycopg.DataError):
        return InputError(
            "invalid-value",
            "A value cannot be stored.",
            hint="Text may not contain NUL; numbers and times must be within range.",
        )
    if state.startswith("53") or state == "25006":
        return UnavailableError(
            "database-full",
            "The database takes no writes.",
            hint="Make space on its disk; nothing was stored.",
        )
    return UnavailableError(
        "database-unavailable",
        "The database does not answer.",
        hint="Try again; nothing is known to have been stored.",
    )


def problem(status: int, reference: str, detail: str, *, hint: str = "", **members: Any) -> Response[Any]:
    """Return a problem document."""
    body: dict[str, Any] = {
        "type": PROBLEM_TYPES + reference,
        "title": reference.replace("-", " "),
        "status": status,
        "detail": detail,
    }
    if hint:
        body["hint"] = hint
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status in (429, 503):
        headers["Retry-After"] = "1"
    if status == 503 and reference != "outcome-unknown":
        headers[NOTHING_STORED] = "1"  # so that whoever stands before us may ask the next region
    if status == 421 and members.get("endpoints"):
        headers["Link"] = ", ".join(f'<{e["url"]}>; rel="alternate"' for e in members["endpoints"])
    return Response(body | members, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def answer_to(error: AcgsError) -> Response[Any]:
    """Return the problem document that an error of ours is."""
    status = _STATUS.get(error.reference) or next(
        (code for kind, code in _BY_CLASS if isinstance(error, kind)), 500
    )
    return problem(status, error.reference, error.message, hint=error.hint, **error.context)


def _ours(_: Request[Any, Any, Any], error: AcgsError) -> Response[Any]:
    return answer_to(error)


def _database(request: Request[Any, Any, Any], error: psycopg.Error) -> Response[Any]:
    mapped = from_database(error)
    if isinstance(mapped, UnavailableError):
        _LOG.warning("database-error", error=type(error).__name__, sqlstate=error.sqlstate)
    return _ours(request, mapped)


def _pool(request: Request[Any, Any, Any], _: PoolTimeout) -> Response[Any]:
    return _ours(
        request,
        UnavailableError(
            "database-unavailable", "The database does not answer.", hint="Try again; nothing was stored."
        ),
    )


def _http(_: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    reference = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large"}.get(
        error.status_code, "bad-request"
    )
    detail = error.detail or reference
    if isinstance(error, ValidationException) and isinstance(error.extra, list) and error.extra:
        detail = (
            "; ".join(
                f"{e.get('key', 'body')}: {e.get('message', '')}" for e in error.extra if isinstance(e, dict)
            )
            or detail
        )
    response = problem(error.status_code, reference, detail, hint="See /openapi.json for what is accepted.")
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


def _recursion(_: Request[Any, Any, Any], __: RecursionError) -> Response[Any]:
    return problem(
        400, "bad-request", "The document is nested too deeply.", hint="Nest less than 100 levels."
    )


def _unicode(_: Request[Any, Any, Any], __: UnicodeError) -> Response[Any]:
    return problem(400, "bad-request", "The text is not UTF-8.", hint="Send JSON in UTF-8 (RFC 8259).")


def _internal(_: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    _LOG.error("request-failed", exc_info=error)
    return problem(500, "internal", "The server failed.", hint="See its log; this is a bug.")


def _noted(handle: Callable[[Request[Any, Any, Any], Any], Response[Any]]) -> Any:
    """Return the same handler, leaving what it made of the error to those who count and trace."""

    def handled(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
        response = handle(request, error)
        request.scope["state"][PROBLEM] = response.content["type"].removeprefix(PROBLEM_TYPES)
        return response

    return handled


HANDLERS: dict[Any, Any] = {
    AcgsError: _noted(_ours),
    OutcomeUnknown: _noted(_ours),
    psycopg.Error: _noted(_database),
    PoolTimeout: _noted(_pool),
    HTTPException: _noted(_http),
    RecursionError: _noted(_recursion),
    UnicodeError: _noted(_unicode),
    Exception: _noted(_internal),
}
