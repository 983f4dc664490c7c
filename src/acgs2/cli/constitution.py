"""`acgs2 constitution show|versions|verify|propose|sign|submit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from acgs2.cli.shared import JSON, call, call_any, cluster, console, emit, table
from acgs2.errors import InputError, RefusedError, UnavailableError

if TYPE_CHECKING:
    from acgs2.policy import Constitution

app = typer.Typer(no_args_is_help=True, help="Show, amend and compare the constitution in force.")
_REGION = typer.Option("", "--region", help="The region to ask; any that answers if not given.")
_PATH = "/api/v1/constitution"
_AMENDMENT = typer.Argument(metavar="AMENDMENT.json", help="As `constitution propose` made it.")

_FILE = typer.Argument(metavar="FILE", help="The whole constitution as it shall be (YAML).")
_OUT = typer.Option(Path("amendment.json"), "--out", help="Where to write the amendment.")
_KEY = typer.Option(
    None, "--key", metavar="FILE", help="Their Ed25519 key (PEM); in a local cluster it is found."
)


_SHOWN = typer.Argument(None, metavar="[FILE]", help="Show a file; else what is in force.")
_CHECKED = typer.Argument(
    None, metavar="[FILE]", help="A constitution; else the one that comes with the project."
)


@app.command()
def check(file: Path = _CHECKED, as_json: bool = JSON) -> None:
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
def show(
    file: Path = _SHOWN,
    region: str = _REGION,
    as_yaml: bool = typer.Option(False, "--yaml", help="Print the document, to be edited and proposed."),
    as_json: bool = JSON,
) -> None:
    """Show the constitution in force, or what a file says."""
    if file is not None:
        from acgs2.cli.constitution_file import show_file

        show_file(file, as_json=as_json)
        return
    found = call_any(cluster(), region, "GET", _PATH)
    if as_json:
        emit(found)
    elif as_yaml:
        print(_yaml(found["document"]), end="")
    else:
        out, document = console(), found["document"]
        out.print(f"[bold]constitution {found['id']}[/], version {found['version']}", soft_wrap=True)
        out.print(f"digest {found['digest']}")
        out.print("in force" if found["governing"] else "[red]this region does not govern now[/]")
        rule = document["amendment"]
        names = ", ".join(each["name"] for each in rule["amenders"])
        out.print(f"amended by {rule['approvals']} of {names}", soft_wrap=True)
        for name, text in document["rules"].items():
            out.print(f"  [bold]{name}[/]: {text}", soft_wrap=True)


@app.command()
def versions(region: str = _REGION, as_json: bool = JSON) -> None:
    """List the versions that a region went by, newest first."""
    rows = call_any(cluster(), region, "GET", f"{_PATH}/versions")
    if as_json:
        emit(rows)
        return
    shown = table("Versions", "version#", "digest", "learned", "in force since")
    for row in rows:
        shown.add_row(
            str(row["version"]), row["digest"], row["learned_at"][:23], (row["bound_at"] or "-")[:23]
        )
    console().print(shown)


@app.command()
def verify(as_json: bool = JSON) -> None:
    """Ask every region what it goes by; exit status 1 unless all say the same and govern."""
    found = cluster()
    rows: dict[str, Any] = {}
    for name in found.state.topology.regions:
        try:
            rows[name] = call(found, name, "GET", _PATH)
        except UnavailableError as error:
            rows[name] = {"error": error.reference}
    digests = {row.get("digest") for row in rows.values()}
    well = len(digests) == 1 and None not in digests and all(row["governing"] for row in rows.values())
    keys = ("version", "digest", "governing", "error")
    if as_json:
        shown_rows = {name: {k: row[k] for k in keys if k in row} for name, row in rows.items()}
        emit({"agreed": well, "regions": shown_rows})
    else:
        shown = table("By what regions go", "region", "version#", "digest", "governs")
        for name, row in rows.items():
            governs = "yes" if row.get("governing") else f"[red]{row.get('error', 'no')}[/]"
            shown.add_row(name, str(row.get("version", "-")), row.get("digest", "-"), governs)
        console().print(shown)
    raise typer.Exit(0 if well else 1)


@app.command()
def propose(
    file: Path = _FILE,
    out: Path = _OUT,
    region: str = _REGION,
) -> None:
    """Make an amendment of a changed document, for amenders to sign; nothing changes yet.

    Example: acgs2 constitution show --yaml > next.yaml, edit it, raise its version, and propose it.
    """
    from acgs2 import policy

    current = policy.of(call_any(cluster(), region, "GET", _PATH)["document"])
    keys = {each.name: each.key for each in current.amendment.amenders}
    proposed = policy.founded(policy.load(file), keys)
    _may_follow(current, proposed)
    documents = [json.loads(each.canonical) for each in (current, proposed)]
    _write(out, {"base": documents[0], "document": documents[1], "signatures": []})
    console().print(_diff(*documents), markup=False, soft_wrap=True)
    needed = current.amendment.approvals
    console().print(
        f"{out}: {needed} of {', '.join(keys)} sign it: acgs2 constitution sign {out}", soft_wrap=True
    )


@app.command()
def sign(
    amendment: Path = _AMENDMENT,
    name: str = typer.Option(..., "--as", metavar="NAME", help="The amender who signs."),
    key: Path | None = _KEY,
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
) -> None:
    """Sign an amendment, after showing what it changes. Needs no cluster where a key is given."""
    from acgs2 import policy
    from acgs2.local.amenders import key_path, read_key
    from acgs2.policy.amendment import public_key

    body = _read(amendment)
    base, proposed = policy.of(body["base"]), policy.of(body["document"])
    _may_follow(base, proposed)
    file = key or key_path(cluster().state.amenders, name)
    private = read_key(file)
    known = {each.name: each.key for each in base.amendment.amenders}
    if known.get(name) != public_key(private):
        raise RefusedError(
            "signer-unknown",
            f"{file} is not the key of an amender {name}.",
            hint=f"Amenders: {', '.join(known)}.",
        )
    out = console()
    out.print(_diff(body["base"], body["document"]), markup=False, soft_wrap=True)
    if not yes:
        typer.confirm(f"Sign version {proposed.version} as {name}?", abort=True)
    made = policy.amendment.sign(base, proposed, name, private)
    kept = [each for each in body["signatures"] if each["amender"] != name]
    body["signatures"] = [*kept, {"amender": made.amender, "signature": made.signature}]
    _write(amendment, body)
    out.print(f"{len(body['signatures'])} of {base.amendment.approvals} signatures", soft_wrap=True)


@app.command()
def submit(amendment: Path = _AMENDMENT, region: str = _REGION, as_json: bool = JSON) -> None:
    """Put a signed amendment in force, everywhere from one version on."""
    body = _read(amendment)
    sent = {"document": body["document"], "signatures": body["signatures"], "wait": True}
    done = call_any(cluster(), region, "POST", f"{_PATH}/amendments", body=sent)
    if as_json:
        emit(done)
        return
    said = "is in force" if done["amended"] else "was in force already"
    console().print(f"[bold]version {done['version']} {said}[/]: {done['digest']}", soft_wrap=True)
    silent = ", ".join(done["binding"]["unconfirmed"])
    console().print(
        f"not heard from {silent}: they govern again when they have it" if silent else "all regions go by it",
        soft_wrap=True,
    )


def _may_follow(current: Constitution, proposed: Constitution) -> None:
    """Refuse a document that could not be amended to, however many sign it; raises RefusedError."""
    from acgs2 import policy

    try:
        policy.amendment.check(current, proposed, ())
    except RefusedError as error:
        if error.reference != "signatures-missing":
            raise


def _read(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if {"base", "document", "signatures"} <= body.keys() and isinstance(body["signatures"], list):
            return body
        why = "it has no base, document and signatures"
    except (OSError, ValueError, AttributeError) as error:
        why = getattr(error, "strerror", None) or "it is not JSON"
    raise InputError(
        "amendment-unreadable",
        f"{path} is no amendment: {why}.",
        hint="`acgs2 constitution propose FILE` makes one.",
        file=str(path),
    )


def _write(path: Path, body: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            "file-unwritable", f"{path} cannot be written: {error.strerror}.", hint="Name another with --out."
        ) from error


def _yaml(document: Any) -> str:
    import yaml

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def _diff(base: Any, proposed: Any) -> str:
    import difflib

    import yaml

    before, after = (yaml.safe_dump(each, allow_unicode=True).splitlines() for each in (base, proposed))
    return "\n".join(difflib.unified_diff(before, after, "in force", "proposed", lineterm="", n=1))
