"""The models of topology.yaml. Frozen; unknown keys are errors; Terraform and Helm read the same file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date, datetime
from functools import cached_property
from ipaddress import IPv4Network
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from acgs2.topology.links import Link, link_of, links_between

__all__ = [
    "Clients",
    "DatabaseAgreement",
    "EtcdAgreement",
    "Failover",
    "Front",
    "Gate",
    "HealthCheck",
    "Limits",
    "Objectives",
    "Observability",
    "Place",
    "Region",
    "Topology",
    "Transfer",
    "Zone",
]

RegionName = Annotated[str, Field(pattern=r"^[a-z]{2}-[a-z]+-[0-9]$", max_length=32)]
ZoneName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
PlaceName = Annotated[str, Field(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=32)]
Endpoint = Annotated[str, Field(pattern=r"^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?/?$")]
Instrument = Literal[
    "adequacy",
    "adequacy_dpf",
    "scc",
    "bcr",
    "cac_assessment",
    "standard_contract",
    "explicit_consent",
    "none_required",
]


class Section(BaseModel):
    """What every model of the file has in common: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Constitution(Section):
    """Which constitution the topology is governed by."""

    id: str
    path: str = "constitution.yaml"


class Nodes(Section):
    """How many nodes a region's cluster has."""

    min: int = Field(ge=0)
    desired: int = Field(ge=0)
    max: int = Field(ge=0)


