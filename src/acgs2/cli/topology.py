"""`acgs2 topology lint|show|links|apply`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from acgs2.cli.shared import JSON, console, emit, table

if TYPE_CHECKING:
    from acgs2.residency.lint import Finding
    from acgs2.topology import Topology

app = typer.Typer(no_args_is_help=True)
_FILE = typer.Argument("local", metavar="FILE", help="A topology file, or local, global, guide.")
_GONE = typer.Option([], "--gone", metavar="REGION", help="To be removed, and lost with its data.")


@app.command()
def lint(file: str = _FILE, as_json: bool = JSON) -> None:
    """Find what is unlawful or unwise; each finding with its rule, line and source of law.

    Exit status 1 when there is an error among the findings.
    """
    from datetime import UTC, datetime

    from acgs2.residency import lint as find
    from acgs2.topology import load, locate
    from acgs2.topology.load import line_of, lines_of

    topology = load(file)
    path = locate(file)
    lines = lines_of(path.read_text(encoding="utf-8"))
    findings = [*_constitution(topology, path), *find(topology, datetime.now(UTC))]
    errors = sum(f.severity == "error" for f in findings)
    if as_json:
        emit(
            {
                "file": str(path),
                "errors": errors,
                "findings": [f.as_dict() | {"line": line_of(f.path, lines)} for f in findings],
            }
        )
        raise typer.Exit(1 if errors else 0)
    out = console()
    for finding in findings:
        colour = "red" if finding.severity == "error" else "yellow"
        where = f"{path}:{line_of(finding.path, lines)}"
        out.print(f"{where}: [{colour}]{finding.severity}[/] [bold]{finding.rule}[/]", soft_wrap=True)
        out.print(f"    {finding.message}", soft_wrap=True)
        if finding.law:
            out.print(f"    law:  {finding.law}", soft_wrap=True)
        out.print(f"    hint: {finding.hint}", soft_wrap=True)
    out.print(f"{errors} errors, {len(findings) - errors} warnings")
    raise typer.Exit(1 if errors else 0)


def _constitution(topology: Topology, path: Path) -> list[Finding]:
    """Return a finding if the constitution beside a topology is not the one that it names."""
    from acgs2 import policy
    from acgs2.policy.constitution import builtin
    from acgs2.residency.lint import Finding

    beside = path.parent / topology.constitution.path
    file = beside if beside.is_file() else builtin()
    found = policy.load(file)
    if found.id == topology.constitution.id:
        return []
    return [
        Finding(
            "constitution-mismatch",
            "error",
            ("constitution", "id"),
            f"The topology names the constitution {topology.constitution.id}, and {file} is {found.id}.",
            "A cluster of this topology would not be founded: name the id and path of the one that is meant.",
        )
    ]


@app.command()
def show(file: str = _FILE, as_json: bool = JSON) -> None:
    """Show regions, zones, transfers, and who may hold what."""
    from datetime import UTC, datetime

    from acgs2.model import entities
    from acgs2.model.entity import Residency
    from acgs2.residency import decide, register_of
    from acgs2.topology import load

    topology = load(file)
    if as_json:
        emit(topology.model_dump(mode="json", by_alias=True))
        return
    out = console()
    regions = table(f"Topology {topology.name}", "region", "country", "role", "cloud", "voter")
    for name, region in topology.regions.items():
        regions.add_row(name, region.country, region.role, region.cloud, "yes" if region.voter else "no")
    out.print(regions)
    kinds = [e.name for e in entities().values() if e.residency is Residency.ZONE]
    holders = table("\nWho may hold what now", "zone", "regulation", "region", "basis", "entities")
    register, now = register_of(topology), datetime.now(UTC)
    for name, zone in topology.zones.items():
        decided = {kind: decide(kind, name, register, now) for kind in kinds}
        for region in topology.regions:
            held = [kind for kind in kinds if region in decided[kind].residency]
            if held:
                basis = sorted({decided[kind].basis[region] for kind in held})
                holders.add_row(
                    name,
                    zone.regulation,
                    region,
                    ", ".join(basis),
                    "all" if len(held) == len(kinds) else ", ".join(held),
                )
    out.print(holders)


@app.command()
def links(file: str = _FILE, as_json: bool = JSON) -> None:
    """Show the round trip time of every link and where the figure comes from."""
    from dataclasses import asdict

    from acgs2.topology import load

    found = load(file).links()
    if as_json:
        emit([asdict(link) for link in found])
        return
    shown = table("Links", "a", "b", "rtt ms", "jitter ms", "source")
    for link in found:
        shown.add_row(link.a, link.b, f"{link.rtt_ms:.1f}", f"{link.jitter_ms:.2f}", link.source)
    console().print(shown)


@app.command()
def apply(
    file: str = typer.Argument(..., metavar="FILE", help="The topology as it shall be."),
    gone: list[str] = _GONE,
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be done."),
    as_json: bool = JSON,
) -> None:
    """Change the topology of the running cluster: add and remove regions, change zones, transfers, settings.

    New regions are given what they may hold before they serve. A region that is removed hands over and
    forgets first; one that is lost is named with --gone. Broken off, run it again. Exit status 3: refused.

    Example: acgs2 topology apply with-sweden.yaml --dry-run
    """
    from acgs2.cli.shared import cluster
    from acgs2.local.apply import apply as carry_out
    from acgs2.local.apply import plan

    found, out = cluster(), console()
    if dry_run:
        lines = plan(found, file)[1].lines()
        emit({"changes": lines}) if as_json else out.print("\n".join(lines) or "nothing to change")
        return
    changes = carry_out(found, file, (lambda _: None) if as_json else out.print, gone=gone)
    if as_json:
        emit({"changes": changes.lines(), "regions": list(found.state.topology.regions)})
    else:
        out.print("\n".join(["done:", *changes.lines()]) if changes.lines() else "nothing to change")
