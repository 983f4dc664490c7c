"""`acgs2 policy test|explain|diff|check|schema`: all of it offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from acgs2.cli.shared import JSON, console, emit, table
from acgs2.errors import InputError

if TYPE_CHECKING:
    from acgs2.policy import Bundle, Verdict
    from acgs2.policy.cases import Case, Suite

app = typer.Typer(no_args_is_help=True)
_POLICIES = typer.Argument(..., metavar="FILE", help="A file of Cedar policies.")
_OLD = typer.Argument(..., metavar="OLD", help="Cedar policies as they are.")
_NEW = typer.Argument(..., metavar="NEW", help="Cedar policies as they shall be.")
_CASES = typer.Argument(..., metavar="FILE|DIR", help="A file of cases, or every *.test.yaml below.")
_BY_BOTH = typer.Option(None, "--cases", metavar="FILE|DIR", help="Test cases to judge by both.")
_SUITE = typer.Argument(..., metavar="FILE", help="Test cases; what is expected does not matter.")
_METADATA = typer.Option([], "--metadata", metavar="KEY=TEXT", help="Beside the case's.")
_TENANT = typer.Option("", "--tenant", metavar="NAME", help="They are this tenant's; else the platform's.")
_GROUPS = typer.Option(None, "--groups", metavar="FILE", help="The tenant's groups of approvers, in YAML.")
_CONSTITUTION = typer.Option(None, "--constitution", metavar="FILE", help="Else the one that comes with it.")


@app.command("test")
def judge_cases(path: Path = _CASES, as_json: bool = JSON) -> None:
    """Judge the messages of test cases, and show which come out otherwise than expected, and why.

    Exit status 1 when a case fails.

    Example: acgs2 policy test policies/
    """
    from acgs2.policy.cases import found_in

    rows: list[dict[str, Any]] = []
    for file in found_in(path):
        suite = _suite(file)
        for found in suite.run(suite.judge()):
            rows.append(
                {
                    "file": str(file),
                    "line": found.line,
                    "case": found.case.name,
                    "failures": list(found.wrong),
                }
                | _plain(found.verdict)
            )
    failed = [row for row in rows if row["failures"]]
    if as_json:
        emit({"cases": len(rows), "failed": len(failed), "results": rows})
        raise typer.Exit(1 if failed else 0)
    out = console()
    for row in failed:
        out.print(f"{row['file']}:{row['line']}: [red]failed[/] {escape(row['case'])}", soft_wrap=True)
        for line in [*row["failures"], *(f"because: {each}" for each in row["reasons"])]:
            out.print(f"    {escape(line)}", soft_wrap=True)
    out.print(f"{len(rows) - len(failed)} passed, {len(failed)} failed")
    raise typer.Exit(1 if failed else 0)


@app.command()
def explain(
    file: Path = _SUITE,
    case: str = typer.Option("", "--case", metavar="NAME", help="Only this one."),
    message_type: str = typer.Option("", "--message-type", help="Instead of the case's."),
    priority: int = typer.Option(-1, "--priority", min=-1, max=3, help="Instead of the case's."),
    payload: str = typer.Option("", "--payload", metavar="JSON", help="Instead of the case's."),
    metadata: list[str] = _METADATA,
    as_json: bool = JSON,
) -> None:
    """Show what is decided about messages: by which policies, with what impact, and who must approve.

    Example: acgs2 policy explain policies/acme.test.yaml --case "a large transfer" --payload '{"amount": 5}'
    """
    suite = _suite(file)
    cases = [each for each in suite.document.cases if case in ("", each.name)]
    if not cases:
        raise InputError("case-unknown", f"There is no case {case!r} in {file}.", hint="Give its whole name.")
    judge, rows = suite.judge(), []
    for each in cases:
        changed = _changed(each, message_type, priority, payload, metadata)
        rows.append({"case": each.name} | _plain(judge.judge(suite.question(changed))))
    if as_json:
        emit(rows)
        return
    for row in rows:
        _show(row)


@app.command()
def diff(
    old: Path = _OLD,
    new: Path = _NEW,
    cases: Path = _BY_BOTH,
    tenant: str = _TENANT,
    groups: Path = _GROUPS,
    constitution: Path = _CONSTITUTION,
    as_json: bool = JSON,
) -> None:
    """Show which policies differ between two files, and which verdicts on test cases.

    Exit status 1 when a verdict changes.

    Example: acgs2 policy diff platform.cedar new.cedar --cases policies/
    """
    from acgs2.policy.cases import found_in, read_policies
    from acgs2.policy.compare import compare, verdicts

    texts = [read_policies(path) for path in (old, new)]
    found = compare(*(_bundle(path, tenant, groups, constitution) for path in (old, new)))
    suites = [_suite(file) for file in found_in(cases)] if cases else []

    def judge_of(text: str) -> Any:
        return lambda suite: suite.judge(tenants={tenant: text}) if tenant else suite.judge(platform=text)

    changed = verdicts(suites, judge_of(texts[0]), judge_of(texts[1]))
    rows = [
        {
            "file": str(each.suite.path),
            "case": each.case.name,
            "old": _plain(each.old),
            "new": _plain(each.new),
        }
        for each in changed
    ]
    if as_json:
        emit({key: list(value) for key, value in found._asdict().items()} | {"verdicts": rows})
        raise typer.Exit(1 if rows else 0)
    out = console()
    for sign, ids in (("+", found.added), ("-", found.removed), ("~", found.changed)):
        for id in ids:
            out.print(f"{sign} {id}")
    if not any(found):
        out.print("the same policies")
    for row in rows:
        said = " -> ".join(f"{row[v]['decision']} ({', '.join(row[v]['policies'])})" for v in ("old", "new"))
        out.print(f"{row['file']}: {row['case']}: {said}", soft_wrap=True, markup=False)
    if cases:
        judged = sum(len(suite.document.cases) for suite in suites)
        out.print(f"{len(rows)} of {judged} verdicts change")
    raise typer.Exit(1 if rows else 0)


@app.command()
def check(
    file: Path = _POLICIES,
    tenant: str = _TENANT,
    groups: Path = _GROUPS,
    constitution: Path = _CONSTITUTION,
    as_json: bool = JSON,
) -> None:
    """Check policies against the schema and the rules of the house. Exit status 2: they cannot be taken.

    Example: acgs2 policy check acme.cedar --tenant acme --groups acme-groups.yaml
    """
    bundle = _bundle(file, tenant, groups, constitution)
    rows = [
        {"id": p.id, "line": p.line, "effect": p.effect, "group": p.hold.group if p.hold else None}
        for p in bundle.policies
    ]
    permits = any(row["effect"] == "permit" for row in rows)
    warnings = [] if permits else ["No policy permits anything: whoever they are asked about is denied."]
    if as_json:
        emit({"digest": bundle.digest, "policies": rows, "warnings": warnings})
        return
    out = console()
    shown = table(f"Policies of {bundle.owner}", "id", "line#", "effect", "holds for")
    for row in rows:
        shown.add_row(row["id"], str(row["line"]), row["effect"], row["group"] or "")
    out.print(shown)
    for warning in warnings:
        out.print(f"[yellow]warning:[/] {warning}")
    out.print(f"digest {bundle.digest}", soft_wrap=True)


@app.command()
def schema() -> None:
    """Print the schema: what policies may speak of."""
    from acgs2.policy.bundle import schema_text

    print(schema_text(), end="")


def _suite(path: Path) -> Suite:
    from acgs2.policy.cases import Suite

    return Suite.load(path)


def _bundle(path: Path, tenant: str, groups: Path | None, constitution: Path | None) -> Bundle:
    from acgs2.errors import PolicyError
    from acgs2.policy import PLATFORM, Bundle, groups_of, load
    from acgs2.policy.cases import read_policies
    from acgs2.policy.documents import read

    own = (
        groups_of(read(read_policies(groups), str(groups), PolicyError, "groups-invalid")[0])
        if groups
        else {}
    )
    return Bundle.load(
        read_policies(path),
        owner=tenant or PLATFORM,
        groups=own,
        shared=load(constitution).groups,
        source=str(path),
    )


def _changed(case: Case, message_type: str, priority: int, payload: str, metadata: list[str]) -> Case:
    changes: dict[str, Any] = {}
    if message_type:
        changes["message_type"] = message_type
    if priority >= 0:
        changes["priority"] = priority
    if payload:
        try:
            changes["payload"] = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise InputError("payload-invalid", f"That is not JSON: {error}.", hint="Quote it.") from error
    if metadata:
        parts = [each.partition("=") for each in metadata]
        changes["metadata"] = {**case.metadata} | {key: text for key, _, text in parts}
    return case.model_copy(update=changes)


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {"decision": verdict.decision.value, "impact": verdict.impact} | verdict.basis()


def _show(row: dict[str, Any]) -> None:
    out = console()
    colour = {"allow": "green", "deliberate": "yellow", "deny": "red"}[row["decision"]]
    out.print(f"[bold]{escape(row['case'])}[/]: [{colour}]{row['decision']}[/]", soft_wrap=True)
    out.print(f"    by      {', '.join(row['policies']) or 'no policy'}", soft_wrap=True, markup=False)
    for reason in row["reasons"]:
        out.print(f"    because {reason}", soft_wrap=True, markup=False)
    out.print(f"    impact  {row['impact'] / 1000:g}")
    for factor in row["factors"]:
        line = f"        +{factor['share'] / 1000:g} {factor['name']}: {factor['why']}"
        out.print(line, soft_wrap=True, markup=False)
    for hold in row.get("holds", []):
        members = ", ".join(each.replace("\n", "/") for each in hold["members"])
        line = f"    needs   {hold['approvals']} of {members} ({hold['group']}) within {row['deadline_s']} s"
        out.print(line, soft_wrap=True, markup=False)
