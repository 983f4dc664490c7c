"""What shall be done, decided over plain values: where traffic goes."""

from acgs2.plan.rights import Rights, rights_of
from acgs2.plan.traffic import Kind, Routing, Target, kind_of, route

__all__ = ["Kind", "Rights", "Routing", "Target", "kind_of", "rights_of", "route"]
