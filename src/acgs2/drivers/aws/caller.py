"""Calls a service: tries again what may help, with full jitter and a deadline, and says what is refused.

No exception of botocore leaves this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any

from acgs2.drivers.aws.patience import Patience, Try
from acgs2.errors import AcgsError, ForbiddenError, RefusedError, UnavailableError
from acgs2.plan.may import May, anybody

__all__ = ["Caller", "Unsure", "part"]

#: Refused for now, with nothing done.
_LATER = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "PriorRequestNotComplete",
        "SlowDown",
    }
)
_FORBIDDEN = (401, 403)


class Unsure(Exception):
    """A change without an answer: it may have been carried out, so it is not sent again blindly."""


class Caller:
    """Calls a client's operations.

    Args:
        client: boto3's, without retries of its own.
        patience: how long is waited.
        rng: for the pauses.
        pause: how is waited.
        service: what it is called in sentences.
        may: asked before every call; raises where it is not to be made.
    """

    def __init__(
        self,
        client: Any,
        patience: Patience,
        rng: Random,
        pause: Callable[[float], None],
        service: str = "Route 53",
        *,
        may: May = anybody,
    ) -> None:
        self._may = may
        self._client, self._patience, self._rng, self._pause = client, patience, rng, pause
        self._service = service
        self._failed = 0
        self.tries: list[Try] = []
        self.renew()

    def renew(self) -> None:
        """Let the deadline begin anew."""
        self._deadline_s = time.monotonic() + self._patience.deadline_s

    def call(self, operation: str, *, repeatable: bool = True, **sent: Any) -> dict[str, Any]:
        """Call an operation until it answers or refuses.

        Args:
            operation: its name in boto3.
            repeatable: whether it may be sent again when it may have been carried out.
            sent: its parameters.

        Raises:
            Unsure: it has no answer and is not repeatable; the pause is over.
            RefusedError: the service does not do it.
            UnavailableError: no good answer until the deadline.
        """
        while True:
            self._may()
            try:
                with _mapped(self._service):
                    answer = getattr(self._client, operation)(**sent)
            except _Away as away:
                self._wait(operation, away)
                if away.sent and not repeatable:
                    raise Unsure(str(away)) from away
                continue
            self._failed = 0
            return answer

    def _wait(self, operation: str, away: _Away) -> None:
        """Pause before another try: up to twice as long after every failure in a row."""
        longest_s = min(self._patience.cap_s, self._patience.base_s * 2**self._failed)
        pause_s = self._rng.uniform(0, longest_s)
        self._failed += 1
        self.tries.append(Try(operation, self._failed, str(away), round(pause_s, 3)))
        if time.monotonic() + pause_s > self._deadline_s:
            raise UnavailableError(
                _reference(self._service, "away"),
                f"{self._service} gave no good answer to {operation}"
                f" in {self._patience.deadline_s:g} s: {away}",
                hint="Try again later: what was done already is not done twice.",
            ) from away
        self._pause(pause_s)


class _Away(Exception):
    """No good answer; `sent` says whether the call may have been carried out."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


@contextmanager
def _mapped(service: str) -> Iterator[None]:
    """Turn every exception of botocore into one of ours."""
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    unsent = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError)
    unknown = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)
    try:
        yield
    except boto.ClientError as error:
        raise _answered(error.response, service) from error
    except unsent as error:
        raise _Away(_said(error), sent=False) from error
    except (boto.HTTPClientError, ResponseParserError) as error:
        raise _Away(_said(error), sent=True) from error
    except (*unknown, boto.SSOError, boto.TokenRetrievalError) as error:
        raise ForbiddenError(
            "aws-credentials", f"There are no usable credentials: {error}", hint="Set AWS_PROFILE, or so."
        ) from error
    except boto.BotoCoreError as error:
        raise RefusedError(
            _reference(service, "refuses"), f"The call cannot be made: {_said(error)}"
        ) from error


def _answered(response: dict[str, Any], service: str) -> Exception:
    """Return what an error in an answer means."""
    said = response.get("Error", {})
    # A refused batch says why in a list of its own.
    code, message = str(said.get("Code", "")), str(said.get("Message") or response.get("messages") or "")
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    why = f"{code or status}: {message}".strip(": ")
    if code in _LATER or status == 429:
        return _Away(why, sent=False)
    if status >= 500:
        return _Away(why, sent=True)
    return _refused(code, status, why, service)


def _refused(code: str, status: int, why: str, service: str) -> AcgsError:
    if code == "NoSuchHostedZone":
        return RefusedError(
            "hosted-zone-unknown",
            f"There is no such hosted zone: {why}",
            hint="Check --zone-id, and that the credentials are those of its account and partition.",
        )
    if status in _FORBIDDEN:
        return ForbiddenError("aws-forbids", f"AWS does not let these credentials do it: {why}", code=code)
    return RefusedError(_reference(service, "refuses"), f"{service} refuses: {why}", code=code)


def _reference(service: str, what: str) -> str:
    """Return a reference of an error about a service: `route53-away`."""
    return f"{service.lower().replace(' ', '')}-{what}"


def part(answer: Mapping[str, Any], name: str, service: str = "Route 53") -> Any:
    """Return a part of an answer.

    Raises:
        UnavailableError: it is not there; somebody else than the service answered.
    """
    if name not in answer:
        raise UnavailableError(
            _reference(service, "strange"),
            f"An answer has no {name}.",
            hint="Check the endpoint and proxies in between.",
        )
    return answer[name]


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
