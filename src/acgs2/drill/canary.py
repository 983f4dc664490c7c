"""Texts that were written on purpose, and where else they are: every byte a region keeps is looked through.

Tables are read by SQL, which finds what is compressed too. Files are read as they lie on the disk: the log
that is written ahead, spilled changes, dead tuples, statistics; and what processes logged.
"""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from acgs2.drill.history import Operation
from acgs2.drill.plan import TOKEN
from acgs2.drill.states import Traces
from acgs2.local.state import State
from acgs2.plan import Rights

__all__ = ["Canary", "Sweep", "canaries_of", "sent_astray", "sweep"]

#: A region that is sent what it may not hold drops it, and says so.
_ASTRAY = b"""
    SELECT source, entity, zone, count(*) FROM acgs.incident
    WHERE kind = 'put-refused' AND at >= %s GROUP BY source, entity, zone ORDER BY 1, 2, 3"""


@dataclass(frozen=True, slots=True)
class Canary:
    """A text of a record: its name, what it is part of, and the regions that may hold it."""

    name: str
    zone: str
    entity: str
    may: frozenset[str]


@dataclass
class Sweep:
    """What was found.

    Args:
        misplaced: where a text is that may not be there: region, table or file, and the text.
        found: names that some region that may hold them does hold; the search sees what there is.
        swept_bytes: how much of files was looked through.
    """

    misplaced: list[str] = field(default_factory=list)
    found: set[str] = field(default_factory=set)
    swept_bytes: int = 0


def canaries_of(operations: Iterable[Operation], rights: Rights) -> Mapping[str, Canary]:
    """Return every text that operations of a history wrote, or may have, by name."""
    found: dict[str, Canary] = {}
    for op in operations:
        for text in op.sent.values():
            for name in re.findall(TOKEN, str(text)):
                may = rights.holders.get((op.zone, op.entity), frozenset())
                found[name] = Canary(name, op.zone, op.entity, may)
    return found


def sweep(
    state: State,
    traces: Mapping[str, Traces],
    canaries: Mapping[str, Canary],
    run: str,
    since: datetime | None = None,
) -> Sweep:
    """Look for a run's texts in everything that every region keeps, and in what belongs to no region.

    Args:
        state: of the cluster.
        traces: what is in the tables of every region.
        canaries: what is looked for.
        run: what the names of all of them begin with.
        since: before the first of them was made; files that were not written since then have none of them.
    """
    made = Sweep()
    since_s = since.timestamp() if since is not None else 0.0
    token = re.compile(f"~({re.escape(run)}[a-z0-9_./-]*)".encode())
    for region, texts in traces.items():
        for name, tables in texts.items():
            canary = canaries.get(name)
            if canary is None:
                continue  # of another run
            if region in canary.may:
                made.found.add(name)
            else:
                made.misplaced += [f"{region}: {name} in table {table}" for table in tables]
        for path in _written(_files(state, region), since_s):
            made.swept_bytes += path.stat().st_size
            for name in _names_in(path, token):
                meant = _meant(canaries, name)
                if meant and not any(region in canary.may for canary in meant):
                    made.misplaced.append(f"{region}: {name} in {path.relative_to(state.path)}")
    for path in _written(_nobodys(state, traces), since_s):
        made.swept_bytes += path.stat().st_size
        made.misplaced += [f"{name} in {path.relative_to(state.path)}" for name in _names_in(path, token)]
    return made


def sent_astray(databases: Mapping[str, psycopg.Connection[Any]], since: datetime) -> list[str]:
    """Return what regions were sent since a moment and may not hold: they kept none of it, but it left."""
    return [
        f"{region}: {entity} of {zone} was sent to it by {source}, {count} times, and refused"
        for region, conn in databases.items()
        for source, entity, zone, count in conn.execute(_ASTRAY, (since,)).fetchall()
    ]


def _meant(canaries: Mapping[str, Canary], name: str) -> list[Canary]:
    """Return which texts a piece of one may be of: in a file it may be cut off, or run on."""
    if name in canaries:
        return [canaries[name]]
    found = [canary for known, canary in canaries.items() if known.startswith(name)]
    if found or "." not in name:
        return found
    whole = name[: name.rindex(".") + 1] if not name.endswith(".") else name[: name[:-1].rindex(".") + 1]
    return [canary for known, canary in canaries.items() if known.startswith(whole)]


def _files(state: State, region: str) -> Iterable[Path]:
    yield from (path for path in sorted(state.region_path(region).rglob("*")) if path.is_file())
    yield from sorted(state.logs.glob(f"{region}.*"))


def _written(paths: Iterable[Path], since_s: float) -> Iterable[Path]:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # gone since: nothing is in it
            if path.stat().st_mtime >= since_s:
                yield path


def _nobodys(state: State, regions: Iterable[str]) -> Iterable[Path]:
    ours = tuple(f"{region}." for region in regions)
    return [path for path in sorted(state.logs.iterdir()) if not path.name.startswith(ours)]


def _names_in(path: Path, token: re.Pattern[bytes]) -> set[str]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return {match.decode() for match in token.findall(data)}
    except (ValueError, FileNotFoundError):
        return set()  # empty, or gone since: nothing is in it
