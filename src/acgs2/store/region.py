"""Makes a database a region: identity, register, publications and slots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

import psycopg
from psycopg import sql

from acgs2.errors import RuntimeFault
from acgs2.residency.decide import instant
from acgs2.store.schema import OWNER
from acgs2.store.templates import fragments
from acgs2.topology import Topology

__all__ = ["GENESIS", "found", "link_name", "register_key"]

#: The origin of what every region starts with: the same record everywhere, written by nobody.
GENESIS = "genesis#00000000"
_REGISTER = UUID("6f4e1c0a-8a55-5f0e-9d6b-8c2f5b7a1e42")


def register_key(kind: str, name: str) -> UUID:
    """Return the key of a zone or transfer: derived from its name, so the same in every region."""
    return uuid5(_REGISTER, f"{kind}/{name}")


def link_name(source: str, target: str) -> str:
    """Return the name that publication, slot and subscription from source to target share."""
    return f"acgs_{source.replace('-', '_')}_to_{target.replace('-', '_')}"


def found(
    conn: psycopg.Connection,
    topology: Topology,
    region: str,
    incarnation: str,
    passwords: Mapping[str, str],
    *,
    first: bool = False,
) -> None:
    """Make this database the region of that name; run by a superuser, safe to repeat.

    Args:
        conn: a superuser's connection to a migrated database.
        topology: where the register's zones and transfers come from.
        region: its name in the topology.
        incarnation: eight hex digits, what a new database begins its first life as.
        passwords: of the roles acgs_owner, acgs_app and acgs_link.
        first: the cluster begins with this call, so there is nothing that others could give.

    Raises:
        RuntimeFault: the database is already another region (`region-mismatch`).
    """
    queries = fragments("region.sql")
    with conn.transaction():
        for role, password in passwords.items():
            conn.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
            )
        conn.execute(
            queries["become"].encode(),
            {"region": region, "incarnation": incarnation, "digest": topology.digest, "first": first},
        )
        voters = sorted(name for name, each in topology.regions.items() if each.voter)
        conn.execute(queries["first_voters"].encode(), {"names": voters})
        row = conn.execute(queries["who"].encode()).fetchone()
        if row is None or row[0] != region:
            raise RuntimeFault(
                "region-mismatch",
                f"This database is {row[0]}, not {region}." if row else "The database has no identity.",
                hint="The data directory is another region's; give this one its own.",
                region=region,
            )
        for name, each in topology.regions.items():
            conn.execute(
                queries["know_region"].encode(), {"name": name, "role": each.role, "cloud": each.cloud}
            )
        # Whoever comes later is given the register by the others: it may have changed since.
        for kind, records in genesis(topology).items() if first else ():
            holders = sorted(topology.regions)
            conn.execute(
                b"SELECT acgs.merge_directly(%s, %s, %s)", (kind, json.dumps(records, default=str), holders)
            )
        conn.execute(b"SELECT acgs.refresh_rules()")
        conn.execute(f"SET LOCAL ROLE {OWNER}".encode())
        for peer in topology.peers(region):
            conn.execute(b"SELECT acgs.ensure_publication(%s)", (peer,))
        conn.execute(b"SELECT acgs.maintain()")
        if first:
            conn.execute(b"DELETE FROM acgs.acquisition")
    # A slot cannot be made by a transaction that has written.
    for peer in topology.peers(region):
        conn.execute(b"SELECT acgs.ensure_slot(%s)", (peer,))


def genesis(topology: Topology) -> dict[str, list[dict[str, Any]]]:
    """Return the register's first records, identical in every region."""
    stamp = {
        "zone": "*",
        "sent_to": sorted(topology.regions),
        "hlc": 1,
        "origin": GENESIS,
        "vv": {GENESIS: 1},
        "erased": False,
        "rights": {},
        "meta": {},
    }
    zones = [
        {
            **stamp,
            "key": register_key("zone", name),
            "name": name,
            "regulation": zone.regulation,
            "regions": list(zone.regions),
            "pair": list(topology.pair_of(name)),
        }
        for name, zone in topology.zones.items()
    ]
    transfers = [
        {
            **stamp,
            "key": register_key("transfer", f"{t.zone}/{t.to}/{t.instrument}/{number}"),
            "from_zone": t.zone,
            "to_region": t.to,
            "instrument": t.instrument,
            "entities": list(t.entities),
            "begins": instant(t.begins),
            "expires": instant(t.expires),
            "revoked": None,
            "importer_certified": bool(t.importer_certified),
        }
        for number, t in enumerate(topology.transfers)
    ]
    return {"zone": zones, "transfer": transfers}
