"""Finds what is unlawful or unwise in a topology; each finding names its rule and the source of law."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Network
from itertools import combinations
from typing import Any, Literal

from acgs2.model import entities
from acgs2.model.entity import Residency
from acgs2.residency.decide import Decision, decide, instant, register_of
from acgs2.residency.regulations import Regulation, regulations
from acgs2.topology import Region, Topology, Transfer

__all__ = ["Finding", "lint", "lint_transfer"]

Severity = Literal["error", "warning"]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; `path` leads to it in the file, `law` is empty where none is concerned."""

    rule: str
    severity: Severity
    path: Path
    message: str
    hint: str
    law: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as plain values."""
        return asdict(self) | {"path": ".".join(map(str, self.path))}


def lint(topology: Topology, now: datetime) -> list[Finding]:
    """Return every finding, errors first.

    Args:
        topology: what is judged.
        now: the moment for which transfers are judged, in UTC.
    """
    found = [
        *_jurisdiction(topology),
        *_restrictions(topology),
        *_transfers(topology, now),
        *_second_region(topology, now),
        *_voters(topology),
        *_networks(topology),
        *_partitions(topology),
    ]
    return sorted(found, key=lambda f: (f.severity != "error", tuple(map(str, f.path))))


def lint_transfer(topology: Topology, transfer: Transfer, now: datetime) -> list[Finding]:
    """Return what is wrong with one transfer that is to be registered in a topology's regions and zones."""
    return list(_transfers(topology.model_copy(update={"transfers": (transfer,)}), now))


def _jurisdiction(topology: Topology) -> Iterator[Finding]:
    for name, zone in topology.zones.items():
        law = regulations().get(zone.regulation)
        if law is None:
            yield Finding(
                "unknown-regulation",
                "error",
                ("zones", name, "regulation"),
                f"Zone {name} names the regulation {zone.regulation}, of which nothing is known.",
                f"Use one of {', '.join(sorted(regulations()))}, or add its row.",
            )
            continue
        for number, region in enumerate(zone.regions):
            where = topology.regions[region]
            path = ("zones", name, "regions", number)
            if where.role == "witness":
                yield Finding(
                    "witness-holds-data",
                    "error",
                    path,
                    f"{region} is a witness and cannot be a home region of zone {name}.",
                    "Give the region a full stack (role primary or secondary), or take it from the zone.",
                )
            if where.country not in law.countries:
                places = ", ".join(sorted(law.countries))
                yield Finding(
                    "outside-jurisdiction",
                    "error",
                    path,
                    f"Zone {name} is under {law.name}, but {region} is in {where.country}: "
                    f"holding it there is an export ({law.name} covers {places}).",
                    "Make a region inside its home, and register a transfer for the one outside.",
                    law.source,
                )


def _restrictions(topology: Topology) -> Iterator[Finding]:
    for name, zone in topology.zones.items():
        law = regulations().get(zone.regulation)
        if law is not None and zone.restriction == "local_only" and not law.localization:
            yield Finding(
                "localization-not-required",
                "error",
                ("zones", name, "restriction"),
                f"Zone {name} claims that {law.name} wants data kept in the country; it does not.",
                "Remove the restriction; serve the rights that the law does give.",
                law.source,
            )


def _transfers(topology: Topology, now: datetime) -> Iterator[Finding]:
    for number, transfer in enumerate(topology.transfers):
        law = regulations().get(topology.zones[transfer.zone].regulation)
        if law is not None:
            what = f"The transfer of {transfer.zone} to {transfer.to}"
            yield from _instrument(
                topology.regions[transfer.to], transfer, ("transfers", number), law, now, what
            )
            yield from _extent(transfer, ("transfers", number), law, now, what)


def _instrument(
    to: Region, transfer: Transfer, path: Path, law: Regulation, now: datetime, what: str
) -> Iterator[Finding]:
    """Yield what is wrong with where a transfer ends and what it rests on."""
    if to.role == "witness":
        yield Finding(
            "witness-holds-data",
            "error",
            (*path, "to"),
            f"{what} ends at a witness.",
            "A witness holds no personal data; choose another region.",
        )
    if transfer.instrument not in law.instruments:
        yield Finding(
            "instrument-not-accepted",
            "error",
            (*path, "instrument"),
            f"{what} rests on {transfer.instrument}, which {law.name} does not know.",
            f"{law.name} accepts {', '.join(sorted(law.instruments))}.",
            law.source,
        )
    eea = regulations()["gdpr"].countries
    if transfer.instrument == "adequacy" and not law.adequate(to.country, now.date(), eea):
        yield Finding(
            "no-adequacy-decision",
            "error",
            (*path, "instrument"),
            f"{what} rests on adequacy, but there is no decision for {to.country}.",
            "Use standard contractual clauses (scc) or binding corporate rules (bcr).",
            law.source,
        )
    if transfer.instrument == "adequacy_dpf":
        if to.country not in law.adequacy_dpf:
            yield Finding(
                "no-adequacy-decision",
                "error",
                (*path, "instrument"),
                f"{what} rests on the Data Privacy Framework, which does not cover {to.country}.",
                "The framework covers certified importers in the US.",
                law.source,
            )
        if not transfer.importer_certified:
            yield Finding(
                "importer-not-certified",
                "error",
                path,
                f"{what} needs a certified importer.",
                "Set importer_certified: true once the certificate is on file.",
                law.source,
            )


