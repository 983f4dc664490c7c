"""A constitution's file, as `acgs2 constitution show FILE` shows it."""

from __future__ import annotations

import json
from pathlib import Path

from acgs2.cli.shared import console, emit, table

__all__ = ["show_file"]


def show_file(file: Path, *, as_json: bool) -> None:
    """Print what a constitution's file says."""
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
