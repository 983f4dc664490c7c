"""Who acts on the world outside in a plan: named in the configuration, so that a server knows no cloud."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from acgs2.errors import InputError, UnavailableError
from acgs2.plan import Agreed, Plan, Rights, Step, StepKind
from acgs2.plan.may import May, anybody
from acgs2.topology import Topology

__all__ = ["Actor", "acted", "actors_of"]


class Actor(Protocol):
    """Carries out steps of some kinds; every act may be repeated, and changes only what differs."""

    @property
    def kinds(self) -> Collection[StepKind]:
        """Return the steps that it has a part in."""
        ...

    def act(self, step: Step, plan: Plan, *, dry_run: bool, may: May = anybody) -> list[str]:
        """Bring the world to what a step says and return each call that was made, or would be.

        Args:
            step: what to do.
            plan: whose step it is.
            dry_run: only say which calls would be made.
            may: asked before every call.

        Raises:
            RefusedError: it must not be done; the plan stops.
            UnavailableError: it can be tried again.
        """
        ...


async def acted(
    actors: Sequence[Actor],
    plan: Plan,
    step: Step,
    *,
    dry_run: bool,
    leads: Callable[[], bool] = lambda: True,
) -> list[str]:
    """Have everybody who has a part in a step carry it out, one after the other, and return their calls.

    Raises whatever an actor raises. A thread cannot be cancelled: it asks before every call instead whether
    somebody still waits for it, and whether this region still `leads`, by a clock that goes on while a
    process is frozen. A call that was sent before cannot be taken back.
    """
    said: list[str] = []
    over = False

    def may() -> None:
        if over or not leads():
            raise UnavailableError(
                "not-leading",
                f"This region carries {plan.kind} {plan.id} out no more.",
                hint="Whoever leads goes on from what is agreed.",
            )

    try:
        for actor in actors:
            if step.kind in actor.kinds:
                said += await asyncio.to_thread(actor.act, step, plan, dry_run=dry_run, may=may)
    finally:
        over = True
    return said


def actors_of(
    names: Sequence[str],
    topology: Topology,
    settings: Mapping[str, Any],
    agreed: Callable[[], Agreed],
    rights: Callable[[], Rights],
) -> list[Actor]:
    """Return the actors that a configuration names as `module:factory`.

    Args:
        names: of the factories; each is called with all that follows.
        topology: regions, zones and limits.
        settings: what else there is to know.
        agreed: what is agreed on traffic when a step is done.
        rights: who may hold what then.

    Raises:
        InputError: there is no such factory (`actor-unknown`).
    """
    found: list[Actor] = []
    for name in names:
        module, _, factory = name.partition(":")
        try:
            made = getattr(importlib.import_module(module), factory)
        except (ImportError, AttributeError) as error:
            raise InputError(
                "actor-unknown",
                f"There is no {name}: {error}.",
                hint="Name it module:factory; the extra that it needs must be installed.",
            ) from error
        found += made(topology, settings, agreed=agreed, rights=rights)
    return found