class Region(Section):
    """A place with a full stack, or a witness: database and controller only, no personal data."""

    country: str = Field(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2")
    role: Literal["primary", "secondary", "witness"] = "primary"
    cloud: Literal["aws", "aws-cn"] = "aws"
    location: tuple[float, float] | None = Field(default=None, description="latitude, longitude in degrees")
    vpc_cidr: str | None = None
    nodes: Nodes | None = None
    voter: bool = Field(default=True, description="whether its database has a vote in agreements")

    @field_validator("vpc_cidr")
    @classmethod
    def _cidr(cls, value: str | None) -> str | None:
        return str(IPv4Network(value)) if value is not None else None


class Zone(Section):
    """A body of data under one regulation, with its home regions."""

    regulation: str
    regions: tuple[RegionName, ...] = Field(min_length=1)
    pair: tuple[RegionName, RegionName] | Literal["none"] | None = None
    restriction: Literal["none", "local_only"] | None = Field(
        default=None, description="what the operator claims the law asks for; the linter compares"
    )


class Transfer(Section):
    """A permission for records of a zone to be held in a region that is not its home."""

    zone: ZoneName
    to: RegionName
    instrument: Instrument
    entities: tuple[str, ...] = Field(min_length=1)
    begins: date | datetime | None = None
    expires: date | datetime | None = None
    importer_certified: bool = False
    persons_per_year: int | None = Field(default=None, ge=0, description="for instruments with thresholds")


class Objectives(Section):
    """The five numbers that drills are judged by."""

    p99_ms: float = 100
    lag_s: float = 1
    failover_s: float = 300
    residency: float = 1.0
    availability: float = 0.9999


class Gate(Section):
    """What a region that comes back must keep to before it is given its next share."""

    error_rate: float = Field(default=0.01, ge=0, le=1, description="of its answers, at most")
    p99_ms: float = Field(default=1000, gt=0, description="of what it answers, at most")
    least_requests: int = Field(default=50, ge=1, description="below which rates and times say nothing")


class Failover(Section):
    """When a region counts as down or up, and how traffic comes back."""

    interval_s: float = 1
    failures: int = 3
    successes: int = 5
    scale_to: int = 10
    weights: tuple[int, ...] = (10, 25, 50, 75, 100)
    dwell_s: float = 300
    lag_limit_s: float = Field(default=10, gt=0, description="a region that is further behind is not ready")
    gate: Gate = Gate()
    automatic: bool = Field(default=True, description="whether plans are begun without being asked for")


class Place(Section):
    """Where clients are: the edge has a point of presence there, and every region is as far as it is."""

    location: tuple[float, float] = Field(description="latitude, longitude in degrees")
    zone: ZoneName | None = Field(
        default=None, description="the zone of those who live there, for objectives"
    )
    access_ms: float = Field(default=10, ge=0, description="round trip from a client there to the edge")


class Limits(Section):
    """What a proxy allows towards one region and when it gives up on it; the guide's figures."""

    connections: int = Field(default=100, ge=1)
    pending: int = Field(default=10, ge=1, description="requests that wait for a connection")
    failures: int = Field(default=5, ge=1, description="in a row, until a region is left alone")
    interval_s: float = Field(default=10, gt=0, description="between looks at who is left alone")
    ejection_s: float = Field(default=30, gt=0, description="for how long a region is left alone at first")
    ejection_percent: int = Field(default=50, ge=0, le=100)
    retries: int = Field(default=3, ge=0)
    per_try_s: float = Field(default=10, gt=0)
    timeout_s: float = Field(default=30, gt=0)


class Clients(Section):
    """How long a client of a proxy may take; who is slower is told so and let go."""

    handshake_s: float = Field(default=10, gt=0, description="until TLS is agreed")
    headers_s: float = Field(default=10, gt=0, description="until the headers are there")
    request_s: float = Field(default=30, gt=0, description="until the body is there")
    silence_s: float = Field(default=35, gt=0, description="without a byte in a request or its answer")


class HealthCheck(Section):
    """How DNS looks at a region; Route 53 knows intervals of 10 and 30 s."""

    path: str = Field(default="/health", pattern=r"^/[A-Za-z0-9/_-]*$")
    port: int = Field(default=443, ge=1, le=65535)
    failures: int = Field(default=3, ge=1, le=10)
    interval_s: Literal[10, 30] = 30


class Front(Section):
    """The way in: limits of gateways and edge, and what DNS is told."""

    limits: Limits = Limits()
    clients: Clients = Clients()
    health_check: HealthCheck = HealthCheck()
    ttl_s: int = Field(default=60, ge=0, le=3600, description="how long DNS answers are kept")

    @model_validator(mode="after")
    def _patient(self) -> Self:
        if self.clients.silence_s <= self.limits.timeout_s:
            raise ValueError(
                "clients.silence_s must be longer than limits.timeout_s: "
                "who waits for a region would be told to have been slow"
            )
        return self


class DatabaseAgreement(Section):
    """Agreement over the databases of all regions that vote."""

    kind: Literal["database"] = Field(default="database", alias="register")


class EtcdAgreement(Section):
    """Agreement over an etcd that is run already; its members should be as far apart as the regions are."""

    kind: Literal["etcd"] = Field(alias="register")
    endpoints: tuple[Endpoint, ...] = Field(min_length=1, description="members' client URLs, tried in turn")
    ca: str | None = Field(default=None, description="file with the authorities that members are checked by")
    certificate: str | None = Field(default=None, description="file with this side's certificate")
    key: str | None = Field(default=None, description="file with its private key, if not in the same file")


class LinkSettings(Section):
    """What a link is said to be like, in place of measurement or estimate; a place may be one end."""

    a: RegionName | PlaceName
    b: RegionName | PlaceName
    rtt_ms: float | None = Field(default=None, ge=0)
    jitter_ms: float | None = Field(default=None, ge=0)
    bandwidth_mbps: float | None = Field(default=None, gt=0)
    loss: float = Field(default=0, ge=0, lt=1)


class Observability(Section):
    """Where the processes of a topology send what they observe; nothing is sent if nothing is named."""

    otlp: Endpoint | None = Field(
        default=None, description="an OpenTelemetry collector's base URL; traces go to /v1/traces below it"
    )


class Local(Section):
    """How the topology is run on one machine."""

    base_port: int | None = Field(default=None, ge=1024, le=60000)


class Topology(Section):
    """A whole topology."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    domain: str
    constitution: Constitution
    regions: dict[RegionName, Region] = Field(min_length=1)
    zones: dict[ZoneName, Zone] = Field(min_length=1)
    transfers: tuple[Transfer, ...] = ()
    objectives: Objectives = Objectives()
    failover: Failover = Failover()
    agreement: Annotated[DatabaseAgreement | EtcdAgreement, Field(discriminator="kind")] = DatabaseAgreement()
    links_settings: tuple[LinkSettings, ...] = Field(default=(), alias="links")
    places: dict[PlaceName, Place] = Field(default={}, description="where clients are")
    front: Front = Front()
    observability: Observability = Observability()
    local: Local = Local()

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the topology's canonical JSON, in hex."""
        body = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(body.encode()).hexdigest()

    def pair_of(self, zone: str) -> tuple[str, ...]:
        """Return the regions that acknowledge writes of a zone together; empty if it has no second one."""
        declared = self.zones[zone].pair
        if declared == "none":
            return ()
        if declared is not None:
            return declared
        homes = self.zones[zone].regions
        return homes[:2] if len(homes) > 1 else ()

    def links(self) -> tuple[Link, ...]:
        """Return a link for every two regions of one cloud partition, with its round trip time."""
        places = {name: (r.cloud, r.location) for name, r in self.regions.items()}
        settings = {frozenset((s.a, s.b)): s.model_dump() for s in self.links_settings}
        return links_between(places, settings)

    def client_links(self) -> tuple[Link, ...]:
        """Return a link from every place (`a`) to every region that serves clients (`b`)."""
        settings = {frozenset((s.a, s.b)): s.model_dump() for s in self.links_settings}
        places = {name: place.location for name, place in self.places.items()}
        regions = {name: self.regions[name].location for name in self.stacks()}
        return tuple(
            link_of(p, at, r, there, settings) for p, at in places.items() for r, there in regions.items()
        )

    @cached_property
    def distances(self) -> Mapping[str, Mapping[str, float]]:
        """Return round trip times in ms from each place and region to all that serve clients, in order.

        A client in a region is at no distance from it; one in a witness's region, or of another cloud
        partition, comes over the internet like any other.
        """
        settings = {frozenset((s.a, s.b)): s.model_dump() for s in self.links_settings}
        origins = {name: place.location for name, place in self.places.items()}
        origins |= {name: region.location for name, region in self.regions.items()}
        found: dict[str, dict[str, float]] = {}
        for origin, at in origins.items():
            rtts = {
                r: link_of(origin, at, r, self.regions[r].location, settings).rtt_ms if r != origin else 0.0
                for r in self.stacks()
            }
            found[origin] = dict(sorted(rtts.items(), key=lambda item: (item[1], item[0])))
        return found

    def stacks(self) -> tuple[str, ...]:
        """Return the regions that serve clients: all but witnesses."""
        return tuple(name for name, region in self.regions.items() if region.role != "witness")

    def directions(self) -> tuple[tuple[str, str], ...]:
        """Return every (source, target) between which there is a link."""
        return tuple(p for link in self.links() for p in ((link.a, link.b), (link.b, link.a)))

    def peers(self, region: str) -> tuple[str, ...]:
        """Return the regions that a region has a link with, sorted."""
        return tuple(sorted(target for source, target in self.directions() if source == region))

    def endpoint(self, region: str) -> str:
        """Return the public base URL of a region."""
        return f"https://api.{region}.{self.domain}"
