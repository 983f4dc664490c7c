"""What shall be done, decided over plain values: where traffic goes."""

from acgs2.plan.rights import Rights, known_in, rights_of
from acgs2.plan.traffic import Kind, Routing, Target, kind_of, route

__all__ = ["Kind", "Rights", "Routing", "Target", "kind_of", "known_in", "rights_of", "route"]
