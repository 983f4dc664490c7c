"""YAML documents whose errors name the line: what the constitution and test files are read by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from acgs2.errors import InputError
from acgs2.topology.load import explained as topology_explained
from acgs2.topology.load import lines_of

__all__ = ["Lines", "explained", "read"]

#: The line, from 1, of every path of a document.
Lines = Mapping[tuple[str | int, ...], int]
#: What is longer is not read at all.
_MOST_BYTES = 256 * 1024
_HINT = "docs/policies.md says what may stand at {where}."


def read(
    text: str, source: str, kind: type[InputError], reference: str, most_bytes: int = _MOST_BYTES
) -> tuple[Any, Lines]:
    """Return the value of a YAML text, and its lines.

    What reads differently than it looks is refused: keys that are said twice, and aliases.

    Raises:
        InputError: it is not such a document; of the `kind` and with the `reference` that are given.
    """

    def wrong(problem: str, line: int, hint: str) -> InputError:
        return kind(reference, f"{source}:{line}: {problem}.", hint=hint, file=source, line=line)

    if len(text.encode("utf-8", "surrogatepass")) > most_bytes:
        raise wrong(f"longer than {most_bytes} bytes", 1, "Split it, or say it in fewer words.")
    try:
        _plain(text, wrong)
        return yaml.safe_load(text), lines_of(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error) or "nested too deeply"
        raise wrong(
            f"not YAML: {problem}",
            mark.line + 1 if mark else 1,
            "Check indentation, brackets and quotes near that line.",
        ) from error


def _plain(text: str, wrong: Any) -> None:
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise wrong("an alias", event.start_mark.line + 1, "Write it out where it is needed.")
    left = [yaml.compose(text, Loader=yaml.SafeLoader)]
    while left:
        node = left.pop()
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if key.value in seen or key.tag == "tag:yaml.org,2002:merge":
                    raise wrong(f"{key.value} is there twice", key.start_mark.line + 1, "Keep one of them.")
                seen.add(str(key.value))
                left.append(value)
        elif isinstance(node, yaml.SequenceNode):
            left.extend(node.value)


def explained(
    error: ValidationError,
    source: str,
    lines: Lines,
    known: Iterable[str],
    kind: type[InputError],
    reference: str,
) -> InputError:
    """Return the first thing that is wrong as an error of ours; see `topology.load.explained`."""
    return topology_explained(error, source, lines, known, kind, reference, _HINT)
