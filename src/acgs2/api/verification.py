"""What the controller may do: write, read and erase the tenant that verifies a zone, and nothing else.

Its tokens are made with a key of its own, which is good for this role only (see `acgs2.api.tokens`). Whoever
has that key comes past no route that is not named here, and is shown no record but those that verify.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from acgs2.api.tokens import CONTROLLER, Principal
from acgs2.errors import ForbiddenError

__all__ = ["admits", "check_body", "check_operation", "tenant_of"]

#: As the OpenAPI document calls them.
_OPERATIONS = ("create_tenant", "get_tenant", "erase_tenant")


def tenant_of(zone: str) -> dict[str, str]:
    """Return the tenant that a zone is verified with; it says nothing about anybody."""
    return {"name": f"ACGS-2 verifies zone {zone}"}


def check_operation(principal: Principal, operation: str | None) -> None:
    """Refuse the controller whatever is no part of a verification; raises ForbiddenError."""
    if principal.role == CONTROLLER and operation not in _OPERATIONS:
        raise _refused("does nothing but verify zones")


def check_body(principal: Principal, zone: str, body: msgspec.Struct) -> None:
    """Refuse the controller every record but the one that verifies a zone; raises ForbiddenError."""
    if principal.role == CONTROLLER and msgspec.to_builtins(body) != tenant_of(zone):
        raise _refused("writes nothing but what verifies a zone")


def admits(principal: Principal, row: Mapping[str, Any]) -> bool:
    """Return whether a tenant's record may be shown to a principal as far as its role goes, or be erased."""
    return principal.role != CONTROLLER or row["name"] == tenant_of(row["zone"])["name"]


def _refused(why: str) -> ForbiddenError:
    return ForbiddenError(
        "role-not-allowed",
        f"Who acts as {CONTROLLER} {why}.",
        hint="Use an operator's token.",
    )
