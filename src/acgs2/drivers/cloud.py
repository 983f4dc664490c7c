"""cloud.yaml: which cloud resources belong to a topology. docs/cloud.md says what each part means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from acgs2.drivers.dns import Partition
from acgs2.errors import InputError
from acgs2.policy.documents import Lines, read
from acgs2.topology import Topology
from acgs2.topology.load import explained

__all__ = ["Balancer", "Cloud", "Database", "Kubernetes", "Place", "cloud_of", "load", "parse"]

_HINT = "docs/cloud.md says what may stand at {where}."
_Group = Annotated[str, Field(pattern=r"^sg-[0-9a-f]+$")]
_Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Service = Literal["rds", "cloudwatch", "route53"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Kubernetes(_Part):
    """A region's cluster, and what there is of ours in it."""

    context: str | None = Field(default=None, description="of the kubeconfig; its current one by default")
    kubeconfig: str | None = Field(default=None, description="a file; else KUBECONFIG or ~/.kube/config")
    namespace: _Label = "acgs2"
    scaled: str = Field(
        default="apps/v1/deployments/acgs2-bus",
        pattern=r"^[a-z0-9.-]+/v[a-z0-9]+/[a-z]+/[a-z0-9.-]+$",
        description="what is scaled: API version, plural and name of anything with a scale",
    )
    wait_s: float = Field(default=60, ge=0, description="for all replicas to be available")
    least: int = Field(default=1, ge=0, description="with so many available a plan goes on after wait_s")
    mesh: bool = Field(default=True, description="whether Istio runs in it")


class Balancer(_Part):
    """A region's load balancer, for aliases in DNS."""

    name: str
    zone: str = Field(pattern=r"^[A-Z0-9]{1,32}$", description="its hosted zone's id")


class Place(_Part):
    """What a region has in its cloud; what is not named is left alone."""

    kubernetes: Kubernetes | None = None
    load_balancer: Balancer | None = None
    open_groups: tuple[_Group, ...] = Field(default=(), description="security groups of a database in use")
    closed_groups: tuple[_Group, ...] = Field(default=(), description="security groups that let nobody in")

    @model_validator(mode="after")
    def _both(self) -> Self:
        if bool(self.open_groups) != bool(self.closed_groups):
            raise ValueError("open_groups and closed_groups belong together: what is closed is opened again")
        return self


class Database(_Part):
    """A zone whose database has one writer: an Aurora global database."""

    global_cluster: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,62}$")
    data_loss: Literal["refuse", "allow"] = Field(
        default="refuse", description="whether it may fail over without its old writer's consent"
    )
    at_most_s: float | None = Field(
        default=None, ge=0, description="how far behind it may then be; any number by default"
    )


class Cloud(_Part):
    """All of it."""

    regions: dict[str, Place] = {}
    databases: dict[str, Database] = Field(default={}, description="by zone; others have no one writer")
    hosted_zones: dict[Partition, str] = Field(default={}, description="ids in Route 53, by cloud partition")
    endpoints: dict[Service, str] = Field(default={}, description="other servers than AWS's")

    def check(self, topology: Topology) -> None:
        """See that regions and zones are those of a topology.

        Raises:
            InputError: one is not (`cloud-invalid`).
        """
        for kind, named, known in (
            ("region", self.regions, topology.regions),
            ("zone", self.databases, topology.zones),
        ):
            for name in named:
                if name not in known:
                    raise InputError(
                        "cloud-invalid", f"There is no {kind} {name}.", hint=f"Known: {', '.join(known)}."
                    )


def parse(text: str, source: str = "cloud.yaml") -> Cloud:
    """Read it from YAML.

    Raises:
        InputError: it is not one; `context` has file, line and path.
    """
    raw, lines = read(text, source, InputError, "cloud-invalid")
    return cloud_of(raw if raw is not None else {}, source, lines)


def cloud_of(raw: Any, source: str = "actor_settings", lines: Lines | None = None) -> Cloud:
    """Return it from plain values; see `parse`."""
    try:
        return Cloud.model_validate(raw)
    except ValidationError as error:
        known = {name for model in _Part.__subclasses__() for name in model.model_fields}
        raise explained(error, source, lines or {}, known, InputError, "cloud-invalid", _HINT) from error


def load(path: str | Path) -> Cloud:
    """Read a file; see `parse`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cloud-unreadable", f"{path} cannot be read: {error}.") from error
    return parse(text, str(path))
