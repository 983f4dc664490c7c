"""`acgs2 drill`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from acgs2.cli.shared import JSON, console, emit, state_path, table

if TYPE_CHECKING:
    from rich.console import Console

    from acgs2.drill.report import Event, Report
    from acgs2.local.cluster import Cluster

app = typer.Typer()


@app.command()
def drill(
    fault: str = typer.Option(
        "kill",
        "--fault",
        help="kill, freeze, cut, cut-one-way, slow, database, gateway, leader, two-regions, pair, witness.",
    ),
    region: str = typer.Option("", "--region", help="To whom; the first of a pair if not named."),
    rate: float = typer.Option(30, "--rate", min=1, max=2000, help="Calls a second, over all places."),
    suite: bool = typer.Option(False, "--suite", help="Every fault, one after the other."),
    html: str = typer.Option(
        "", "--html", metavar="FILE", help="Write the report as a page that needs nothing else."
    ),
    keep: bool = typer.Option(False, "--keep", help="Leave the cluster running."),
    dwell: float = typer.Option(
        2, "--dwell", min=0, help="Seconds that each share lasts as traffic returns."
    ),
    topology: str = typer.Option("local", "--topology", help="What to bring up where nothing runs yet."),
    as_json: bool = JSON,
) -> None:
    """Break a region under load and see what clients see: five numbers against their objectives, and proof.

    Brings a cluster up if none runs in the state directory, and leaves nothing running then unless --keep.
    In one that exists its own topology counts, not --topology and --dwell; its data stays.
    Exit status 1 when an objective was missed or a promise broken; the report says which.
    A suite goes on with the next fault when a drill breaks off, and counts it as not passed.
    """
    import asyncio
    import logging
    import traceback

    from acgs2.drill.ending import end_on_sigterm
    from acgs2.drill.outages import OUTAGES
    from acgs2.drill.report import not_run
    from acgs2.drill.run import Settings, run_drill
    from acgs2.errors import AcgsError
    from acgs2.local.state import default_path

    # What clients wait for is in the report; the SDK need not say it between the lines as well.
    logging.getLogger("acgs2.client").addHandler(logging.NullHandler())
    end_on_sigterm()  # and the cluster that it brought up with it
    out = console()
    path = state_path() or default_path("drill")
    cluster, end = _cluster(topology, path, dwell, None if as_json else out)
    reports: list[Report] = []
    try:
        say, tick, done = _teller(None if as_json else out)
        for name in OUTAGES if suite else [fault]:
            if suite and not as_json:
                out.print(f"\n[bold]{name}[/]")
            try:
                reports.append(
                    asyncio.run(run_drill(cluster, name, region, Settings(rate_per_s=rate), say, tick))
                )
            except Exception as error:
                if not suite:
                    raise
                # A suite says of every fault what came of it: also that its drill broke off.
                if not isinstance(error, AcgsError):
                    traceback.print_exc()
                reports.append(not_run(name, region, cluster.state.topology.name, rate, error))
            finally:
                done()
            if not as_json:
                _show(out, reports[-1])
    finally:
        if end is not None and not keep:
            end()
    if suite and not as_json:
        _summary(out, reports)
    if html:
        from acgs2.drill.html import page

        Path(html).write_text(page(reports), encoding="utf-8")
    if as_json:
        emit([each.as_dict() for each in reports] if suite else reports[0].as_dict())
    elif end is not None:
        out.print(
            f"Still running in {path}; stop with acgs2 --state {path} down"
            if keep
            else "Nothing is left running."
        )
    raise typer.Exit(0 if all(each.passed for each in reports) else 1)


def _cluster(
    topology: str, path: Path, dwell: float, out: Console | None
) -> tuple[Cluster, Callable[[], None] | None]:
    """Return the cluster of a state directory, brought up if it does not run; and what ends it then.

    One that was there keeps its data, and its topology counts; one that was made for the drill goes with it.
    """
    import tempfile

    from acgs2.cli.up import progress_lines
    from acgs2.drill.adapted import adapted
    from acgs2.errors import RuntimeFault
    from acgs2.local.cluster import Cluster, up

    quiet: Any = lambda *_: None  # noqa: E731 - a callback that does nothing
    progress = quiet if out is None else progress_lines(out)
    try:
        found = Cluster.open(path)
        if found.running():
            return found, None
        again = up(found.state.topology_path, path, on_progress=progress)
        return again, again.down
    except RuntimeFault as error:
        if error.reference != "no-cluster":
            raise
    with tempfile.TemporaryDirectory(prefix="acgs2-drill-") as folder:
        made = up(adapted(topology, Path(folder), dwell_s=dwell), path, on_progress=progress)
        return made, made.destroy


def _teller(out: Console | None) -> tuple[Any, Any, Any]:
    """Return what tells events, what tells how service is, and what ends that line."""
    if out is None:
        return (lambda event: None), (lambda line: None), (lambda: None)
    from rich.markup import escape
    from rich.status import Status

    status = Status("", console=out)
    styles = {"phase": "bold", "fault": "bold red", "plan": "cyan", "seen": "dim"}

    def say(event: Event) -> None:
        what = escape(event.what)
        out.print(f"[dim]{event.at_s:6.1f} s[/]  [{styles[event.kind]}]{what}[/]")

    def tick(line: str) -> None:
        if out.is_terminal:
            status.update(escape(line))
            status.start()
        else:
            out.print(escape(line), style="dim")

    return say, tick, status.stop


def _show(out: Console, report: Report) -> None:
    from rich.markup import escape

    if report.raised:
        out.print(f"[red]not passed: {escape(report.missed[0])}[/]")
        return
    numbers = table("\nThe five numbers", "", "measured", "objective", "", "what it is")
    for each in report.numbers:
        value = "not measured" if each.value is None else f"{each.value:.7g} {each.unit}".strip()
        kept = "[green]kept[/]" if each.kept else "[red]MISSED[/]"
        numbers.add_row(each.name, value, f"{each.objective:g} {each.unit}".strip(), kept, each.how)
    out.print(numbers)
    zones = table(
        "\nWhat clients saw", "zone", "calls#", "failed#", "late#", "back after s#", "lost s#", "p50 ms",
        "p99 ms", "then p99 ms", "answered before", "and after", "problems",
    )  # fmt: skip
    for zone in report.zones:
        back = "never" if zone.restored_s is None else f"{zone.restored_s:.1f}"
        zones.add_row(
            zone.zone,
            str(zone.calls),
            str(zone.failed),
            str(zone.late),
            back if zone.lawful else f"{back} (no lawful region)",
            f"{zone.outage_s:.1f}",
            f"{zone.p50_ms:.0f}",
            f"{zone.p99_ms:.0f}",
            f"{zone.after_p99_ms:.0f}",
            ", ".join(zone.regions["before"]),
            ", ".join(zone.regions["after"]),
            ", ".join(f"{count} {what}" for what, count in zone.problems.items()),
        )
    out.print(zones)
    out.print(f"\n{report.injected}: {report.bitten or '[red]not known to have bitten[/]'}")
    out.print(f"expected: {report.expected}, for {report.why_expected}")
    out.print(
        f"happened: {escape(report.happened)}"
        + (f", for {escape(report.why_happened)}" if report.why_happened else "")
    )
    _proof(out, report)
    for what in report.missed:
        out.print(f"[red]MISSED[/] {escape(what)}")
    out.print("[green]passed[/]" if report.passed else "[red]not passed[/]")


def _proof(out: Console, report: Report) -> None:
    out.print(
        f"{report.acknowledged_writes} writes and {report.acknowledged_messages} messages acknowledged; "
        f"{len(report.lost)} lost, {len(report.undelivered)} not delivered, "
        f"{len(report.duplicates)} delivered twice ({report.repeats} repeats were told by their id)"
    )
    out.print(
        f"{report.canaries} texts looked for in {report.swept_bytes / 1e6:.0f} MB and every table: "
        f"{len(report.misplaced)} where they may not be; {report.canaries_found} found where they may"
    )
    agreed = (
        "did not agree"
        if report.converged_s is None
        else f"agreed {report.converged_s:g} s after the last call"
    )
    recovered = "not recovered" if report.recovered_s is None else f"recovered in {report.recovered_s:g} s"
    out.print(f"regions {agreed}; {recovered}; failback: {report.phases_said('failback')}")


def _summary(out: Console, reports: list[Report]) -> None:
    from rich.markup import escape

    shown = table(
        "\nThe suite",
        "fault",
        "to",
        "expected",
        "happened",
        "detected s#",
        "failed over s#",
        "lost s#",
        "back s#",
        "",
    )
    for each in reports:
        shown.add_row(
            each.fault,
            ", ".join(each.regions),
            each.expected,
            each.happened,
            *("-" if value is None else f"{value:.1f}" for value in (each.detection_s, each.failover_s)),
            "-" if each.raised else f"{max((z.outage_s for z in each.zones if z.lawful), default=0):.1f}",
            "-" if each.failback_s is None else f"{each.failback_s:.1f}",
            "[green]passed[/]" if each.passed else f"[red]missed: {escape('; '.join(each.missed))}[/]",
        )
    out.print(shown)
