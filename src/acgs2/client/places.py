"""Where requests may be sent: places, the endpoints that an answer names, and whom a token may be shown."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from acgs2.errors import InputError

__all__ = ["AUTO", "Endpoint", "Place", "Trust", "base_url", "is_loopback"]

#: The preference that leaves the region to whoever routes.
AUTO = "auto"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A region that an answer named, and where it is reached; `url` is empty where it did not say."""

    region: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A base URL and the region that is asked for there.

    A region takes no write for which another was asked for, whoever routed it: with a preference, only that
    region can have carried out what was sent.
    """

    url: str
    preference: str = AUTO


def base_url(text: str) -> str:
    """Return a base URL without a slash at its end.

    Raises:
        InputError: it is no URL that a client can send to (`url-invalid`).
    """
    parts = _split(text)
    if parts is None:
        raise InputError(
            "url-invalid",
            "The base URL is not an http or https URL without user, query and fragment.",
            hint="It looks like https://api.acgs2.example.",
        )
    return text.rstrip("/")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom the token may be shown: the base URLs' hosts, other loopback from loopback, hosts under a domain.

    An answer names endpoints; without this, it could have the token sent to anybody.
    """

    homes: tuple[str, ...]
    domain: str | None = None

    def __post_init__(self) -> None:
        domain = self.domain
        if domain is not None and (
            "." not in domain.strip(".") or not _NAME.fullmatch(domain) or _is_address(domain)
        ):
            raise InputError(
                "domain-invalid",
                f"{domain!r} is not a domain with at least two parts.",
                hint="Name the domain that all regions' hosts are under, such as acgs2.example.",
            )

    def covers(self, url: str) -> bool:
        """Return whether the token may be sent to a URL; never from https to http."""
        parts = _split(url)
        if parts is None:
            return False
        host = _host(parts)
        homes = [home for text in self.homes if (home := _split(text)) is not None]
        if parts.scheme == "http" and any(home.scheme == "https" for home in homes):
            return False
        if host in {_host(home) for home in homes}:
            return True
        if _is_loopback(host):
            return all(_is_loopback(_host(home)) for home in homes)
        return self.domain is not None and f".{host}".endswith(f".{self.domain.strip('.').lower()}")


def is_loopback(url: str) -> bool:
    """Return whether a base URL leads to this machine."""
    parts = _split(url)
    return parts is not None and _is_loopback(_host(parts))


def _split(text: str) -> SplitResult | None:
    """Return a URL's parts, None for what a client cannot send to or what could be read in two ways."""
    if not text.isascii() or not text.isprintable() or any(c in text for c in " \\@?#"):
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    named = _NAME.fullmatch(parts.hostname or "") or _is_address(parts.hostname or "")
    return parts if parts.scheme in ("http", "https") and named and port != 0 else None


def _host(parts: SplitResult) -> str:
    return (parts.hostname or "").rstrip(".").lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
