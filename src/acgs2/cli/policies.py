"""`acgs2 policies show|put`: what is in force in a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from acgs2.cli.shared import JSON, any_region, call, call_any, cluster, console, emit, seen
from acgs2.errors import AcgsError, InputError, RefusedError

app = typer.Typer(no_args_is_help=True, help="Show and replace the policies in force.")
_TENANT = typer.Option("", "--tenant", help="A tenant's own policies; the platform's if not given.")
_REGION = typer.Option("", "--region", help="The region to ask; for a tenant, one that may hold its zone.")
_FILE = typer.Argument(metavar="FILE", help="Policies in Cedar, as a whole.")
_GROUPS = typer.Option(None, "--groups", help="The tenant's groups of approvers (YAML).")
_VERSION = typer.Option("", "--version", help="The version that is replaced, as `policies show` said it.")
_FORCE = typer.Option(False, "--force", help="Replace whatever is in force, seen or not.")
#: What to do where the version is not named, or is not the one in force any more.
_HINTS = {
    "if-match-missing": "`{show}` says which version is in force: name it with --version.",
    "version-mismatch": "Nothing was changed. Look at what is in force now with `{show}`, bring your change "
    "into that, and put it with its version; --force overwrites what the other did.",
}
_ZONE = typer.Option("", "--zone", help="The tenant's zone.")


@app.command()
def show(tenant: str = _TENANT, region: str = _REGION, as_json: bool = JSON) -> None:
    """Print the policies in force, in Cedar, and to standard error the version that they are."""
    of, path = cluster(), f"/api/v1/policies/{tenant or 'platform'}"
    found, version = any_region(of, region, lambda each: seen(of, each, path))
    if as_json:
        emit({**found, "etag": version})
        return
    print(found["policies"], end="", flush=True)
    print(f"version {version}: replace it with `acgs2 policies put --version {version}`", file=sys.stderr)


@app.command()
def put(
    file: Path = _FILE,
    tenant: str = _TENANT,
    region: str = _REGION,
    zone: str = _ZONE,
    groups: Path | None = _GROUPS,
    version: str = _VERSION,
    force: bool = _FORCE,
    as_json: bool = JSON,
) -> None:
    """Put policies in force in place of those that you saw; refused with the line if one is wrong.

    `acgs2 policies show` says the version that is in force. If another is by now, nothing changes. Try yours
    first: `acgs2 policy test` and `acgs2 policy diff`.
    """
    import yaml

    if version and force:
        raise InputError(
            "option-invalid", "--version and --force exclude each other.", hint="Name the version."
        )
    try:
        body: dict[str, Any] = {"policies": file.read_text(encoding="utf-8")}
        if groups is not None:
            body["groups"] = yaml.safe_load(groups.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError("file-unreadable", f"{why}.", hint="Give Cedar, and groups in YAML.") from error
    match = "*" if force else f'"{version}"' if version else ""
    try:
        done, said = _put(body, tenant, region, zone, match)
    except AcgsError as error:
        if error.reference not in _HINTS:
            raise
        shown = f"acgs2 policies show{f' --tenant {tenant}' if tenant else ''}"
        hint = _HINTS[error.reference].format(show=shown)
        raise RefusedError(error.reference, error.message, hint=hint) from error
    emit(done) if as_json else console().print(said, soft_wrap=True)


def _put(body: dict[str, Any], tenant: str, region: str, zone: str, match: str) -> tuple[dict[str, Any], str]:
    of = cluster()
    headers = {"if-match": match} if match else {}
    if not tenant:
        body = {**body, "wait": True}
        done = call_any(of, region, "PUT", "/api/v1/policies/platform", body=body, headers=headers)
        return done, f"version {done['version']} of the platform's policies is in force"
    if not region or not zone:
        raise InputError("zone-missing", "A tenant's policies need --region and --zone.", hint="Name both.")
    if match == "*" and not call(of, region, "GET", "/api/v1/policies", params={"tenant": tenant})["items"]:
        headers = {}  # there is nothing yet that could be overwritten
    done = call(of, region, "PUT", f"/api/v1/policies/{tenant}", zone=zone, body=body, headers=headers)
    number = done["policy_version"]
    return done, f"version {number} of the tenant's policies is in force here, and soon elsewhere"
