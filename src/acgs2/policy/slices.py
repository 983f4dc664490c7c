"""Policies sorted by what they are about, so that a message is not judged by those that cannot concern it.

A policy that begins with a plain test such as `principal == Agent::"..."` or `context.message_type == "..."`
can neither hold nor fail where that test does not hold: it is asked only where it does. Everything else is
asked always. To ask costs about as much as forty policies do (measured), so smaller heaps are not made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import cedarpy
from cedarpy import pst

__all__ = ["DIMENSIONS", "Part", "Slices"]

#: What policies are sorted by, the most telling first; always known, so that a test of it never fails.
DIMENSIONS = (
    "principal",
    "resource",
    "context.message_type",
    "principal.name",
    "resource.name",
    "principal.tenant",
    "resource.tenant",
    "context.zone",
)
WORTH = 40


class Part(NamedTuple):
    """Some policies, ready to be asked; `plain` are the same without those that hold for people."""

    whole: cedarpy.PolicySet
    plain: cedarpy.PolicySet


class Slices:
    """Policies in parts; what holds in any part that is asked decides."""

    def __init__(
        self, policies: Mapping[str, pst.Template], holding: frozenset[str], worth: int = WORTH
    ) -> None:
        """Sort policies.

        Args:
            policies: by names of the caller's.
            holding: those that hold for people.
            worth: how many must begin by a test of one thing for a heap to be made of them.
        """
        tests = {name: dict(_tests(policy)) for name, policy in policies.items()}
        common = Counter(dimension for found in tests.values() for dimension in found)
        used = [dimension for dimension in DIMENSIONS if common[dimension] >= worth]
        heaps: dict[tuple[str, str], dict[str, pst.Template]] = {}
        always: dict[str, pst.Template] = {}
        for name, policy in policies.items():
            dimension = next((each for each in used if each in tests[name]), None)
            if dimension is None:
                always[name] = policy
                continue
            for value in tests[name][dimension]:
                heaps.setdefault((dimension, value), {})[name] = policy
        self._holding = holding
        self._always = _part(always, holding)
        self._heaps = heaps
        self._made: dict[tuple[str, str], Part] = {}
        self._used = tuple({dimension: None for dimension, _ in heaps})

    def parts(self, known: Mapping[str, str]) -> Iterator[Part]:
        """Yield what must be asked about a message, of which the value of every dimension is known."""
        yield self._always
        for dimension in self._used:
            key = (dimension, known[dimension])
            if key in self._heaps:
                if key not in self._made:
                    self._made[key] = _part(self._heaps[key], self._holding)
                yield self._made[key]


def _part(policies: Mapping[str, pst.Template], holding: frozenset[str]) -> Part:
    whole = _set(policies)
    plain = {name: policy for name, policy in policies.items() if name not in holding}
    return Part(whole, whole if len(plain) == len(policies) else _set(plain))


def _set(policies: Mapping[str, pst.Template]) -> cedarpy.PolicySet:
    named = {name: replace(policy, id=name) for name, policy in policies.items()}
    return cedarpy.PolicySet.from_pst(pst.PolicySet({}, named, ()))


def _tests(policy: pst.Template) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield what a policy begins by testing: the dimension, and the values with which it can go on."""
    for name, scope in (("principal", policy.principal), ("resource", policy.resource)):
        if isinstance(scope, pst.ScopeEq) and isinstance(scope.entity, pst.EntityUid):
            yield name, frozenset({str(scope.entity)})
        elif isinstance(scope, pst.ScopeIn | pst.ScopeIsIn) and _is_tenant(scope.entity):
            yield f"{name}.tenant", frozenset({str(scope.entity)})
    for clause in policy.clauses:
        if not isinstance(clause, pst.When):
            return
        for conjunct in _conjuncts(clause.expr):
            found = _plain(conjunct)
            if found is None:
                return
            if found[0] in DIMENSIONS:
                yield found


def _is_tenant(entity: pst.EntityOrSlot) -> bool:
    return isinstance(entity, pst.EntityUid) and str(entity.type) == "Tenant"


def _conjuncts(expr: pst.Expr) -> Iterator[pst.Expr]:
    """Yield what is joined by `&&`, in the order in which Cedar looks at it."""
    if isinstance(expr, pst.BinaryOp) and expr.op == "and":
        yield from _conjuncts(expr.left)
        yield from _conjuncts(expr.right)
    else:
        yield expr


def _plain(expr: pst.Expr) -> tuple[str, frozenset[str]] | None:
    """Return the dimension and the values of a test that cannot fail; None for any other expression."""
    if not isinstance(expr, pst.BinaryOp):
        return None
    if expr.op == "or":
        left, right = _plain(expr.left), _plain(expr.right)
        return (left[0], left[1] | right[1]) if left and right and left[0] == right[0] else None
    if expr.op == "eq":
        for a, b in ((expr.left, expr.right), (expr.right, expr.left)):
            dimension, value = _dimension(a), _value(b)
            if dimension and value is not None:
                return dimension, frozenset({value})
    if expr.op == "contains" and isinstance(expr.left, pst.Set):
        dimension, values = _dimension(expr.right), [_value(each) for each in expr.left.elements]
        if dimension and None not in values:
            return dimension, frozenset(value for value in values if value is not None)
    return None


def _dimension(expr: pst.Expr) -> str | None:
    if isinstance(expr, pst.Var):
        name = expr.name
    elif isinstance(expr, pst.GetAttr) and isinstance(expr.base, pst.Var):
        name = f"{expr.base.name}.{expr.attr}"
    else:
        return None
    return name if name in DIMENSIONS else None


def _value(expr: pst.Expr) -> str | None:
    if isinstance(expr, pst.StringLit):
        return expr.value
    return str(expr.value) if isinstance(expr, pst.EntityLit) else None
