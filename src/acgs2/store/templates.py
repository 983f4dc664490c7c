"""SQL in files: named fragments, templates with `{{name}}`, and the order in which files are run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

__all__ = ["fragments", "read", "render", "scripts"]

_ROOT = resources.files("acgs2.store") / "sql"
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_HOLE = re.compile(r"\{\{(\w+)\}\}")


@cache
def read(path: str) -> str:
    """Return the text of a SQL file below `store/sql`."""
    return (_ROOT / path).read_text(encoding="utf-8")


@cache
def scripts(folder: str) -> tuple[tuple[str, str], ...]:
    """Return (name, text) of every SQL file of a folder, in the order of their names."""
    files = sorted((f for f in (_ROOT / folder).iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return tuple((f.name.removesuffix(".sql"), f.read_text(encoding="utf-8")) for f in files)


@cache
def fragments(path: str) -> Mapping[str, str]:
    """Return the fragments of a file, each introduced by a line `-- name: NAME`."""
    pieces = _NAME.split(read(path))
    return dict(zip(pieces[1::2], (p.strip() for p in pieces[2::2]), strict=True))


def render(template: str, values: Mapping[str, str]) -> str:
    """Fill every `{{name}}` of a template.

    Raises:
        KeyError: the template names something that `values` does not have.
    """
    return _HOLE.sub(lambda hole: values[hole.group(1)], template)
