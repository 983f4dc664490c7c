"""Who carries the steps of a plan out in the cloud: see `acgs2.api.actors`.

An act looks first and changes only what differs, so whoever leads next may repeat it. It returns a line for
every call that it made, or would make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from acgs2.api.actors import Actor
from acgs2.drivers.cloud import Cloud, load
from acgs2.plan import Rights, rights_of
from acgs2.plan.steps import Agreed
from acgs2.topology import Topology

__all__ = ["actors_in", "actors_of"]


def actors_of(
    topology: Topology,
    cloud: Cloud,
    *,
    agreed: Callable[[], Agreed] = Agreed,
    rights: Callable[[], Rights] | None = None,
) -> list[Actor]:
    """Return who acts for a topology, in the order in which they act in one step.

    Args:
        topology: regions, zones and limits.
        cloud: what there is of them in the cloud.
        agreed: what is agreed on about traffic when a step is done.
        rights: who may hold what then; what the topology says by default.

    Raises:
        InputError: the settings name what the topology has not.
    """
    from acgs2.drivers.aurora import AuroraActor
    from acgs2.drivers.kubernetes import CapacityActor, MeshActor
    from acgs2.drivers.route53.actor import Route53Actor

    cloud.check(topology)
    now_rights = rights or (lambda: rights_of(topology, datetime.now(UTC)))
    found: list[Actor] = [
        Route53Actor(topology, cloud, partition, agreed, now_rights) for partition in cloud.hosted_zones
    ]
    if any(place.kubernetes for place in cloud.regions.values()):
        found += [CapacityActor(cloud), MeshActor(topology, cloud, agreed, now_rights)]
    if cloud.databases:
        found.append(AuroraActor(cloud))
    return found


def actors_in(
    topology: Topology,
    path: str,
    *,
    agreed: Callable[[], Agreed] = Agreed,
    rights: Callable[[], Rights] | None = None,
) -> Sequence[Actor]:
    """Return the same from a cloud.yaml; see `actors_of`."""
    return actors_of(topology, load(path), agreed=agreed, rights=rights)
