"""Configuration as files that Envoy watches: one that is moved into place is obeyed without a restart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from acgs2.drivers.envoy import api, http_api
from acgs2.drivers.envoy.admin import Taken

__all__ = ["Resources", "bootstrap", "routes_path", "static", "write"]

#: Connections that clients may hold open at one proxy; the next are refused, and those that are open go on.
_CONNECTIONS = 15_000
_RUNTIME = {
    # A header that is sent twice is one list. If one value of several were enough for a match, a body that is
    # said to be of two zones would go to either.
    "envoy.reloadable_features.match_headers_individually": False,
    # A list of all regions is a long pattern; none comes from outside.
    "re2.max_program_size.error_level": 10_000,
}

#: What a file of resources says that each of them is.
_TYPES: Mapping[type[api.Message], str] = {
    api.Listener: f"{api.ANY}config.listener.v3.Listener",
    api.Cluster: f"{api.ANY}config.cluster.v3.Cluster",
    http_api.RouteConfiguration: f"{api.ANY}config.route.v3.RouteConfiguration",
}


@dataclass(frozen=True)
class Resources:
    """All that one Envoy is told; route tables by name."""

    listeners: Sequence[api.Listener]
    clusters: Sequence[api.Cluster]
    routes: Mapping[str, http_api.RouteConfiguration] = field(default_factory=dict)


def routes_path(folder: Path, name: str) -> Path:
    """Return the file of a route table."""
    return folder / f"routes.{name}.json"


def write(folder: Path, resources: Resources, *, admin: Path | None = None) -> list[str]:
    """Write what has changed, each file whole or not at all, and return the names of the files written.

    Clusters come first, and listeners last, so that nothing leads to what is not there yet.

    Args:
        folder: where.
        resources: what.
        admin: socket of the Envoy that watches; each kind of file waits until it has taken in the one before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = (
        ("cds", {folder / "clusters.json": _response(resources.clusters)}),
        ("rds", {routes_path(folder, name): _response([table]) for name, table in resources.routes.items()}),
        ("lds", {folder / "listeners.json": _response(resources.listeners)}),
    )
    found: list[str] = []
    for kind, files in kinds:
        taken = Taken(admin, kind)
        written = [path.name for path, text in files.items() if _replace(path, text)]
        taken.wait(len(written))
        found += written
    return found


def bootstrap(folder: Path, name: str, *, admin: Path | None) -> Path:
    """Write what an Envoy is started with: where the rest is; returns its path.

    Args:
        folder: where its files are.
        name: of the node, as traces and the admin interface show it.
        admin: a socket for its admin interface, mode 0600; None for none.
    """
    made = _bootstrap(name)
    made.dynamic_resources = api.DynamicResources(
        lds_config=_watched(folder / "listeners.json"), cds_config=_watched(folder / "clusters.json")
    )
    if admin is not None:
        pipe = api.Pipe(path=str(admin), mode=0o600)
        made.admin = api.Admin(address=api.Address(pipe=pipe))
    path = folder / "bootstrap.json"
    _replace(path, _json(made))
    return path


def static(name: str, resources: Resources) -> str:
    """Return the same as one document, for `envoy --mode validate`; its route tables must be inline."""
    made = _bootstrap(name)
    made.static_resources = api.StaticResources(
        listeners=[*resources.listeners], clusters=[*resources.clusters]
    )
    return _json(made)


def _bootstrap(name: str) -> api.Bootstrap:
    most = api.DownstreamConnections(max_active_downstream_connections=_CONNECTIONS)
    monitor = api.Extension(
        name="envoy.resource_monitors.global_downstream_max_connections", typed_config=most
    )
    return api.Bootstrap(
        node=api.Node(id=name, cluster="acgs2"),
        overload_manager=api.OverloadManager(resource_monitors=[monitor]),
        layered_runtime=api.LayeredRuntime(layers=[api.RuntimeLayer(name="ours", static_layer=_RUNTIME)]),
    )


def _watched(path: Path) -> api.ConfigSource:
    return api.ConfigSource(
        path_config_source=api.PathConfigSource(path=str(path)), resource_api_version="V3"
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _response(resources: Sequence[api.Message]) -> str:
    """Return a discovery response (envoy.service.discovery.v3) of resources of one kind."""
    typed = [{"@type": _TYPES[type(r)], **msgspec.to_builtins(r)} for r in resources]
    return _json({"resources": typed})


def _replace(path: Path, text: str) -> bool:
    """Move a new content into place; return whether it is another than before."""
    try:
        if path.read_text(encoding="utf-8") == text:
            return False
    except FileNotFoundError:
        pass
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
    return True
