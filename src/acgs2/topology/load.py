"""Reads topology.yaml; every error names the line, the path, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path

import yaml
from pydantic import ValidationError

from acgs2.errors import InputError, TopologyError
from acgs2.model import entities
from acgs2.topology.models import Section, Topology

__all__ = ["builtin", "explained", "line_of", "lines_of", "load", "locate", "parse"]

_BUILTIN = ("local", "global", "guide")
_HINT = "{where}: see topologies/topology.schema.json for what may stand there."


def builtin(name: str) -> Path:
    """Return the path of a topology that comes with the project: local, global or guide.

    Raises:
        TopologyError: there is none of that name (`topology-unknown`).
    """
    packaged = Path(str(resources.files("acgs2"))) / "topologies"
    checkout = Path(__file__).resolve().parents[3] / "topologies"
    for folder in (packaged, checkout):
        path = folder / f"{name}.yaml"
        if name in _BUILTIN and path.is_file():
            return path
    raise TopologyError(
        "topology-unknown",
        f"There is no topology called {name}.",
        hint=f"Name a file, or one of {', '.join(_BUILTIN)}.",
    )


def locate(path: str | Path) -> Path:
    """Return the file that a path or the name of a built-in topology stands for; a name comes first."""
    return builtin(str(path)) if str(path) in _BUILTIN else Path(path)


def load(path: str | Path) -> Topology:
    """Read a topology file, or a built-in one by its name.

    Raises:
        TopologyError: it cannot be read, is not YAML, or is not a topology.
    """
    file = locate(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(
            "topology-unreadable",
            f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.",
            hint="Give the path of a topology.yaml; `acgs2 topology show` prints the built-in one.",
            file=str(file),
        ) from error
    return parse(text, str(file))


def parse(text: str, source: str = "topology.yaml") -> Topology:
    """Read a topology from text.

    Raises:
        TopologyError: the text is not YAML or not a topology; `context` has file, line and path.
    """
    try:
        raw = yaml.safe_load(text)
        lines = lines_of(text)
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        RecursionError,
    ) as error:  # dates and keys can be wrong as well
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise TopologyError(
            "topology-invalid",
            f"{source}:{line}: not YAML: {problem}.",
            hint="Check indentation, brackets and quotes near that line.",
            file=source,
            line=line,
        ) from error
    try:
        topology = Topology.model_validate(raw)
    except ValidationError as error:
        raise explained(
            error, source, lines, _known_keys(), TopologyError, "topology-invalid", _HINT
        ) from error
    _check_names(topology, source, lines)
    return topology


def lines_of(text: str) -> Mapping[tuple[str | int, ...], int]:
    """Return the line, from 1, of every path of a YAML document."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return dict(_walk(root, (), ())) if root is not None else {}


def _walk(
    node: yaml.Node, path: tuple[str | int, ...], above: tuple[yaml.Node, ...]
) -> Iterator[tuple[tuple[str | int, ...], int]]:
    yield path, node.start_mark.line + 1
    if any(node is each for each in above):
        return  # an alias to what contains it
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            yield from _walk(value, below, (*above, node))
            yield below, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _walk(value, (*path, number), (*above, node))


def line_of(path: tuple[str | int, ...], lines: Mapping[tuple[str | int, ...], int]) -> int:
    """Return the line of a path, or of the nearest that is in the document."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def explained(
    error: ValidationError,
    source: str,
    lines: Mapping[tuple[str | int, ...], int],
    known: Iterable[str],
    kind: type[InputError],
    reference: str,
    hint: str,
) -> InputError:
    """Return the first thing that is wrong with a document, with its line and what would be right.

    Args:
        error: what the model says.
        source: the document's file.
        lines: the line of every path.
        known: the keys that there are, for those that are misspelt.
        kind: of the error that is made.
        reference: of that error.
        hint: what to do; `{where}` is filled in.
    """
    first = error.errors()[0]
    path = tuple(part for part in first["loc"])
    line, where = line_of(path, lines), ".".join(map(str, path)) or "the document"
    hint = hint.format(where=where)
    if first["type"] == "extra_forbidden":
        message = f"unknown key {path[-1]}"
        near = difflib.get_close_matches(str(path[-1]), sorted(known), n=1)
        if near:
            hint = f"Did you mean {near[0]}?"
    else:
        message = first["msg"].removeprefix("Value error, ")
        message = (message[0].lower() + message[1:]).removesuffix(".")
    more = len(error.errors()) - 1
    return kind(
        reference,
        f"{source}:{line}: {where}: {message}" + (f" (and {more} more)" if more else "") + ".",
        hint=hint,
        file=source,
        line=line,
        path=where,
    )


def _known_keys() -> set[str]:
    return {f.alias or name for model in Section.__subclasses__() for name, f in model.model_fields.items()}


def _check_names(topology: Topology, source: str, lines: Mapping[tuple[str | int, ...], int]) -> None:
    for path, kind, name, known in _references(topology):
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        line, where = line_of(path, lines), ".".join(map(str, path))
        raise TopologyError(
            "topology-invalid",
            f"{source}:{line}: {where}: there is no {kind} {name}.",
            hint=f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}.",
            file=source,
            line=line,
            path=where,
        )


def _references(topology: Topology) -> Iterator[tuple[tuple[str | int, ...], str, str, list[str]]]:
    """Yield each name that must be one of several: where it stands, of what, the name, what there is."""
    regions, zones = [*topology.regions], [*topology.zones]
    for name, zone in topology.zones.items():
        for number, region in enumerate(zone.regions):
            yield ("zones", name, "regions", number), "region", region, regions
        for region in topology.pair_of(name):
            yield ("zones", name, "pair"), "home region", region, [*zone.regions]
    for number, transfer in enumerate(topology.transfers):
        yield ("transfers", number, "zone"), "zone", transfer.zone, zones
        yield ("transfers", number, "to"), "region", transfer.to, regions
        for entity in transfer.entities:
            yield ("transfers", number, "entities"), "entity", entity, [*entities()]
    for number, link in enumerate(topology.links_settings):
        for end in (link.a, link.b):
            yield ("links", number), "region or place", end, [*regions, *topology.places]
    for name, place in topology.places.items():
        if place.zone is not None:
            yield ("places", name, "zone"), "zone", place.zone, zones
