"""`acgs2 audit`: verify, prove, show and export a region's log."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from acgs2.cli.shared import JSON, call, cluster, console, emit, table

if TYPE_CHECKING:
    from acgs2.audit.export import Source
    from acgs2.audit.keys import Trusted
    from acgs2.audit.note import Note
    from acgs2.audit.verify import Report
    from acgs2.local.cluster import Cluster

app = typer.Typer(no_args_is_help=True)
REGION = typer.Option("", "--region", help="The region whose log it is; the first by default.")
KEYS = typer.Option(
    "", "--keys", metavar="FILE", help="The public keys that you trust; else those of the local cluster."
)


def _region(of: Cluster, named: str) -> str:
    return named or next(iter(of.state.topology.regions))


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how far long work is; on a terminal only."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


class _Remote:
    """A region's log, read over its API."""

    def __init__(self, of: Cluster, region: str) -> None:
        self._of = of
        self._region = region
        self._note = ""

    def text(self, path: str) -> str:
        """Return a file's text; the checkpoint is asked for once, so that all else fits to it."""
        if path != "checkpoint":
            raise FileNotFoundError(path)
        self._note = self._note or self._get("checkpoint").decode()
        return self._note

    def bytes_of(self, path: str) -> bytes | None:
        """Return a file's content."""
        from acgs2.audit.export import HISTORY

        return self._history() if path == HISTORY else self._get(path)

    def _history(self) -> bytes:
        from acgs2.audit.checkpoint import Checkpoint
        from acgs2.audit.note import parse_note

        upto = Checkpoint.parse(parse_note(self.text("checkpoint")).text).size
        lines: list[str] = []
        after = 0
        while True:
            page = call(self._of, self._region, "GET", "/api/v1/audit/history", params={"after": after})
            for note in page:
                after = Checkpoint.parse(parse_note(note).text).size
                if after <= upto:
                    lines.append(json.dumps(note))
            if not page or after >= upto:
                return "".join(f"{line}\n" for line in lines).encode()

    def _get(self, path: str) -> bytes:
        import httpx

        from acgs2.cli.shared import operator_token
        from acgs2.errors import UnavailableError
        from acgs2.local.loopback import loopback

        url = f"{self._of.state.url(self._region)}/api/v1/audit/{path}"
        headers = {"authorization": f"Bearer {operator_token(self._of)}"}
        try:
            answer = loopback().get(url, headers=headers, timeout=30)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise UnavailableError(
                "audit-unreadable",
                f"{self._region} does not give {path}: {error}.",
                hint="See `acgs2 status`.",
            ) from error
        return answer.content


def trusted_keys(keys: str, folder: Path | None) -> tuple[Trusted, str]:
    """Return the keys to verify with, and where they are from."""
    from acgs2.audit.export import KEYS as EXPORTED
    from acgs2.audit.keys import PUBLIC, read_trusted
    from acgs2.errors import RuntimeFault

    if keys:
        return read_trusted(Path(keys)), keys
    try:
        path = cluster().state.path / "secrets" / PUBLIC
        return read_trusted(path), "the local cluster"
    except RuntimeFault:
        if folder is None or not folder.is_dir():
            raise
        return read_trusted(folder / EXPORTED), "the export itself"


@app.command()
def verify(
    export: str = typer.Argument("", metavar="[DIR|TAR]", help="An export; else the log of --region."),
    region: str = REGION,
    keys: str = KEYS,
    against: str = typer.Option("", "--against", metavar="DIR|TAR", help="Another export of the same log."),
    needed: int = typer.Option(2, "--witnesses", min=0, help="How many must have cosigned."),
    tolerance_s: int = typer.Option(30, "--tolerance-s", min=0, help="How far times may be apart."),
    as_json: bool = JSON,
) -> None:
    """Judge a log: signatures, witnesses, every leaf, its growth and its times. Exit status 1 with findings.

    An export is judged by its files and the keys alone, without any network.
    """
    from acgs2.audit.export import opened
    from acgs2.audit.verify import verify

    trusted, origin_of_keys = trusted_keys(keys, Path(export) if export else None)
    source: Source
    known: list[Note] = []
    if export:
        source = opened(Path(export))
    else:
        of = cluster()
        source, known = _Remote(of, _region(of, region)), _witnessed(of, _region(of, region))
        needed = min(needed, len(of.state.topology.regions) - 1)
    reports: list[Report] = []
    with _progress("verifying") as progress:
        options: dict[str, Any] = {"needed": needed, "tolerance_s": tolerance_s, "progress": progress}
        other = opened(Path(against)) if against else None
        later = _checkpoints(other) if other else []
        reports.append(verify(source, trusted, known=known, later=later, **options))
        if other is not None:
            reports.append(verify(other, trusted, later=_checkpoints(source), **options))
    found = any(report.findings for report in reports)
    if as_json:
        emit({"keys": origin_of_keys, "logs": [report.as_dict() for report in reports]})
    else:
        for report in reports:
            _say(report)
        if origin_of_keys == "the export itself":
            console().print("[yellow]the keys are the export's own: name those that you trust with --keys[/]")
    raise typer.Exit(1 if found else 0)


