"""`acgs2 token`."""

from __future__ import annotations

import time

import typer

from acgs2.cli.shared import JSON, cluster, emit
from acgs2.errors import InputError

app = typer.Typer()


@app.command()
def token(
    subject: str = typer.Argument("operator@cli", help="Who it is for."),
    role: str = typer.Option("operator", "--role", help="operator, service, agent, approver or auditor."),
    tenant: str = typer.Option("", "--tenant", help="The tenant whose records the bearer may see."),
    lifetime_s: int = typer.Option(900, "--lifetime", min=1, max=86400, help="Seconds for which it is good."),
    as_json: bool = JSON,
) -> None:
    """Make a short-lived token for the API of a local cluster.

    Example: curl -H "Authorization: Bearer $(acgs2 token)" URL/api/v1/tenants
    """
    from acgs2.api.tokens import ROLES, mint

    if role not in ROLES or (role == "agent" and not tenant):
        raise InputError(
            "role-invalid", f"{role} is not a role, or needs --tenant.", hint=f"Roles: {', '.join(ROLES)}."
        )
    found = cluster()
    made = mint(
        found.state.path / "secrets" / "signing.json",
        subject,
        role,
        found.state.topology.name,
        int(time.time()),
        tenant=tenant or None,
        lifetime_s=lifetime_s,
    )
    emit({"token": made, "expires_in_s": lifetime_s}) if as_json else print(made)
