"""Capacity and mesh of a region's Kubernetes cluster, by kr8s, which the extra `acgs2[kubernetes]` brings."""

from acgs2.drivers.kubernetes.capacity import CapacityActor
from acgs2.drivers.kubernetes.mesh import MeshActor

__all__ = ["CapacityActor", "MeshActor"]
