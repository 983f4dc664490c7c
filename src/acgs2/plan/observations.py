"""What regions see of each other, and what a majority of them makes of it. Pure.

One region that cannot reach another may be the one that is cut off: only what a majority of all voters saw
for itself, each several times in a row, is acted upon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from acgs2.topology import Failover

__all__ = ["Judged", "Observation", "fold", "judge"]

#: What was seen so many intervals ago says nothing about now.
_FRESH = 3


class Observation(msgspec.Struct, frozen=True):
    """What one region saw of another: so many answers in a row that were good, or that were not.

    `problem` says what was wrong with the last one; `age_s` is how long ago that was.
    """

    observer: str
    subject: str
    failures: int = 0
    successes: int = 0
    problem: str = ""
    age_s: float = 0.0


class Judged(msgspec.Struct, frozen=True):
    """What is held of a region: `unsure` where no majority saw the same."""

    region: str
    state: Literal["up", "down", "unsure"]
    down_by: tuple[str, ...] = ()
    up_by: tuple[str, ...] = ()
    why: str = ""


def fold(previous: Observation, problem: str | None) -> Observation:
    """Return what is seen after one more look; `problem` is None where it was good."""
    if problem is None:
        return Observation(previous.observer, previous.subject, 0, previous.successes + 1)
    return Observation(previous.observer, previous.subject, previous.failures + 1, 0, problem)


def judge(
    voters: Sequence[str], regions: Iterable[str], observations: Iterable[Observation], settings: Failover
) -> Mapping[str, Judged]:
    """Return what a majority holds of every region.

    Args:
        voters: who counts; a majority is more than half of all of them, heard of or not.
        regions: who is judged.
        observations: what is known, at most one for each observer and subject.
        settings: how many answers in a row make a region down or up.
    """
    fresh = [o for o in observations if o.observer in voters and o.age_s <= _FRESH * settings.interval_s]
    majority = len(voters) // 2 + 1
    found: dict[str, Judged] = {}
    for region in regions:
        of_it = sorted((o for o in fresh if o.subject == region), key=lambda o: o.observer)
        down = tuple(o.observer for o in of_it if o.failures >= settings.failures)
        up = tuple(o.observer for o in of_it if o.successes >= settings.successes)
        problems = sorted({o.problem for o in of_it if o.observer in down})
        if len(down) >= majority:
            what = f"{settings.failures} failures in a row: {'; '.join(problems)}"
            why = f"{len(down)} of {len(voters)} voters saw {what}"
            found[region] = Judged(region, "down", down, up, why)
        elif len(up) >= majority:
            why = f"{len(up)} of {len(voters)} voters saw {settings.successes} good answers in a row"
            found[region] = Judged(region, "up", down, up, why)
        elif down:
            who = f"only {', '.join(down)} saw it fail ({'; '.join(problems)})"
            why = f"{who}, which is no majority of {len(voters)}"
            found[region] = Judged(region, "unsure", down, up, why)
        else:
            found[region] = Judged(region, "unsure", down, up, "too little was seen yet")
    return found