def _checkpoints(source: Source) -> list[Note]:
    from acgs2.audit.export import history_of
    from acgs2.audit.note import parse_note

    return [parse_note(source.text("checkpoint")), *history_of(source)]


def _witnessed(of: Cluster, region: str) -> list[Note]:
    """Return what other regions cosigned of a region's log; those that are away are not asked."""
    from acgs2.audit.note import parse_note
    from acgs2.errors import AcgsError

    found = []
    for other in of.state.topology.peers(region):
        try:
            rows = call(of, other, "GET", "/api/v1/audit/witnessed")
        except AcgsError:
            continue
        found += [parse_note(row["note"]) for row in rows if row["region"] == region]
    return found


def _say(report: Report) -> None:
    out = console()
    out.print(f"{report.origin or 'no log'}: {report.size} leaves, {report.checkpoints} checkpoints")
    if report.witnesses:
        out.print(f"cosigned by {', '.join(report.witnesses)}")
    for finding in report.findings:
        out.print(f"[bold red]{finding.kind}[/] {finding.message}")
    if report.more:
        out.print(f"and {report.more} more findings")
    if not report.findings:
        out.print("[green]nothing wrong was found[/]")


@app.command()
def prove(
    subject: str = typer.Argument(..., help="The id of what was logged: a message, tenant, person."),
    region: str = REGION,
    as_json: bool = JSON,
) -> None:
    """Show what was logged about a subject, and check the proof that it is in a witnessed checkpoint."""
    of = cluster()
    rows = call(of, _region(of, region), "GET", "/api/v1/audit/proofs", params={"subject": subject})
    trusted, _ = trusted_keys("", None)
    checked = [{**row, "proven": is_proven(row, trusted)} for row in rows]
    if as_json:
        emit(checked)
    else:
        shown = table(f"Leaves about {subject}", "index#", "kind", "at", "proven", "witnesses")
        for row in checked:
            names = ", ".join(name.rpartition("/")[2] for name in row["witnesses"])
            index = "-" if row["index"] is None else str(row["index"])
            proven = "yes" if row["proven"] else "not yet" if row["proof"] is None else "[red]no[/]"
            shown.add_row(index, row["kind"], _moment(row["at_us"]), proven, names or "-")
        console().print(shown)
    raise typer.Exit(0 if checked and all(row["proven"] for row in checked) else 1)


def is_proven(row: dict[str, Any], trusted: Trusted) -> bool:
    """Return whether a leaf with its proof is in a checkpoint that a trusted log has signed."""
    import base64

    from acgs2.audit.checkpoint import Checkpoint, is_signed_by
    from acgs2.audit.note import parse_note
    from acgs2.audit.tree import is_included, leaf_hash

    if row["proof"] is None:
        return False
    note = parse_note(row["checkpoint"])
    checkpoint = Checkpoint.parse(note.text)
    proof = [base64.b64decode(each) for each in row["proof"]]
    leaf = leaf_hash(row["entry"].encode())
    signed = any(is_signed_by(note, key) for key in trusted.of_log(checkpoint.origin))
    return signed and is_included(leaf, row["index"], checkpoint.size, proof, checkpoint.root)


@app.command()
def show(region: str = typer.Option("", "--region", help="Of one region."), as_json: bool = JSON) -> None:
    """Show every region's log: how far it is, up to where it is witnessed, and by whom."""
    from acgs2.errors import AcgsError

    of = cluster()
    logs = []
    for name in [region] if region else of.state.topology.regions:
        try:
            logs.append(call(of, name, "GET", "/api/v1/audit"))
        except AcgsError as error:
            if region:
                raise
            logs.append({"region": name, "away": error.reference})
    if as_json:
        emit(logs)
        return
    shown = table("Audit logs", "region", "leaves#", "witnessed#", "lag ms", "cosigned by", "state")
    for log in logs:
        if "away" in log:
            shown.add_row(log["region"], "-", "-", "-", "-", log["away"])
            continue
        names = ", ".join(
            w["name"].rpartition("/")[2] for w in log["witnesses"] if w["size"] >= log["witnessed"]
        )
        state = "[red]damaged[/]" if log["damage"] else "well"
        numbers = (str(log["size"]), str(log["witnessed"]), str(log["lag_ms"]))
        shown.add_row(log["region"], *numbers, names or "nobody", state)
    console().print(shown)


@app.command()
def export(
    folder: str = typer.Argument(..., metavar="DIR", help="Where to; a second export adds what is new."),
    region: str = REGION,
) -> None:
    """Export a log as files that anybody can verify: checkpoint, tiles, leaves, keys, history."""
    from acgs2.audit.export import write

    of = cluster()
    name = _region(of, region)
    with _progress("exporting") as progress:
        size = write(_Remote(of, name), Path(folder), progress)
    console().print(f"{size} leaves of {name} are in {folder}")


def _moment(at_us: int) -> str:
    from acgs2.model.clock import moment_of

    return moment_of(at_us).isoformat(timespec="milliseconds")
