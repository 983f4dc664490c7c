"""What regions, zones and transfers there are: one file, read as it is, and the distances between regions."""

from acgs2.topology.links import Link
from acgs2.topology.load import builtin, load, locate, parse
from acgs2.topology.models import (
    Clients,
    DatabaseAgreement,
    EtcdAgreement,
    Failover,
    Front,
    Gate,
    HealthCheck,
    Limits,
    Objectives,
    Observability,
    Place,
    Region,
    Topology,
    Transfer,
    Zone,
)

__all__ = [
    "Clients",
    "DatabaseAgreement",
    "EtcdAgreement",
    "Failover",
    "Front",
    "Gate",
    "HealthCheck",
    "Limits",
    "Link",
    "Objectives",
    "Observability",
    "Place",
    "Region",
    "Topology",
    "Transfer",
    "Zone",
    "builtin",
    "load",
    "locate",
    "parse",
]
