"""Who acts on the world outside in a plan: a server knows no cloud, and is given who does by a file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from acgs2.errors import InputError
from acgs2.plan import Agreed, Plan, Rights, Step, StepKind
from acgs2.topology import Topology

__all__ = ["Actor", "actors_for"]

_DRIVERS = "acgs2.drivers.actors"


class Actor(Protocol):
    """Carries out steps of some kinds.

    An act looks first and changes only what differs, so whoever leads next may repeat it.
    """

    @property
    def kinds(self) -> Collection[StepKind]:
        """The steps that it has a part in; every other is none of its business."""
        ...

    def act(self, step: Step, plan: Plan, *, dry_run: bool) -> list[str]:
        """Do a step, which may take minutes, or only say what would be done: a line for every call.

        Raises:
            UnavailableError: not now; to be tried again.
            AcgsError: not at all, until somebody has done something about it; the plan stops.
        """
        ...


def actors_for(
    cloud: Path | None, topology: Topology, agreed: Callable[[], Agreed], rights: Callable[[], Rights]
) -> Sequence[Actor]:
    """Return who acts for a topology by a cloud.yaml; nobody where there is none.

    Raises:
        InputError: the file is wrong, or what acts is not installed (`cloud-not-installed`).
    """
    if cloud is None:
        return ()
    try:
        drivers = importlib.import_module(_DRIVERS)
        return drivers.actors_in(topology, str(cloud), agreed=agreed, rights=rights)  # type: ignore[no-any-return]
    except ImportError as error:
        raise InputError(
            "cloud-not-installed",
            f"What acts in the cloud is not installed: {error}.",
            hint="pip install 'acgs2[aws,kubernetes]'",
        ) from error
