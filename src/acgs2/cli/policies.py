"""`acgs2 policies show|put`: what is in force in a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from acgs2.cli.shared import JSON, call, call_any, cluster, console, emit
from acgs2.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Show and replace the policies in force.")
_TENANT = typer.Option("", "--tenant", help="A tenant's own policies; the platform's if not given.")
_REGION = typer.Option("", "--region", help="The region to ask; for a tenant, one that may hold its zone.")
_FILE = typer.Argument(metavar="FILE", help="Policies in Cedar, as a whole.")
_GROUPS = typer.Option(None, "--groups", help="The tenant's groups of approvers (YAML).")
_ZONE = typer.Option("", "--zone", help="The tenant's zone.")


def _get(tenant: str, region: str) -> dict[str, Any]:
    return call_any(cluster(), region, "GET", f"/api/v1/policies/{tenant or 'platform'}")


@app.command()
def show(tenant: str = _TENANT, region: str = _REGION, as_json: bool = JSON) -> None:
    """Print the policies in force, in Cedar."""
    found = _get(tenant, region)
    emit(found) if as_json else print(found["policies"], end="")


@app.command()
def put(
    file: Path = _FILE,
    tenant: str = _TENANT,
    region: str = _REGION,
    zone: str = _ZONE,
    groups: Path | None = _GROUPS,
    as_json: bool = JSON,
) -> None:
    """Put policies in force in place of those that are; refused with the line if one is wrong.

    Try them first: `acgs2 policy test` and `acgs2 policy diff`.
    """
    import yaml

    found = cluster()
    try:
        body: dict[str, Any] = {"policies": file.read_text(encoding="utf-8")}
        if groups is not None:
            body["groups"] = yaml.safe_load(groups.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError("file-unreadable", f"{why}.", hint="Give Cedar, and groups in YAML.") from error
    if not tenant:
        done = call_any(
            found,
            region,
            "PUT",
            "/api/v1/policies/platform",
            body={**body, "wait": True},
            headers={"if-match": "*"},
        )
        said = f"version {done['version']} of the platform's policies is in force"
    else:
        if not region or not zone:
            raise InputError(
                "zone-missing", "A tenant's policies need --region and --zone.", hint="Name both."
            )
        path = f"/api/v1/policies/{tenant}"
        there = call(found, region, "GET", "/api/v1/policies", params={"tenant": tenant})["items"]
        headers = {"if-match": "*"} if there else {}
        done = call(found, region, "PUT", path, zone=zone, body=body, headers=headers)
        said = (
            f"version {done['policy_version']} of the tenant's policies is in force here, and soon elsewhere"
        )
    emit(done) if as_json else console().print(said, soft_wrap=True)
