"""The one tree of errors; every error of ours says what happened, where, and what to do.

    AcgsError
    ├── InputError            the caller sent something that cannot be accepted (exit 2, HTTP 400)
    │   ├── TopologyError     topology.yaml is not a topology (with the line)
    │   ├── EntityError       an entity declaration is wrong
    │   ├── ConstitutionError constitution.yaml, or an amendment of it, is not one (with the line)
    │   └── PolicyError       policies that cannot be taken as they are (with the line)
    ├── RefusedError          understood, and not allowed (exit 3)
    │   ├── ResidencyError    the data may not be where it was asked to be
    │   ├── ConflictError     the record is not in the state the caller assumed
    │   └── ForbiddenError    this principal may not do this
    ├── NotFoundError         no such thing here
    ├── UnavailableError      cannot be done now; try again (exit 4, HTTP 503)
    │   ├── OverloadedError   too much at once; nothing was done (HTTP 429)
    │   └── OutcomeUnknown    it may have been done; repeat with the same idempotency key
    └── RuntimeFault          the machine or the cluster is not as it should be (exit 5)

A reference is kebab-case and stable: it is the `type` of the HTTP problem, the `error` of `--json`
output and what the documentation is indexed by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "PROBLEM_TYPES",
    "AcgsError",
    "ConflictError",
    "ConstitutionError",
    "EntityError",
    "ForbiddenError",
    "InputError",
    "NotFoundError",
    "OutcomeUnknown",
    "OverloadedError",
    "PolicyError",
    "RefusedError",
    "ResidencyError",
    "RuntimeFault",
    "TopologyError",
    "UnavailableError",
]


#: What the `type` of a problem document begins with; the reference follows.
PROBLEM_TYPES = "https://acgs2.example/problems/"


class AcgsError(Exception):
    """The root of everything this project raises on purpose.

    Args:
        reference: kebab-case name of the kind of failure, stable across releases.
        message: what happened, one sentence.
        hint: what to do about it, one sentence; empty when there is nothing to do.
        context: the values it is about, for logs and problem documents.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, reference: str, message: str, *, hint: str = "", **context: Any) -> None:
        super().__init__(message)
        self.reference = reference
        self.message = message
        self.hint = hint
        self.context: Mapping[str, Any] = context

    def as_dict(self) -> dict[str, Any]:
        """Return the error as plain values, the shape of every `--json` error."""
        body: dict[str, Any] = {"error": self.reference, "message": self.message}
        if self.hint:
            body["hint"] = self.hint
        if self.context:
            body["context"] = dict(self.context)
        return body


class InputError(AcgsError):
    """What the caller sent cannot be accepted as it is."""

    exit_code = 2


class TopologyError(InputError):
    """A topology file that is not a topology; `context['line']` says where."""


class EntityError(InputError):
    """An entity declaration that contradicts itself."""


class ConstitutionError(InputError):
    """A document that is not a constitution; `context['line']` says where."""


class PolicyError(InputError):
    """Policies that cannot be taken as they are; `context['line']` says where."""


class RefusedError(AcgsError):
    """The request was understood and is not allowed."""

    exit_code = 3


class ResidencyError(RefusedError):
    """The data may not be where it was asked to be."""


class ConflictError(RefusedError):
    """The record is not in the state that the caller assumed."""


class ForbiddenError(RefusedError):
    """The principal may not do this."""


class NotFoundError(AcgsError):
    """There is no such thing here."""

    exit_code = 3


class UnavailableError(AcgsError):
    """It cannot be done now; nothing was changed; a later try may succeed."""

    exit_code = 4


class OutcomeUnknown(UnavailableError):
    """It may have been done; repeating it with the same idempotency key is safe."""


class OverloadedError(UnavailableError):
    """There is more to do than can be taken in now; nothing was done."""


class RuntimeFault(AcgsError):
    """The machine, the state directory or the cluster is not as it should be."""

    exit_code = 5
