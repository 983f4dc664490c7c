"""Random rights, health and weights over a topology's regions."""

from __future__ import annotations

from hypothesis import strategies as st

from acgs2.model import entities
from acgs2.model.entity import Residency
from acgs2.plan import Rights
from acgs2.topology import Topology

__all__ = ["health", "rights", "weights"]


def rights(topology: Topology) -> st.SearchStrategy[Rights]:
    """Zones of a topology with whoever may hold them, the same for all entities or not."""
    kinds = [e.name for e in entities().values() if e.residency is Residency.ZONE]
    some = st.frozensets(st.sampled_from(topology.stacks()))
    alike = st.fixed_dictionaries(dict.fromkeys(topology.zones, some)).map(
        lambda of: Rights({(zone, kind): regions for zone, regions in of.items() for kind in kinds})
    )
    mixed = st.fixed_dictionaries({(zone, kind): some for zone in topology.zones for kind in kinds}).map(
        Rights
    )
    return st.one_of(alike, mixed)


def health(topology: Topology) -> st.SearchStrategy[dict[str, bool]]:
    """Some regions, well or not."""
    return st.dictionaries(st.sampled_from(topology.stacks()), st.booleans())


def weights(topology: Topology) -> st.SearchStrategy[dict[str, int]]:
    """Some regions with what they take, often the figures of a failback."""
    percent = st.one_of(st.sampled_from([0, 10, 25, 50, 75, 100]), st.integers(0, 100))
    return st.dictionaries(st.sampled_from(topology.stacks()), percent)
