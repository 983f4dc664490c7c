"""The state directory of one local cluster: its ports, secrets, data directories and logs."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any

from acgs2.errors import RuntimeFault
from acgs2.policy.constitution import builtin
from acgs2.policy.constitution import load as load_constitution
from acgs2.topology import Topology, load

__all__ = ["FORMAT", "State", "create_state", "default_path", "open_state"]

#: Version of the directory's layout.
FORMAT = 3
_SECRETS = ("postgres", "acgs_owner", "acgs_app", "acgs_link", "links", "supervisor")
#: What listens in every region.
SERVICES = ("postgres", "api", "gateway", "mesh", "stats")


def default_path(name: str = "local") -> Path:
    """Return where a cluster of that name keeps its state: $ACGS2_STATE, or a place for the user."""
    if given := os.environ.get("ACGS2_STATE"):
        return Path(given).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/acgs2") / name
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "acgs2" / name


@dataclass(frozen=True)
class State:
    """An opened state directory."""

    path: Path
    topology: Topology
    ports: dict[str, int] = field(repr=False)
    secrets: dict[str, str] = field(repr=False)

    @property
    def topology_path(self) -> Path:
        """Return the copy of the topology file that the cluster runs by."""
        return self.path / "topology.yaml"

    @property
    def constitution_path(self) -> Path:
        """Return the copy of the constitution that the cluster is founded on."""
        return self.path / "constitution.yaml"

    @property
    def amenders(self) -> Path:
        """Return the folder of the private keys that amendments are signed with in a local cluster."""
        return self.path / "secrets" / "amenders"

    @property
    def logs(self) -> Path:
        """Return the folder of logs."""
        return self.path / "logs"

    def region_path(self, region: str) -> Path:
        """Return the folder of one region."""
        return self.path / "regions" / region

    def data_path(self, region: str) -> Path:
        """Return the data directory of one region's PostgreSQL."""
        return self.region_path(region) / "data"

    def dsn(self, region: str, role: str) -> str:
        """Return how to reach a region's database directly, not over a link."""
        return self._dsn(self.ports[f"postgres/{region}"], role)

    def link_dsn(self, source: str, target: str, role: str) -> str:
        """Return how a region reaches another's database: through both gateways and the link between them."""
        return self._dsn(self.ports[f"egress/{source}/{target}"], role)

    def peer_url(self, source: str, target: str) -> str:
        """Return the base URL by which a region reaches another's gateway: by its own, and over the link."""
        return f"http://127.0.0.1:{self.ports[f'peer/{source}/{target}']}"

    def _dsn(self, port: int, role: str) -> str:
        return f"host=127.0.0.1 port={port} dbname=acgs2 user={role} password={self.secrets[role]}"

    def url(self, region: str) -> str:
        """Return the base URL of a region's server."""
        return f"http://127.0.0.1:{self.ports[f'api/{region}']}"

    def gateway_url(self, region: str) -> str:
        """Return the base URL of a region's gateway, with no distance between."""
        return f"https://localhost:{self.ports[f'gateway/{region}']}"

    def edge_url(self, place: str) -> str:
        """Return the base URL by which clients of a place reach the edge."""
        return f"https://localhost:{self.ports[f'client/{place}']}"

    @property
    def tls(self) -> Path:
        """Return the folder of certificates and keys."""
        return self.path / "tls"

    @property
    def trust(self) -> Path:
        """Return the authorities that clients of edge and gateways accept (PEM)."""
        return self.tls / "trust.pem"

    def adopt(self, topology: Topology, text: str) -> State:
        """Write a changed topology down, with ports for what is new, and return the state by it.

        Args:
            topology: what the cluster shall run by.
            text: the topology file that says so.

        Raises:
            RuntimeFault: a port of the topology is taken (`port-in-use`).
        """
        ports = choose_ports(topology, self.ports)
        _write(self.path / "state.json", json.dumps({"format": FORMAT, "ports": ports}, indent=1), 0o644)
        _write(self.topology_path, text, 0o644)
        return State(self.path, topology, ports, self.secrets)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from changing the cluster; raises RuntimeFault `state-busy`."""
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RuntimeFault(
                    "state-busy",
                    f"Another command is bringing the cluster in {self.path} up or down.",
                    hint="Wait for it to end.",
                ) from error
            yield


def open_state(path: Path) -> State:
    """Open an existing state directory.

    Raises:
        RuntimeFault: there is none (`no-cluster`), or another version of this program made it
            (`state-version`).
    """
    try:
        body: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        keys: dict[str, str] = json.loads((path / "secrets" / "secrets.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RuntimeFault(
            "no-cluster", f"There is no cluster in {path}.", hint="Start one with `acgs2 up`.", path=str(path)
        ) from error
    except (OSError, ValueError) as error:
        raise RuntimeFault(
            "state-unreadable",
            f"The state in {path} cannot be read: {error}.",
            hint="Run as the user who made it, or remove the directory and start anew.",
            path=str(path),
        ) from error
    if body.get("format") != FORMAT:
        raise RuntimeFault(
            "state-version",
            f"The state in {path} has format {body.get('format')}; this program writes {FORMAT}.",
            hint="Use the release that made it, or `acgs2 down --destroy` with it and start anew.",
            path=str(path),
        )
    return State(path, load(path / "topology.yaml"), body["ports"], keys)


def create_state(path: Path, topology_path: Path) -> State:
    """Make a state directory for a topology, or open the one that is there for the same topology.

    Raises:
        RuntimeFault: the directory belongs to another topology (`state-other-topology`), a port of the
            topology is taken (`port-in-use`), or the disk does not take it (`state-unwritable`).
    """
    topology = load(topology_path)
    if (path / "state.json").exists():
        state = open_state(path)
        if state.topology.digest != topology.digest:
            raise RuntimeFault(
                "state-other-topology",
                f"The cluster in {path} runs the topology {state.topology.name}, and it differs from "
                f"{topology_path}.",
                hint="Name another directory with --state, or change this one: `acgs2 topology apply FILE`.",
                path=str(path),
            )
        return state
    try:
        for folder, mode in (
            (path, 0o711),
            (path / "secrets", 0o700),
            (path / "logs", 0o700),
            (path / "regions", 0o711),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
        keys = {name: secrets.token_urlsafe(24) for name in _SECRETS}
        _write(path / "secrets" / "secrets.json", json.dumps(keys), 0o600)
        shutil.copyfile(topology_path, path / "topology.yaml")
        shutil.copyfile(_constitution(topology, topology_path), path / "constitution.yaml")
        ports = choose_ports(topology)
        _write(path / "state.json", json.dumps({"format": FORMAT, "ports": ports}, indent=1), 0o644)
    except OSError as error:
        raise RuntimeFault(
            "disk-full" if error.errno == errno.ENOSPC else "state-unwritable",
            f"{path} cannot be written: {error.strerror or error}.",
            hint="Name a directory on a disk with space that you may write, with --state.",
            path=str(path),
        ) from error
    return State(path, topology, ports, keys)


def _constitution(topology: Topology, topology_path: Path) -> Path:
    """Return the constitution that a topology names, or else the one that comes with the project."""
    declared = topology_path.parent / topology.constitution.path
    file = declared if declared.is_file() else builtin()
    found = load_constitution(file)
    if found.id != topology.constitution.id:
        raise RuntimeFault(
            "constitution-mismatch",
            f"The topology names the constitution {topology.constitution.id}, and {file} is {found.id}.",
            hint="Put the constitution that is meant beside the topology, or name its id and path in it.",
            path=str(file),
        )
    return file


def choose_ports(topology: Topology, have: Mapping[str, int] = MappingProxyType({})) -> dict[str, int]:
    """Choose a port for everything that listens: free ones, or from the topology's base port on.

    Args:
        topology: which regions there are, and from which port on.
        have: ports chosen before; they stay, those of regions that are gone do not.

    Raises:
        RuntimeFault: a port of the topology is taken (`port-in-use`).
    """
    names = ["supervisor", "links", "stats/edge"]
    names += [f"{service}/{region}" for region in topology.regions for service in SERVICES]
    for source, target in topology.directions():
        names += [f"{kind}/{source}/{target}" for kind in ("egress", "peer", "route")]
    names += [f"{kind}/{place}" for place in topology.places for kind in ("edge", "client")]
    names += [f"route/{link.a}/{link.b}" for link in topology.client_links()]
    ports = {name: have[name] for name in names if name in have}
    base, used = topology.local.base_port, {*have.values()}
    wanted = repeat(0) if base is None else (port for port in range(base, 65536) if port not in used)
    with ExitStack() as held:
        for name, number in zip([n for n in names if n not in ports], wanted, strict=False):
            sock = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            try:
                sock.bind(("127.0.0.1", number))
            except OSError as error:
                raise RuntimeFault(
                    "port-in-use",
                    f"Port {number} for {name} is taken.",
                    hint="Stop what uses it, or change local.base_port in the topology.",
                    port=number,
                ) from error
            ports[name] = sock.getsockname()[1]
    return ports


def _write(path: Path, text: str, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
