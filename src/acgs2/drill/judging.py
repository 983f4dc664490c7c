"""Judges a drill from its history and from all that regions hold once they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from acgs2.drill.canary import canaries_of, sent_astray, sweep
from acgs2.drill.checks import judge
from acgs2.drill.leaders import Claim, two_leaders
from acgs2.drill.older import read_newer
from acgs2.drill.report import Report
from acgs2.drill.settle import calm
from acgs2.drill.states import read_final
from acgs2.drill.world import World, wait_until
from acgs2.plan import Rights

__all__ = ["apart", "judge_run"]

_AGREE_S = 60.0
#: In which list of a report the findings of a check are; those of all others are promises that were broken.
_LISTS = {
    "created": "lost",
    "durable": "lost",
    "appended": "lost",
    "sets": "lost",
    "delivered": "undelivered",
    "shown-once": "duplicates",
    "residency": "misplaced",
}


def judge_run(report: Report, world: World, run: str, claims: Sequence[Claim], rights: Rights) -> None:
    """Wait until regions agree, read all that they hold, and note in the report what was not kept.

    Args:
        report: of the drill; its lists are added to.
        world: the cluster, and the history of the drill.
        run: what every text of the drill begins with.
        claims: when regions said that they lead.
        rights: which regions may hold what.
    """
    history, topology, since = world.history, world.state.topology, world.since
    began_s = history.now_s()
    if wait_until(lambda: calm(world), _AGREE_S, every_s=0.5):
        report.converged_s = round(history.now_s() - began_s, 2)
    with world.databases() as found:
        held = read_newer(topology, found, since) if since is not None else None
        final = read_final(topology, found, run=run, held=held)
        astray = sent_astray(found, datetime.fromisoformat(report.began_at))
    canaries = canaries_of(history.operations, rights)
    swept = sweep(world.state, final.traces, canaries, run, since=since)
    for broken in judge(history, final):
        if broken.check in _LISTS:
            getattr(report, _LISTS[broken.check]).append(broken.what)
        else:
            report.broken.append(f"{broken.check}: {broken.what}")
    report.misplaced = sorted({*report.misplaced, *swept.misplaced, *astray})
    report.broken += [f"leaders: {what}" for what in two_leaders(claims)]
    told = {region: world.health(region).get("governance", {}) for region in world.regions}
    report.broken += apart(told)
    report.canaries, report.canaries_found = len(canaries), len(swept.found)
    report.swept_bytes = swept.swept_bytes


def apart(told: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return which regions go by something else than the newest that any goes by. Pure.

    Args:
        told: region to what it says of governance; nothing, where it does not answer.
    """
    known = {region: said.get("versions") for region, said in told.items()}
    newest = max((each for each in known.values() if each), key=lambda each: sum(each.values()), default={})
    found = [
        f"governance: {region} goes by {versions}, others by {newest}"
        for region, versions in known.items()
        if versions != newest
    ]
    contents: dict[int, dict[str, list[str]]] = {}
    for region, said in told.items():
        if (constitution := said.get("constitution")) is not None:
            regions = contents.setdefault(constitution["version"], {})
            regions.setdefault(constitution["digest"], []).append(region)
    for version, digests in sorted(contents.items()):
        if len(digests) > 1:
            who = "; ".join(f"{', '.join(regions)}: {digest}" for digest, regions in sorted(digests.items()))
            found.append(f"governance: version {version} of the constitution is not one: {who}")
    return found
