"""HTTP to processes of this machine, by one client that reads no certificates: loopback has no use for them.

Reading them takes 40 ms of a processor, and a client that is made for one request would do it for that one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import httpx

__all__ = ["health", "loopback"]


@cache
def loopback() -> httpx.Client:
    """Return the client; every request has its own connection, for whoever is asked may just have died."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(verify=False, trust_env=False, timeout=15, limits=limits)


def health(url: str) -> dict[str, Any]:
    """Return what a region's server at a base URL says of its health; nothing, if it does not answer."""
    try:
        return loopback().get(f"{url}/health", timeout=5).json()  # type: ignore[no-any-return]
    except (httpx.HTTPError, ValueError):
        return {}
