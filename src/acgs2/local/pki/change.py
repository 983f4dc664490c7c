"""Changing the authority without an outage: where a change stands, and what comes next. Pure.

A process reloads its bundle and its certificate when it comes to it, so at any time two peers may see any mix
of the state before a step and the state after it. Each step keeps every such mix able to talk:

1. introduce: the new authority is accepted beside the old one; certificates stay those of the old.
2. reissue: certificates come from the new one, which everybody accepts by now.
3. retire: the old one is accepted no longer; nobody shows its certificates by now.

Whoever takes the steps waits between them until every process has reloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Standing", "Step", "after", "next_step"]


class Step(StrEnum):
    """One step of a change of the authority."""

    INTRODUCE = "introduce"
    REISSUE = "reissue"
    RETIRE = "retire"


@dataclass(frozen=True)
class Standing:
    """Which authorities are accepted, and which of them the certificates in use are from.

    Args:
        trusted: numbers of the accepted authorities, oldest first.
        issuers: numbers of those that issued a certificate in use.
    """

    trusted: tuple[int, ...]
    issuers: frozenset[int]

    @property
    def signer(self) -> int:
        """Return who signs what is needed now: the oldest, until nobody uses its certificates."""
        return self.trusted[-1] if self.issuers == {self.trusted[-1]} else self.trusted[0]

    @property
    def changing(self) -> bool:
        """Return whether a change is under way."""
        return len(self.trusted) > 1


def next_step(standing: Standing) -> Step:
    """Return the step that comes next; the first one when no change is under way."""
    if not standing.changing:
        return Step.INTRODUCE
    return Step.RETIRE if standing.issuers == {standing.trusted[-1]} else Step.REISSUE


def after(standing: Standing, step: Step) -> Standing:
    """Return where the change stands after a step."""
    newest = standing.trusted[-1]
    if step is Step.INTRODUCE:
        return Standing((*standing.trusted, newest + 1), standing.issuers)
    if step is Step.REISSUE:
        return Standing(standing.trusted, frozenset({newest}))
    return Standing((newest,), standing.issuers)
