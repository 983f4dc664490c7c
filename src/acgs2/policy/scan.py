"""A first look at Cedar text: where each policy stands, and whether Cedar can read it without harm.

Cedar's parser recurses as deep as the text does and ends the process where its stack ends, so what could get
there is refused before Cedar sees it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from acgs2.errors import PolicyError

__all__ = ["MOST_CHARACTERS", "Piece", "refused", "scan"]

#: All policies of one owner together.
MOST_CHARACTERS = 200_000
_MOST_POLICIES = 2_000
_DEEPEST = 40
#: What one policy has of operators and brackets; measured: Cedar reads ten times as many.
_MOST_STEPS = 600

_TOKEN = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|\s+|&&|\|\||::|[A-Za-z_]\w*|[0-9]+|.', re.DOTALL | re.ASCII)
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")
_STEPS = frozenset({"&&", "||", "::", "+", "-", "*", ".", "!", "if", "else", *"([{"})


class Piece(NamedTuple):
    """The text of one policy, and the line, from 1, on which it begins."""

    text: str
    line: int


def refused(
    source: str, line: int, problem: str, hint: str, reference: str = "policy-invalid"
) -> PolicyError:
    """Return the error that names a line of the policies."""
    return PolicyError(reference, f"{source}:{line}: {problem}.", hint=hint, file=source, line=line)


def scan(text: str, source: str) -> tuple[Piece, ...]:
    """Return the policies of a text, in order.

    Raises:
        PolicyError: there is too much of it, or something is not closed.
    """
    if len(text) > MOST_CHARACTERS:
        raise refused(source, 1, f"more than {MOST_CHARACTERS} characters", "Say it in fewer policies.")
    found: list[Piece] = []
    begun: int | None = None
    line = first = 1
    depth = steps = 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        blank = token.isspace() or token.startswith("//")
        if not blank and begun is None:
            begun, first, steps = match.start(), line, 0
        line += token.count("\n")
        if token == '"':
            raise refused(source, line, "text that is not closed", 'Close it with ".')
        if token in _STEPS:
            steps += 1
        depth += (token in _OPEN) - (token in _CLOSE)
        if depth > _DEEPEST or steps > _MOST_STEPS:
            raise refused(
                source, line, "a policy that is too deep or too long", "Make several policies of it."
            )
        if token == ";" and begun is not None:
            found.append(Piece(text[begun : match.end()], first))
            begun, depth = None, 0
    if begun is not None:
        found.append(Piece(text[begun:], first))
    if len(found) > _MOST_POLICIES:
        raise refused(
            source, found[_MOST_POLICIES].line, f"more than {_MOST_POLICIES} policies", "Say it in fewer."
        )
    return tuple(found)
