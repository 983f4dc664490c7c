"""Consent and its withdrawal, written anywhere, in any order: a withdrawal wins over what it did not know.

The state is a disable-wins flag: each grant says which withdrawals it knew; consent is given while some grant
knew all of them. `acgs.consent_given` is the same in SQL; a property test holds both equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from acgs2.model.clock import Vector, join

__all__ = ["Consent"]


@dataclass(frozen=True, slots=True)
class Consent:
    """One person's consent to one region. `withdrawals` counts by origin; `grants` by origin what it knew."""

    withdrawals: Vector = field(default_factory=dict)
    grants: Mapping[str, Vector] = field(default_factory=dict)

    @property
    def given(self) -> bool:
        """Return whether consent is given now (GDPR art. 7(3): withdrawing is as easy as giving)."""
        return any(
            all(known.get(origin, 0) >= count for origin, count in self.withdrawals.items())
            for known in self.grants.values()
        )

    def grant(self, origin: str) -> Consent:
        """Return the state after consent was given at an origin that knows this one."""
        return Consent(self.withdrawals, {**self.grants, origin: dict(self.withdrawals)})

    def withdraw(self, origin: str) -> Consent:
        """Return the state after consent was withdrawn, given or not: it wins over grants yet unknown."""
        return Consent({**self.withdrawals, origin: self.withdrawals.get(origin, 0) + 1}, self.grants)

    def merge(self, other: Consent) -> Consent:
        """Return the join of two states; an origin's later grant knew all that its earlier one knew."""
        grants = {
            origin: join(self.grants.get(origin, {}), other.grants.get(origin, {}))
            for origin in {*self.grants, *other.grants}
        }
        return Consent(join(self.withdrawals, other.withdrawals), grants)
