"""The bearer token: kept while it is good, asked for anew before it expires and when it was not accepted."""

from __future__ import annotations

import base64
import inspect
import re
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
import anyio.to_thread
import msgspec

from acgs2.errors import InputError

__all__ = ["Claims", "TokenSource", "Tokens", "claims_of", "is_due"]

#: A token, or what returns a fresh one; a plain function is called in a thread, for it may block.
TokenSource: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]

#: How long before its end a token is replaced: a tenth of its life, but not more than this.
_MARGIN_S = 60.0
_BEARER = re.compile(r"[A-Za-z0-9._~+/=-]+")


class Claims(msgspec.Struct, frozen=True):
    """What a token says of itself, unverified: for whom, and when it begins and ends."""

    sub: str | None = None
    iat: float | None = None
    exp: float | None = None
    tenant: str | None = None


def claims_of(token: str) -> Claims:
    """Return a JWT's claims without verifying anything; none of them where it is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return Claims()
    try:
        text = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(text, type=Claims)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return Claims()


def is_due(claims: Claims, now_s: float) -> bool:
    """Return whether a token is to be replaced: it ends within its margin."""
    if claims.exp is None:
        return False
    life_s = claims.exp - claims.iat if claims.iat is not None else 10 * _MARGIN_S
    return now_s >= claims.exp - min(_MARGIN_S, max(0.0, life_s) / 10)


class Tokens:
    """The token of a client, from a string or from a callable that returns a fresh one."""

    def __init__(self, source: TokenSource, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._clock = clock
        self._lock = anyio.Lock()
        self._token = _checked(source) if isinstance(source, str) else None
        self._claims = claims_of(self._token) if self._token else Claims()
        #: Whether the source has already been asked since this token was due, and had no other.
        self._asked = False

    @property
    def renewable(self) -> bool:
        """Return whether there is somebody to ask for another token."""
        return not isinstance(self._source, str)

    async def current(self, refused: str | None = None) -> str:
        """Return the token to send; a new one where it is due, or is the one that was refused.

        Raises:
            InputError: what the callable returned is no token (`token-malformed`).
        """
        async with self._lock:
            due = is_due(self._claims, self._clock()) and not self._asked
            if self._token is None or (self.renewable and (due or self._token == refused)):
                fresh = _checked(await self._ask())
                self._asked = fresh == self._token
                self._token, self._claims = fresh, claims_of(fresh)
            return self._token

    async def _ask(self) -> object:
        source = self._source
        assert not isinstance(source, str)
        if inspect.iscoroutinefunction(source):
            return await source()
        given = await anyio.to_thread.run_sync(source, abandon_on_cancel=True)
        return await given if inspect.isawaitable(given) else given


def _checked(token: object) -> str:
    if not isinstance(token, str) or not _BEARER.fullmatch(token):
        raise InputError(
            "token-malformed",
            "The token is not one that a request can carry.",
            hint="Give a bearer token (RFC 6750), or a callable that returns one.",
        )
    return token
