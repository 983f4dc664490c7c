"""A proxy's own metrics on a port of this machine, and nothing else of its admin interface."""

from __future__ import annotations

from pathlib import Path

from acgs2.drivers.envoy import api, http_api
from acgs2.drivers.envoy.manager import http_manager
from acgs2.drivers.envoy.parts import loopback, seconds, socket_cluster
from acgs2.topology import Clients

__all__ = ["stats"]

_ADMIN = "admin"


def stats(port: int | None, admin: Path | None, log: Path) -> tuple[list[api.Listener], list[api.Cluster]]:
    """Return where `/metrics` is answered, in Prometheus' format; nothing without an admin interface."""
    if port is None or admin is None:
        return [], []
    action = http_api.RouteAction(
        cluster=_ADMIN,
        prefix_rewrite="/stats/prometheus",
        timeout=seconds(5),
        retry_policy=http_api.RetryPolicy(
            retry_on="connect-failure", num_retries=0, per_try_timeout=seconds(5)
        ),
    )
    only = http_api.Route(name="metrics", match=http_api.RouteMatch(path="/metrics"), route=action)
    table = http_api.RouteConfiguration(
        name="stats", virtual_hosts=[http_api.VirtualHost(name="stats", domains=["*"], routes=[only])]
    )
    manager = http_manager("stats", log, table=table, clients=Clients(), edge=False)
    chain = api.FilterChain(filters=[api.Extension(name="http", typed_config=manager)])
    listener = api.Listener(name="stats", address=loopback(port), filter_chains=[chain])
    return [listener], [socket_cluster(_ADMIN, admin)]
