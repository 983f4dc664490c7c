"""What one region's server knows and holds: configuration, pool, rules, watcher."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from acgs2.api.actors import actors_of
from acgs2.api.agreement import register_for
from acgs2.api.audited import Refusals
from acgs2.api.facts import Facts
from acgs2.api.governance import Governance
from acgs2.api.in_force import first_documents
from acgs2.api.inbox_duty import inboxes_for
from acgs2.api.metrics import Metrics
from acgs2.api.neighbours import Neighbours
from acgs2.api.peers import Peers
from acgs2.api.standing import Participation
from acgs2.api.tally import Tally
from acgs2.api.tokens import Verifier
from acgs2.api.tracing import tracing_for
from acgs2.audit.status import LogStatus
from acgs2.bus.agents import Agents, Known
from acgs2.bus.committer import Committer
from acgs2.bus.desk import Receiver
from acgs2.consensus import Documents, Leader, PaxosRegister
from acgs2.consensus.voters import DatabaseVoter
from acgs2.errors import InputError, UnavailableError
from acgs2.model.clock import Offset
from acgs2.plan import Agreed, Observation, Rights
from acgs2.store import FlushWatcher
from acgs2.store.life import Life
from acgs2.store.templates import fragments
from acgs2.topology import Topology

if TYPE_CHECKING:
    from acgs2.api.controller import Controller

__all__ = ["Config", "RegionServer", "Rules"]

#: For how long regions leave it to the first one to found a new cluster.
_FOUNDING_S = 2.0


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration file of a region's server."""

    region: str
    topology: str
    listen_port: int
    database: str
    owner_database: str
    peers: dict[str, str]
    peer_databases: dict[str, str]
    #: Where other regions' gateways are reached over the links; as in `peers`, if not given.
    peer_gateways: dict[str, str] = {}
    life_path: str
    jwks_path: str
    #: What a new cluster is founded on; the file beside the topology that it names, if not given.
    constitution: str | None = None
    #: Amenders' public keys, for a constitution that leaves them to be filled in.
    amender_keys: dict[str, str] = {}
    pair_timeout_s: float = 5.0
    #: Its own keys for audit log and witnessing, and everybody's public ones; no log is kept without.
    audit_key_path: str | None = None
    audit_keys_path: str | None = None
    #: Places to base URLs of the edge, and its authority: how the region that leads verifies a failover.
    edges: dict[str, str] = {}
    edge_ca: str | None = None
    #: The key that its controller's tokens are made with, good for nothing but to verify; nothing is without.
    controller_key_path: str | None = None
    #: Who acts on the world outside in a plan, as `module:factory`, and what they are told (cloud.yaml).
    actors: tuple[str, ...] = ()
    actor_settings: dict[str, Any] = {}
    #: An OpenTelemetry collector's base URL; no traces are made without one.
    otlp: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may hold what, as the database last said it; the database itself has the last word."""

    residency: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    by_consent: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    pairs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def holders(self, entity: str, zone: str) -> tuple[str, ...]:
        """Return the regions that may hold an entity's records of a zone.

        Raises:
            InputError: there is no such zone (`zone-unknown`).
            UnavailableError: the database has not been asked yet (`rules-unknown`).
        """
        if not self.pairs:
            raise UnavailableError(
                "rules-unknown",
                "The region has just started and does not know its zones yet.",
                hint="Try again in a moment; nothing was stored.",
            )
        if zone not in self.pairs:
            raise InputError(
                "zone-unknown",
                f"There is no zone {zone!r}.",
                hint=f"Zones: {', '.join(sorted(self.pairs))}.",
            )
        return self.residency.get((entity, zone), ())


class RegionServer:
    """The state that all requests share."""

    #: What the region that leads does; given by the application, for it needs what is asked of this.
    controller: Controller

    def __init__(self, config: Config, topology: Topology) -> None:
        self.config = config
        self.topology = topology
        self.region = config.region
        self.rules = Rules()
        self.verifier = Verifier(Path(config.jwks_path), topology.name)
        self.peers = Peers(config.peer_databases)
        self.neighbours = Neighbours(config.peer_gateways or config.peers)
        #: Region to what was last seen of it, and when (monotonic); `run_observers` keeps it.
        self.observed: dict[str, tuple[Observation, float]] = {}
        #: Peer to when (monotonic) this region was last compared with it, and what differed.
        self.compared: dict[str, tuple[float, tuple[str, ...]]] = {}
        self.life: Life | None = None
        self.replaced = False
        #: Whether a peer has heard more of this life than its database knows: it was restored or copied.
        self.behind = False
        #: When (monotonic) this region's database was last asked for its time, and what it said (µs).
        self.clock_read: tuple[float, int] = (0.0, 0)
        #: Peer to how far its time is ahead, and when that was found (monotonic).
        self.offsets: dict[str, tuple[Offset, float]] = {}
        self.clock_apart = False
        self.links_missing: tuple[str, ...] = tuple(config.peer_databases)
        #: Zones whose writes this region acknowledges alone, as agreed; and those that another holds alone.
        self.alone: dict[str, Any] = {}
        self.held_elsewhere: dict[str, str] = {}
        self.settled_pairs: set[str] = set()
        #: Every region may come to vote; which do is agreed on.
        self.voters = {
            name: DatabaseVoter(dsn)
            for name, dsn in {**config.peer_databases, config.region: config.owner_database}.items()
        }
        self.register = register_for(topology, config.region, self.voters)
        lease_s = topology.failover.failures * topology.failover.interval_s
        #: What is agreed on traffic, and whether this region takes part; `run_standing` keeps it.
        self.participation = Participation(self.register, config.region, lease_s)
        #: Who acts on what is agreed asks `leader.held(term)` before the act, and before its effect is told.
        self.leader = Leader(
            self.register,
            config.region,
            lease_s,
            fit=lambda: self.life is not None and self.life.seeded and not self.replaced,
        )
        #: What is known of the audit log of this region; `run_audit` keeps it.
        self.audit = LogStatus()
        beside = Path(config.topology).parent / topology.constitution.path
        self.governance = Governance(
            Documents(self.register),
            config.region,
            topology.constitution.id,
            lease_s,
            first_documents(topology, Path(config.constitution or beside), config.amender_keys),
            self.audit,
            self.participation,
            patience_s=0.0 if config.region == next(iter(topology.regions)) else _FOUNDING_S,
        )
        self.watcher = FlushWatcher(config.owner_database, config.region)
        self.metrics = Metrics(config.region)
        self.tally = Tally()
        self.tracing = tracing_for(config.otlp, config.region)
        self.pool = AsyncConnectionPool(
            config.database,
            min_size=1,
            max_size=16,
            open=False,
            timeout=3.0,
            kwargs={"autocommit": True},
            check=None,
            reconnect_timeout=60,
        )
        self.facts = Facts(self.pool)
        self.refusals = Refusals()
        self.agents = Agents(self._load_agents)
        self.committer = Committer(
            config.database,
            lambda zone: () if zone in self.alone else self.peers_for(zone),
            self.confirmed,
        )
        #: Who asks for a message asks `inboxes.require` before the act, and before its effect is told.
        self.inboxes = inboxes_for(self)
        self.actors = actors_of(
            config.actors,
            topology,
            config.actor_settings,
            lambda: self.participation.agreed,
            lambda: self.rights,
        )
        #: Agents as the database last had them, and when (monotonic) it was asked.
        self.known_receivers: dict[UUID, tuple[Receiver | None, float]] = {}

    def members(self) -> Sequence[str]:
        """Return the regions whose observations count: those that vote."""
        if isinstance(self.register, PaxosRegister):
            return self.register.members.names
        return [name for name, region in self.topology.regions.items() if region.voter]

    @property
    def standing(self) -> tuple[int, Agreed] | None:
        """Return what is agreed on traffic as last heard, and how often that has changed; None at first."""
        return self.participation.known

    async def read_rules(self, conn: psycopg.AsyncConnection) -> None:
        """Take over what the database says about zones and residency."""
        queries = fragments("api.sql")
        rows = await (await conn.execute(queries["rules"].encode())).fetchall()
        zones = await (await conn.execute(queries["zones"].encode())).fetchall()
        self.rules = Rules(
            {(entity, zone): tuple(residency) for entity, zone, residency, _ in rows},
            {(entity, zone): tuple(by_consent) for entity, zone, _, by_consent in rows},
            {name: tuple(pair) for name, pair in zones},
        )

    @property
    def rights(self) -> Rights:
        """Return who may hold what, as the database last said it."""
        return Rights({(z, e): frozenset(regions) for (e, z), regions in self.rules.residency.items()})

    def peers_for(self, zone: str) -> Sequence[str]:
        """Return the regions that must have a write of a zone before it is acknowledged."""
        return [r for r in self.rules.pairs.get(zone, ()) if r != self.region]

    def require_pair(self, zone: str) -> Sequence[str]:
        """Return the same, and refuse at once when one of them is away.

        Raises:
            UnavailableError: a peer is not connected (`pair-unavailable`); nothing was stored.
        """
        peers = self.peers_for(zone)
        if zone in self.alone:
            return ()
        away = [p for p in peers if not self.watcher.connected(p)]
        if away:
            if zone in self.held_elsewhere:
                raise UnavailableError(
                    "pair-held-elsewhere",
                    f"{self.held_elsewhere[zone]} acknowledges writes of zone {zone} alone.",
                    hint=f"Write there; {self.region} goes on when both are connected.",
                    zone=zone,
                )
            raise UnavailableError(
                "pair-unavailable",
                f"Zone {zone} acknowledges writes in two regions, and {', '.join(away)} is not connected.",
                hint="Try again when it is back; nothing was stored.",
                zone=zone,
                away=away,
            )
        return peers

    async def _load_agents(self, keys: Sequence[UUID]) -> Sequence[Known]:
        async with self.database("SELECT", "agent") as conn:
            cursor = conn.cursor(row_factory=dict_row)
            await cursor.execute(fragments("bus.sql")["agents"].encode(), (list(keys),))
            return [Known.of(row) for row in await cursor.fetchall()]

    @contextlib.asynccontextmanager
    async def database(self, operation: str, entity: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Give a connection for one transaction of a request, and say in its trace how long that took."""
        with self.tracing.database(operation, entity):
            async with self.pool.connection() as conn:
                yield conn

    async def confirmed(self, zone: str, position: str, peers: Sequence[str]) -> None:
        """Wait until the peers of a zone's pair have a position on disk; measured, and part of the trace.

        Raises:
            OutcomeUnknown: one did not say so in time.
        """
        if not peers:
            return
        with self.tracing.pair(zone, list(peers)), self.metrics.pair_wait(zone):
            await self.watcher.wait(position, peers, self.config.pair_timeout_s, zone=zone)

    def endpoints(self, regions: Sequence[str]) -> list[dict[str, str]]:
        """Return where regions are reached: over the links in a local run, by their public names else."""
        return [
            {"region": r, "url": self.config.peers.get(r) or self.topology.endpoint(r)}
            for r in regions
            if r != self.region
        ]