def _extent(transfer: Transfer, path: Path, law: Regulation, now: datetime, what: str) -> Iterator[Finding]:
    """Yield what is wrong with how long and for how many a transfer is."""
    expires = instant(transfer.expires)
    if expires is not None and expires <= now:
        yield Finding(
            "transfer-expired",
            "error",
            (*path, "expires"),
            f"{what} expired on {expires.date()}.",
            "Renew it, or take it out.",
            law.source,
        )
    elif expires is not None and expires - now < timedelta(days=90):
        yield Finding(
            "transfer-expires-soon",
            "warning",
            (*path, "expires"),
            f"{what} expires on {expires.date()}; {transfer.to} then erases what it holds.",
            "Renew it in time.",
            law.source,
        )
    limit = law.thresholds.get(transfer.instrument)
    if limit is not None and (transfer.persons_per_year or 0) > limit["persons_per_year"]:
        yield Finding(
            "volume-over-threshold",
            "error",
            (*path, "persons_per_year"),
            f"{what} concerns {transfer.persons_per_year} persons a year; {transfer.instrument} "
            f"is for {limit['persons_per_year']} at most.",
            "Use cac_assessment.",
            str(limit["source"]),
        )


def _second_region(topology: Topology, now: datetime) -> Iterator[Finding]:
    register = register_of(topology)
    kinds = [e.name for e in entities().values() if e.residency is Residency.ZONE]
    for name, zone in topology.zones.items():
        held: Mapping[str, Decision] = {kind: decide(kind, name, register, now) for kind in kinds}
        whole = set.intersection(*(set(d.residency) for d in held.values()))
        if len(whole) < 2:
            yield Finding(
                "no-second-region",
                "warning",
                ("zones", name),
                f"Zone {name} has no second lawful region: when {', '.join(zone.regions)} "
                "is down, the zone stops.",
                "Add a home region, or a transfer of all entities that its service needs.",
            )
        for region in sorted({r for d in held.values() for r in d.residency} - whole):
            lacking = sorted(kind for kind, d in held.items() if region not in d.residency)
            yield Finding(
                "incomplete-failover-target",
                "warning",
                ("zones", name),
                f"{region} may hold part of zone {name} but lacks {', '.join(lacking)}; "
                "it cannot take the zone over.",
                "Widen the transfer if the region shall be a failover target.",
            )


def _voters(topology: Topology) -> Iterator[Finding]:
    voters = [name for name, region in topology.regions.items() if region.voter]
    if len(voters) < 3:
        yield Finding(
            "too-few-voters",
            "error",
            ("regions",),
            f"{len(voters)} voters: a majority does not survive the loss of one.",
            "Have three voters or more; a witness region is enough.",
        )
    elif len(voters) % 2 == 0:
        yield Finding(
            "even-voters",
            "warning",
            ("regions",),
            f"{len(voters)} voters tolerate no more losses than {len(voters) - 1}.",
            "Add a witness, or set voter: false on one region.",
        )


def _networks(topology: Topology) -> Iterator[Finding]:
    networks = {n: IPv4Network(r.vpc_cidr) for n, r in topology.regions.items() if r.vpc_cidr}
    for (a, net_a), (b, net_b) in combinations(networks.items(), 2):
        if net_a.overlaps(net_b):
            yield Finding(
                "overlapping-networks",
                "error",
                ("regions", b, "vpc_cidr"),
                f"{net_b} of {b} overlaps {net_a} of {a}.",
                "Give every region a network of its own, or routes between them are ambiguous.",
            )


def _partitions(topology: Topology) -> Iterator[Finding]:
    clouds = {name: region.cloud for name, region in topology.regions.items()}
    for name, zone in topology.zones.items():
        if len({clouds[r] for r in zone.regions}) > 1:
            yield Finding(
                "zone-across-partitions",
                "error",
                ("zones", name, "regions"),
                f"The home regions of zone {name} are in different cloud partitions.",
                "Regions of different partitions cannot be linked privately; use two zones.",
            )
    for number, transfer in enumerate(topology.transfers):
        homes = {clouds[r] for r in topology.zones[transfer.zone].regions}
        if clouds[transfer.to] not in homes:
            yield Finding(
                "transfer-across-partitions",
                "error",
                ("transfers", number, "to"),
                f"{transfer.to} is in another cloud partition than zone {transfer.zone}.",
                "There is no private link between partitions; the transfer cannot be carried out.",
            )
    for name, region in topology.regions.items():
        if (region.country == "CN") != (region.cloud == "aws-cn"):
            yield Finding(
                "country-cloud-mismatch",
                "error",
                ("regions", name, "cloud"),
                f"{name} is in {region.country} but in partition {region.cloud}.",
                "AWS regions in mainland China are in the partition aws-cn, and only they.",
            )
