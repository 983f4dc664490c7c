"""`acgs2 constitution show|check`: of a file."""

from __future__ import annotations

from pathlib import Path

import typer

from acgs2.cli.shared import JSON, console, emit, table

app = typer.Typer(no_args_is_help=True)
_FILE = typer.Argument(None, metavar="FILE", help="A constitution; else the one that comes with the project.")


@app.command()
def check(file: Path = _FILE, as_json: bool = JSON) -> None:
    """Check a constitution and print its digest. Exit status 2: it is none, and in which line."""
    from acgs2.policy import load

    found = load(file)
    facts = {"id": found.id, "version": found.version, "digest": found.digest, "founded": found.founded}
    if as_json:
        emit(facts)
        return
    keys = "" if found.founded else "; some keys of amenders are given when a cluster is founded"
    console().print(f"{found.id} version {found.version}: {found.digest}{keys}", soft_wrap=True)


@app.command()
def show(file: Path = _FILE, as_json: bool = JSON) -> None:
    """Show what a constitution says."""
    import json

    from acgs2.policy import load

    found = load(file)
    if as_json:
        emit(json.loads(found.canonical) | {"digest": found.digest})
        return
    out = console()
    out.print(f"Constitution {found.id}, version {found.version}", style="bold")
    out.print(f"digest {found.digest}\n\n{found.preamble}\n", soft_wrap=True, markup=False)
    rules = table("Rules", "id", "text")
    for id, text in found.rules.items():
        rules.add_row(id, text)
    roles = table("\nRoles", "role", "may", "never beside, in one matter")
    for name, role in found.roles.items():
        roles.add_row(name, ", ".join(role.may), ", ".join(role.excludes))
    groups = table("\nWho approves", "group", "approvals#", "of")
    for name, group in found.groups.items():
        groups.add_row(name, str(group.approvals), ", ".join(group.members))
    amenders = table(f"\nWho amends: {found.amendment.approvals} of", "name", "key")
    for amender in found.amendment.amenders:
        amenders.add_row(amender.name, amender.key)
    features = table("\nWhat adds to the impact", "feature", "weight#", "when")
    for feature in found.impact.features:
        features.add_row(
            feature.name, f"{feature.weight / 1000:g}", feature.when.model_dump_json(exclude_none=True)
        )
    for each in (rules, roles, groups, amenders, features):
        out.print(each)
    deliberation = found.deliberation
    out.print(
        f"\nFrom an impact of {found.thresholds.impact / 1000:g} on a message waits for "
        f"{deliberation.group}, {deliberation.deadline_s} s at most.",
        soft_wrap=True,
    )
