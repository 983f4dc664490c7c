"""What a judge says: allow, hold for people, or deny; and why."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Any

import msgspec

__all__ = ["BundleVersion", "Decision", "Factor", "Hold", "Verdict"]


class Decision(StrEnum):
    """What happens to a message; of two decisions on one message the later in this order stands."""

    ALLOW = "allow"
    DELIBERATE = "deliberate"
    DENY = "deny"


class Factor(msgspec.Struct, frozen=True):
    """One feature that makes a message weigh more, by how many thousandths, and what was seen."""

    name: str
    share: int
    why: str


class Hold(msgspec.Struct, frozen=True):
    """A group whose approval is needed: so many of these members.

    Members are names as `api.tokens.Principal.name` has them: those of a tenant's group belong to the tenant.
    """

    group: str
    approvals: int
    members: tuple[str, ...]


class BundleVersion(msgspec.Struct, frozen=True):
    """Which policies were asked: `platform` or a tenant's id."""

    owner: str
    version: int
    digest: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A decision with everything that explains it. `impact` is in thousandths.

    `policies` are the ids of those that decided, a tenant's as `<tenant>/<id>`. Every hold must be satisfied.
    """

    decision: Decision
    policies: tuple[str, ...]
    reasons: tuple[str, ...]
    impact: int
    factors: tuple[Factor, ...]
    holds: tuple[Hold, ...] = ()
    deadline_s: int = 0
    constitution_version: int
    constitution_digest: str
    policies_version: tuple[BundleVersion, ...]

    @property
    def group(self) -> str | None:
        """Return the groups that must approve, in words; None where nobody must."""
        return " and ".join(hold.group for hold in self.holds) or None

    @property
    def approvals(self) -> int:
        """Return how many approvals it takes at least."""
        return max((hold.approvals for hold in self.holds), default=0)

    @cached_property
    def encoded_basis(self) -> bytes:
        """Return `basis` as JSON with its keys in order; made once for all messages that share a verdict."""
        return msgspec.json.encode(self.basis(), order="sorted")

    def basis(self) -> dict[str, Any]:
        """Return what is stored beside the decision, as plain values without floats."""
        made: dict[str, Any] = {
            "policies": list(self.policies),
            "reasons": list(self.reasons),
            "factors": [msgspec.to_builtins(factor) for factor in self.factors],
            "constitution": {"version": self.constitution_version, "digest": self.constitution_digest},
            "policies_version": {
                each.owner: {"version": each.version, "digest": each.digest} for each in self.policies_version
            },
        }
        if self.holds:
            made["group"] = self.group
            made["approvals"] = self.approvals
            made["deadline_s"] = self.deadline_s
            made["holds"] = [msgspec.to_builtins(hold) for hold in self.holds]
        return made
