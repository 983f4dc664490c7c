"""Changes the topology of a running cluster: regions come and go for good while the others work.

Every step is safe to repeat; whoever was broken off runs the same command again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import yaml

from acgs2.api.tokens import mint
from acgs2.errors import RefusedError, RuntimeFault
from acgs2.local.cluster import Cluster
from acgs2.local.loopback import health, loopback
from acgs2.residency import lint
from acgs2.store.register import amend, forget, unfinished, wanting
from acgs2.topology import Topology, load, locate
from acgs2.topology.diff import Changes, compare

__all__ = ["apply", "plan"]

Say = Callable[[str], None]
_WAIT_S = 120.0


def plan(cluster: Cluster, file: str | Path) -> tuple[Topology, Changes]:
    """Return what a topology file would change.

    Raises:
        RefusedError: a running cluster cannot take the change on (`topology-change-refused`), or it would
            break the law in a way that the cluster does not yet (`topology-unlawful`).
        TopologyError: it is no topology.
    """
    after = load(file)
    changes = compare(cluster.state.topology, after)
    if changes.refused:
        raise RefusedError(
            "topology-change-refused",
            f"The running cluster cannot become this: {'; '.join(changes.refused)}.",
            hint="Change what is named, or start another cluster with --state.",
        )
    now = datetime.now(UTC)
    before = {(f.rule, f.message) for f in lint(cluster.state.topology, now)}
    errors = [f for f in lint(after, now) if f.severity == "error" and (f.rule, f.message) not in before]
    if errors:
        raise RefusedError(
            "topology-unlawful",
            f"It would bring {len(errors)} errors of law, the first: {errors[0].message}",
            hint=f"See `acgs2 topology lint {file}`.",
        )
    return after, changes


def apply(cluster: Cluster, file: str | Path, say: Say, *, gone: Collection[str] = ()) -> Changes:
    """Make a running cluster that of a topology file.

    Args:
        cluster: the running cluster.
        file: the topology as it shall be.
        say: told each step as it begins.
        gone: regions to be removed that are lost: the caller answers for their data being gone.

    Raises:
        AcgsError: what is in the way; what was done until then stays, and the same call goes on from there.
    """
    with cluster.state.locked():
        after, changes = plan(cluster, file)
        text = locate(file).read_text(encoding="utf-8")
        if changes.nothing:
            cluster.state = cluster.state.adopt(after, text)
            return changes
        _Apply(cluster, after, changes, say, frozenset(gone)).run(text)
        return changes


class _Apply:
    """One run of it."""

    def __init__(
        self, cluster: Cluster, after: Topology, changes: Changes, say: Say, gone: frozenset[str]
    ) -> None:
        self._cluster = cluster
        self._before = cluster.state.topology
        self._after = after
        self._changes = changes
        self._say = say
        self._gone = gone

    def run(self, text: str) -> None:
        changes = self._changes
        leaving = [r for r in changes.regions_removed if r not in self._gone]
        for region in leaving:
            if not self._is_ready(region):
                raise RefusedError(
                    "region-away",
                    f"{region} is to be removed and does not answer.",
                    hint=f"Start it, so that it can hand over; or, if its data is lost, --gone {region}.",
                    region=region,
                )
        self._bring_up()
        votes = {name for name, region in self._after.regions.items() if region.voter}
        # Where etcd holds what is agreed on, its own members vote, and regions do not.
        over_etcd = self._after.agreement.kind == "etcd"
        voters = votes if over_etcd else {*self._call("GET", "/api/v1/voters")["voters"]}
        for region in sorted(votes - voters):
            self._say(f"letting {region} vote")
            self._call("POST", "/api/v1/voters", {"add": region})
        if changes.zones or changes.transfers_added or changes.transfers_removed:
            self._say("changing zones and transfers")
            with psycopg.connect(self._cluster.state.dsn(self._live(), "acgs_app"), autocommit=True) as conn:
                amend(conn, self._after, changes)
            self._await(self._given, "every region to be given what it may hold now")
        for region in sorted(voters - votes):
            self._say(f"taking the vote from {region}")
            self._call("POST", "/api/v1/voters", {"remove": region})
        for region in changes.regions_removed:
            self._remove(region)
        if changes.regions_removed:
            self._cluster.adopt(self._after, text)
        else:
            self._cluster.state = self._cluster.state.adopt(self._after, text)

    def _bring_up(self) -> None:
        """Have new regions come up beside all others; zones and transfers stay as they were until then."""
        changes = self._changes
        self._say(
            f"bringing up {', '.join(changes.regions_added)}"
            if changes.regions_added
            else "restarting servers"
        )
        leaving = {region: self._before.regions[region] for region in changes.regions_removed}
        during = self._after.model_copy(
            update={
                "regions": {**self._after.regions, **leaving},
                "zones": self._before.zones,
                "transfers": self._before.transfers,
            }
        )
        self._cluster.adopt(during, _text(during))
        for region in self._after.regions:
            if region in changes.regions_added or self._is_live(region):
                self._await(lambda r=region: self._whole(r), f"{region} to be ready and linked")

    def _remove(self, region: str) -> None:
        staying = list(self._after.regions)
        if region in self._gone:
            self._say(f"{region} is gone: comparing those that stay")
            for other in staying:
                if self._is_live(other):
                    self._call("POST", "/api/v1/repair", region=other, timeout_s=_WAIT_S)
        else:
            self._say(f"{region} hands over and forgets")
            with psycopg.connect(self._cluster.state.dsn(region, "acgs_owner"), autocommit=True) as conn:
                self._await(
                    lambda: unfinished(conn, staying) is None, "it", lambda: unfinished(conn, staying)
                )
        self._say(f"removing {region}")
        self._cluster.ask("retire", region=region)
        for other in staying:
            try:
                with psycopg.connect(self._cluster.state.dsn(other, "postgres"), autocommit=True) as conn:
                    forget(conn, other, region, "operator@cli")
            except psycopg.OperationalError as error:
                raise RuntimeFault(
                    "not-running",
                    f"The database of {other} does not answer, and must forget {region} too.",
                    hint=f"`acgs2 chaos start {other}`, then run the command again.",
                    region=other,
                ) from error

    def _given(self) -> bool:
        for region in filter(self._is_live, self._after.regions):
            with psycopg.connect(self._cluster.state.dsn(region, "acgs_owner"), autocommit=True) as conn:
                if wanting(conn):
                    return False
        return True

    def _live(self) -> str:
        """Return a region that stays and is ready; raises RuntimeFault `no-region-ready`."""
        for region in self._after.regions:
            if region in self._before.regions and self._is_ready(region):
                return region
        raise RuntimeFault("no-region-ready", "No region is ready.", hint="See `acgs2 status`.")

    def _health(self, region: str) -> dict[str, Any]:
        return health(self._cluster.state.url(region))

    def _is_live(self, region: str) -> bool:
        return bool(self._health(region))

    def _is_ready(self, region: str) -> bool:
        return self._health(region).get("status") == "ready"

    def _whole(self, region: str) -> bool:
        health = self._health(region)
        missing = {*health.get("links_missing", ())} - self._gone
        return health.get("status") == "ready" and not {r for r in missing if self._is_live(r)}

    def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        region: str | None = None,
        timeout_s: float = 60.0,
    ) -> Any:
        state = self._cluster.state
        keys = state.path / "secrets" / "signing.json"
        token = mint(keys, "operator@cli", "operator", state.topology.name, int(time.time()))
        url = state.url(region or self._live()) + path
        headers = {"authorization": f"Bearer {token}"}
        answer = loopback().request(method, url, json=body, headers=headers, timeout=timeout_s)
        content = answer.json()
        if answer.status_code >= 400:
            reference = str(content.get("type", "")).rpartition("/")[2]
            raise RuntimeFault(reference, content.get("detail", ""), hint=content.get("hint", ""))
        return content

    def _await(
        self, condition: Callable[[], bool], what: str, why: Callable[[], str | None] = lambda: None
    ) -> None:
        deadline_s = time.monotonic() + _WAIT_S
        while not condition():
            if time.monotonic() > deadline_s:
                raise RuntimeFault(
                    "not-ready",
                    f"Waited {_WAIT_S:g} s for {what}: {why() or 'see its health'}.",
                    hint="See `acgs2 status` and `acgs2 logs`; then run the command again.",
                )
            time.sleep(0.2)


def _text(topology: Topology) -> str:
    return yaml.safe_dump(topology.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=False)
