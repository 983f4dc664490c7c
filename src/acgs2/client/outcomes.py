"""With which error a call ends, and what the caller may do about it: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acgs2.client.answers import Reading
from acgs2.client.course import Course, Rule, Send, Stop
from acgs2.errors import (
    AcgsError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OutcomeUnknown,
    ResidencyError,
    UnavailableError,
)

if TYPE_CHECKING:
    from acgs2.client.calls import Call

__all__ = ["error_of"]

#: After an attempt that may have been carried out, these say nothing about that one.
_SILENT = (ForbiddenError, NotFoundError, ResidencyError, UnavailableError)
#: So do these, for what they say came after it: another constitution, or the end of its time.
_LATER = ("already-expired", "constitutional-hash-mismatch", "deliberation-closed", "deliberation-expired")
#: The verdict on a message, which is the same however often it is sent.
_FINAL = ("denied-by-policy",)


def error_of(
    call: Call, course: Course, step: Send | Stop, reading: Reading, attempts: int
) -> AcgsError | None:
    """Return the error that a call ends with, None where it has a result.

    Args:
        call: what was asked.
        course: how far it came.
        step: the last one.
        reading: of the last attempt.
        attempts: how many there were.
    """
    error = reading.error
    if error is None:
        return None
    if isinstance(step, Stop) and step.distrusted and isinstance(error, ResidencyError):
        error = _because(
            ResidencyError(
                "endpoint-not-trusted",
                "It was sent to a host that the token may not be shown to.",
                hint="Give the domain that all regions are under as `domain`, if the host is under it.",
                **{**error.context, "endpoint": step.distrusted},
            ),
            error,
        )
    if course.unknown and _is_silent(error, reading):
        return _unknown(call, course, error, attempts)
    if isinstance(error, OutcomeUnknown):
        # Said of a read, which has nothing to be unknown about.
        error = _because(
            UnavailableError(error.reference, error.message, hint="Try again.", **error.context), error
        )
    if isinstance(error, UnavailableError):
        error.context = {**error.context, "attempts": attempts}
    return error


def _is_silent(error: AcgsError, reading: Reading) -> bool:
    if error.reference in _FINAL:
        return False
    changed = isinstance(error, ConflictError) and reading.status == 412
    return changed or error.reference in _LATER or isinstance(error, _SILENT)


def _unknown(call: Call, course: Course, error: AcgsError, attempts: int) -> OutcomeUnknown:
    safe = call.rule is not Rule.SAME_REGION or course.region is not None or bool(course.places)
    # The key is given where the same call with what is given is safe, and else not.
    own = {"idempotency_key": call.idempotency_key if safe else None, "region": course.region}
    own |= call.known_by
    # What a refusal says about regions is not about the one that may have done it.
    context = {key: value for key, value in error.context.items() if key not in own}
    context |= {key: value for key, value in own.items() if value is not None}
    context |= {"attempts": attempts, "last_error": error.reference}
    unknown = OutcomeUnknown(
        "outcome-unknown",
        f"It may have been done. The last attempt: {error.message}",
        hint=_hint(call, course),
        **context,
    )
    unknown.__cause__ = error
    return unknown


def _hint(call: Call, course: Course) -> str:
    if call.known_by:
        return f"Repeat it unchanged, with the same {' and '.join(call.known_by)}; that is safe."
    if call.idempotency_key is None:
        return "Erase it again; that is safe."
    if call.rule is Rule.ANYWHERE:
        return "Repeat it with the same idempotency_key; that is safe."
    if course.region is not None:
        return f"Repeat it with the same idempotency_key and region={course.region!r}, and not elsewhere."
    if course.places:
        return "Repeat it with the same idempotency_key at the same URL, and not elsewhere."
    return "Read the record before you repeat it: which region may have done it is not known."


def _because(error: AcgsError, cause: AcgsError) -> AcgsError:
    error.__cause__ = cause
    return error
