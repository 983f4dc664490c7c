"""The decision that everything else follows: which regions may hold an entity's records of a zone now.

The database decides the same in `acgs.decide`; a property test holds both equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from acgs2.model import entities
from acgs2.model.entity import Residency
from acgs2.topology import Topology

__all__ = ["CONSENT", "Decision", "Register", "TransferRecord", "decide", "instant", "register_of"]

#: The instrument that permits nothing by itself: it needs a consent per person (GDPR art. 49(1)(a)).
CONSENT = "explicit_consent"


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """A registered permission, as the register holds it; instants are in UTC."""

    zone: str
    to: str
    instrument: str
    entities: frozenset[str]
    begins: datetime | None = None
    expires: datetime | None = None
    revoked: datetime | None = None
    importer_certified: bool = False

    def in_force(self, now: datetime) -> bool:
        """Return whether it may be relied on at that moment; a revoked one never, whatever its date.

        An adequacy decision for certified importers needs the certificate (EU-US DPF, 2023-07-10).
        """
        return (
            self.revoked is None
            and (self.begins is None or self.begins <= now)
            and (self.expires is None or now < self.expires)
            and (self.instrument != "adequacy_dpf" or self.importer_certified)
        )


@dataclass(frozen=True, slots=True)
class Register:
    """Zones with their home regions, and transfers."""

    regions: frozenset[str]
    zones: Mapping[str, tuple[str, ...]]
    transfers: tuple[TransferRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """Who may hold it, why, and when the answer changes by itself.

    Regions in `by_consent` may hold only what is about people who consented to it (GDPR art. 49(1)(a)).
    """

    residency: tuple[str, ...]
    basis: Mapping[str, str] = field(default_factory=dict)
    valid_until: datetime | None = None
    by_consent: tuple[str, ...] = ()

    def holders(self, consented: Set[str] = frozenset()) -> tuple[str, ...]:
        """Return who may hold one record, whose subject consented to these regions."""
        return tuple(sorted({*self.residency, *(consented & set(self.by_consent))}))


def decide(entity: str, zone: str, register: Register, now: datetime) -> Decision:
    """Decide which regions may hold records of an entity of a zone.

    Home regions hold it (basis `home`); so does the region of every transfer in force (basis its
    instrument). What belongs to the register is held everywhere. An unknown zone is held nowhere.
    """
    declared = entities().get(entity)
    if declared is not None and declared.residency is Residency.EVERYWHERE:
        return Decision(tuple(sorted(register.regions)), dict.fromkeys(sorted(register.regions), "register"))
    if zone not in register.zones:
        return Decision(())
    about = [t for t in register.transfers if t.zone == zone and entity in t.entities]
    basis: dict[str, str] = {}
    consent: set[str] = set()
    for transfer in sorted(about, key=lambda t: t.instrument):
        if not transfer.in_force(now) or transfer.to not in register.regions:
            continue
        if transfer.instrument == CONSENT:
            consent.add(transfer.to)
        else:
            basis.setdefault(transfer.to, transfer.instrument)
    basis.update({home: "home" for home in register.zones[zone] if home in register.regions})
    by_consent = sorted(consent - basis.keys()) if declared is not None and declared.subject else ()
    edges = [e for t in about for e in (t.begins, t.expires) if e is not None and e > now]
    held = dict(sorted(basis.items()))
    return Decision(tuple(held), held, min(edges, default=None), tuple(by_consent))


def instant(value: date | datetime | None) -> datetime | None:
    """Return a date of the topology as an instant: a date begins at midnight UTC."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def register_of(topology: Topology) -> Register:
    """Return the register that a topology begins with."""
    return Register(
        frozenset(topology.regions),
        {name: zone.regions for name, zone in topology.zones.items()},
        tuple(
            TransferRecord(
                t.zone,
                t.to,
                t.instrument,
                frozenset(t.entities),
                instant(t.begins),
                instant(t.expires),
                None,
                t.importer_certified,
            )
            for t in topology.transfers
        ),
    )
