"""What a look at a policy tells: which metadata it asks for, and what it asks that nobody could answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from cedarpy import pst

__all__ = ["keys_asked", "problem_of"]

_TAGS = ("get_tag", "has_tag")


def keys_asked(policy: pst.Template) -> frozenset[str]:
    """Return the keys of the message's metadata that a policy asks for."""
    return frozenset(
        node.right.value
        for node in _nodes(policy)
        if isinstance(node, pst.BinaryOp) and node.op in _TAGS and isinstance(node.right, pst.StringLit)
    )


def problem_of(policy: pst.Template) -> tuple[str, str] | None:
    """Return what is wrong with a policy though it fits the schema, and what would be right."""
    for node in _nodes(policy):
        if isinstance(node, pst.BinaryOp) and node.op in _TAGS and not isinstance(node.right, pst.StringLit):
            return "a key of metadata that is worked out", 'Write the key as text: hasTag("purpose").'
        base = node.left if isinstance(node, pst.BinaryOp) and node.op == "in" else None
        if isinstance(node, pst.GetAttr | pst.HasAttr):
            base = node.base
        if isinstance(base, pst.EntityLit):
            return (
                f"it asks about {base.value}, of which nothing is known",
                "Only sender, receiver and message are known: compare with it, such as `principal == ...`.",
            )
    return None


def _nodes(root: Any) -> Iterator[Any]:
    left = [root]
    while left:
        node = left.pop()
        if isinstance(node, tuple):
            left.extend(node)
        elif isinstance(node, dict):
            left.extend(node.values())
        elif is_dataclass(node):
            yield node
            left.extend(getattr(node, field.name) for field in fields(node))
