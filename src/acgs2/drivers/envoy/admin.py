"""What a running Envoy says of the files that it has taken in."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

__all__ = ["Taken"]

#: How long a change may take until nobody waits for it any more: the proxy is frozen, or refuses it.
_LIMIT_S = 5.0
_PAUSE_S = 0.01


class Taken:
    """How many files of a kind (`cds`, `rds`) an Envoy has taken in, and how many it should have.

    Envoy watches every file by itself: of two that change at once it may read either first.
    """

    def __init__(self, admin: Path | None, kind: str) -> None:
        self._admin = admin
        self._kind = kind
        self._before = self._count()

    def wait(self, files: int) -> None:
        """Wait until so many more are taken in; not for an Envoy that does not run."""
        deadline_s = time.monotonic() + _LIMIT_S
        while self._before is not None and time.monotonic() < deadline_s:
            now = self._count()
            if now is None or now >= self._before + files:
                return
            time.sleep(_PAUSE_S)

    def _count(self) -> int | None:
        if self._admin is None or not self._admin.exists():
            return None
        # A socket of this machine has no TLS; without saying so, every look would read all authorities.
        transport = httpx.HTTPTransport(uds=str(self._admin), verify=False)
        try:
            with httpx.Client(transport=transport, trust_env=False, timeout=_LIMIT_S) as client:
                wanted = {"filter": rf"\.{self._kind}\.(.*\.)?update_success$"}
                lines = client.get("http://admin/stats", params=wanted).text.splitlines()
            return sum(int(line.rpartition(": ")[2]) for line in lines)
        except (httpx.HTTPError, ValueError):
            return None
