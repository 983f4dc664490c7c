"""Waiting until regions agree, and reading what they hold then."""

from __future__ import annotations

from acgs2.drill.checks import agreement, misheld
from acgs2.drill.older import read_newer
from acgs2.drill.states import read_final
from acgs2.drill.world import World

__all__ = ["calm"]

_PENDING = b"""
    SELECT (SELECT count(*) FROM acgs.due) + (SELECT count(*) FROM acgs.sweep)
        + (SELECT count(*) FROM acgs.provision) + (SELECT count(*) FROM acgs.acquisition)
        + (SELECT count(*) FROM acgs.quarantine)
        + (SELECT count(*) FROM acgs.move WHERE done_at IS NULL)"""


def calm(world: World) -> bool:
    """Return whether regions have nothing left to do, hold the same, and hold what they may and only that."""
    with world.databases() as found:
        if any(conn.execute(_PENDING).fetchone() != (0,) for conn in found.values()):
            return False
        topology = world.state.topology
        held = read_newer(topology, found, world.since) if world.since is not None else None
        final = read_final(topology, found, traced=False, held=held)
    return not any(agreement(final)) and not any(misheld(final))
