"""What an answer means: a value, an error of our tree, and what the course of the call must know."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from acgs2.client.course import Came, Outcome
from acgs2.client.places import Endpoint
from acgs2.errors import (
    AcgsError,
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    OutcomeUnknown,
    OverloadedError,
    ResidencyError,
    UnavailableError,
)

__all__ = ["Reading", "failed", "late", "read", "refused", "tokenless"]

_KINDS: Mapping[int, type[AcgsError]] = {
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: ConflictError,
    412: ConflictError,
    421: ResidencyError,
    429: OverloadedError,
}
#: Problems of status 503 that do not say that nothing was stored: the connection to the database may have
#: broken between the commit and the answer.
_DOUBTFUL = ("outcome-unknown", "database-unavailable")
_REFERENCE = re.compile(r".*/([a-z0-9-]{1,100})/?")
_REGION = re.compile(r"[A-Za-z0-9._-]{1,63}")
#: Members of a problem that are not context.
_OWN = {"type", "title", "status", "detail", "hint", "instance", "self", "reference", "message"}


@dataclass(frozen=True, slots=True)
class Reading:
    """What an attempt came to; `error` is None where it is a result."""

    outcome: Outcome
    error: AcgsError | None = None
    value: Any = None
    status: int | None = None
    etag: str | None = None
    #: Whether the answer is this API's: from others nothing is learnt about regions.
    ours: bool = False


class _Problem(msgspec.Struct):
    type: str
    detail: str = ""
    title: str = ""
    hint: str = ""


def read(
    status: int, headers: Mapping[str, str], body: bytes, shape: Any, *, chosen: bool, now_s: float
) -> Reading:
    """Return what an answer means.

    Args:
        status: of HTTP.
        headers: of the answer, by lower-case name.
        body: as it came.
        shape: the type of a result, None where it has no body.
        chosen: whether the region was our choice, so that its refusal only means another one.
        now_s: seconds since the epoch, for dates in Retry-After.
    """
    region = headers.get("x-acgs2-region", "")
    region = region if _REGION.fullmatch(region) else None
    if 200 <= status < 300:
        try:
            value = None if shape is None else msgspec.json.decode(body, type=shape)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return _strange(status, region)
        if shape is None and status != 204:
            return _strange(status, region)
        return Reading(Outcome(Came.SETTLED, region), None, value, status, headers.get("etag"), ours=True)
    found = _problem_in(headers, body)
    if found is None:
        return _strange(status, region)
    reference, problem, members = found
    came = _came(status, reference, chosen)
    kind = _KINDS.get(status) or (InputError if status < 500 else UnavailableError)
    if reference == "outcome-unknown":
        kind = OutcomeUnknown
    context = {key: value for key, value in members.items() if key not in _OWN}
    error = kind(
        reference,
        problem.detail or problem.title or reference,
        hint=problem.hint,
        **{**context, "status": status},
    )
    wait_s = _retry_after(headers.get("retry-after"), now_s) if status in (429, 503) else 0.0
    outcome = Outcome(came, region, _endpoints(members.get("endpoints")), wait_s)
    return Reading(outcome, error, status=status, ours=True)


def _came(status: int, reference: str, chosen: bool) -> Came:
    if status == 503:
        return Came.UNKNOWN if reference in _DOUBTFUL else Came.LATER
    if status == 429:
        return Came.LATER
    if status == 421 or (reference == "region-not-lawful" and chosen):
        return Came.ELSEWHERE
    if status == 401:
        return Came.UNAUTHENTICATED
    return Came.STRANGE if status >= 500 else Came.SETTLED


def _strange(status: int, region: str | None = None) -> Reading:
    """Return what an answer comes to that is not of this API, such as a proxy's page.

    A proxy's 5xx may follow a request that arrived; other statuses than success say that it was not taken.
    """
    came = Came.SETTLED if 300 <= status < 500 else Came.STRANGE
    if status in (502, 503, 504):
        came = Came.UNKNOWN
    error = UnavailableError(
        "answer-not-understood",
        f"The answer, with status {status}, is not of this API.",
        hint="See that the URL leads to ACGS-2, and what stands between.",
        status=status,
    )
    return Reading(Outcome(came, region), error, status=status)


def refused(error: AcgsError) -> Reading:
    """Return what an attempt comes to that we do not make."""
    return Reading(Outcome(Came.SETTLED), error)


def tokenless(error: Exception) -> Reading:
    """Return what an attempt comes to for which there is no token, for want of a connection to its issuer."""
    missing = UnavailableError(
        "token-unavailable",
        f"No token could be had: {type(error).__name__}.",
        hint="See where `token` gets it from; nothing was sent.",
    )
    return _because(Reading(Outcome(Came.UNSENT), missing), error)


def failed(error: Exception, sent: bool) -> Reading:
    """Return what an attempt comes to that had no answer.

    Args:
        error: of the transport.
        sent: whether the request may have left us.
    """
    kind = type(error).__name__
    if sent:
        lost = UnavailableError(
            "answer-lost", f"The request was sent, and its answer did not arrive: {kind}.", hint="Try again."
        )
        return _because(Reading(Outcome(Came.UNKNOWN), lost), error)
    if _is_distrust(error):
        wrong = UnavailableError(
            "certificate-untrusted",
            "The server's certificate is not of an authority that is trusted here.",
            hint="Give the authority's certificate as `ca`, a PEM file.",
        )
        return _because(Reading(Outcome(Came.UNTRUSTED), wrong), error)
    unreached = UnavailableError(
        "not-connected", f"Nobody could be reached: {kind}.", hint="See that the URL is right; try again."
    )
    return _because(Reading(Outcome(Came.UNSENT), unreached), error)


def late(sent: bool) -> Reading:
    """Return what an attempt comes to that took too long."""
    if sent:
        lost = UnavailableError("answer-late", "The request was sent; its answer is late.", hint="Try again.")
        return Reading(Outcome(Came.UNKNOWN), lost)
    nothing = UnavailableError("not-connected-in-time", "Nobody was reached in time.", hint="Try again.")
    return Reading(Outcome(Came.UNSENT), nothing)


def _because(reading: Reading, cause: Exception) -> Reading:
    if reading.error is not None:
        reading.error.__cause__ = cause
    return reading


def _is_distrust(error: BaseException | None) -> bool:
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _problem_in(headers: Mapping[str, str], body: bytes) -> tuple[str, _Problem, dict[str, Any]] | None:
    """Return a problem's reference, what every problem has, and all of it; None for what is none of ours."""
    if not headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        problem = msgspec.json.decode(body, type=_Problem)
        members = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    named = _REFERENCE.fullmatch(problem.type)
    return (named[1], problem, members) if named else None


def _endpoints(named: Any) -> tuple[Endpoint, ...]:
    try:
        return tuple(msgspec.convert(named or [], tuple[Endpoint, ...]))
    except (msgspec.MsgspecError, ValueError):
        return ()


def _retry_after(text: str | None, now_s: float) -> float:
    """Return the seconds that Retry-After asks to wait (RFC 9110, 10.2.3), 0 if it asks nothing sensible."""
    if text is None:
        return 0.0
    if text.isascii() and text.strip().isdecimal():
        return float(min(int(text.strip()[:9]), 86400))
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, (at - datetime.fromtimestamp(now_s, UTC)).total_seconds()), 86400.0)
