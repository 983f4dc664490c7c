"""How far regions are behind each other, as their databases measured it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from acgs2.store.templates import fragments
from acgs2.topology import Topology

__all__ = ["lags"]


def lags(
    topology: Topology, databases: Mapping[str, psycopg.Connection[Any]], window_s: float
) -> list[dict[str, Any]]:
    """Return for every link what arrived over it in the last `window_s` seconds, and how late it was.

    The link's own delay is in it, and beside it as `link_ms`.
    """
    delays = {frozenset((n.a, n.b)): n.rtt_ms / 2 for n in topology.links()}
    query = fragments("api.sql")["lag"].encode()
    return [
        {
            "from": source,
            "to": region,
            "samples": samples,
            "link_ms": delays[frozenset((source, region))],
            "p50_ms": round(p50_ms, 1),
            "p99_ms": round(p99_ms, 1),
        }
        for region, conn in databases.items()
        for source, samples, p50_ms, p99_ms in conn.execute(query, {"window_s": window_s}).fetchall()
    ]
