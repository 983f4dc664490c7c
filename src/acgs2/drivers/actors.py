"""Who acts in the cloud for a plan; a region server is told of `acgs2.drivers.actors:cloud_actors`.

An act looks first and changes only what differs, so whoever leads next may repeat it. It returns a line for
every call that it made, or would make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from acgs2.api.actors import Actor
from acgs2.drivers.cloud import Cloud, cloud_of
from acgs2.plan import Agreed, Rights
from acgs2.topology import Topology

__all__ = ["cloud_actors"]


def cloud_actors(
    topology: Topology,
    settings: Cloud | Mapping[str, Any],
    *,
    agreed: Callable[[], Agreed],
    rights: Callable[[], Rights],
) -> list[Actor]:
    """Return who acts for a topology, in the order in which they act in one step.

    Args:
        topology: regions, zones and limits.
        settings: what there is of them in the cloud, as cloud.yaml has it.
        agreed: what is agreed on about traffic when a step is done.
        rights: who may hold what then.

    Raises:
        InputError: the settings are wrong, or name what the topology has not.
    """
    from acgs2.drivers.aurora import AuroraActor
    from acgs2.drivers.kubernetes import CapacityActor, MeshActor
    from acgs2.drivers.route53.actor import Route53Actor

    cloud = settings if isinstance(settings, Cloud) else cloud_of(settings)
    cloud.check(topology)
    found: list[Actor] = [
        Route53Actor(topology, cloud, partition, agreed, rights) for partition in cloud.hosted_zones
    ]
    clusters = [place.kubernetes for place in cloud.regions.values() if place.kubernetes is not None]
    if clusters:
        found.append(CapacityActor(cloud))
    if any(cluster.mesh for cluster in clusters):
        found.append(MeshActor(topology, cloud, agreed, rights))
    if cloud.databases:
        found.append(AuroraActor(cloud))
    return found
