"""`acgs2 dns plan|apply`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from acgs2.cli.shared import JSON, console, emit, table
from acgs2.errors import InputError

if TYPE_CHECKING:
    from acgs2.drivers.dns import Alias, Desired, Gap, Partition
    from acgs2.drivers.route53 import Report
    from acgs2.topology import Topology

app = typer.Typer(no_args_is_help=True)
_FILE = typer.Argument("local", metavar="TOPOLOGY", help="A topology file, or local, global, guide.")
_WEIGHT = typer.Option([], "--weight", metavar="REGION=PERCENT", help="What it takes of what reaches it.")
_DOWN = typer.Option([], "--down", metavar="REGION", help="Takes no part.")
_PARTITION = typer.Option("aws", "--partition", help="The hosted zone's cloud partition: aws or aws-cn.")
_BALANCER = typer.Option(
    [], "--load-balancer", metavar="REGION=NAME:ZONE", help="Its DNS name and hosted zone; else api.REGION."
)
_ENDPOINT = typer.Option("", "--endpoint-url", metavar="URL", help="Another server than AWS's.")


@app.command()
def plan(
    file: str = _FILE,
    zone_id: str = typer.Option("", "--zone-id", metavar="ID", help="Show what would change in it."),
    weight: list[str] = _WEIGHT,
    down: list[str] = _DOWN,
    partition: str = _PARTITION,
    balancer: list[str] = _BALANCER,
    endpoint_url: str = _ENDPOINT,
    as_json: bool = JSON,
) -> None:
    """Show the records that carry the route plan out; with a hosted zone, how they differ from its own.

    Example: acgs2 dns plan global --weight eu-west-1=25 --down us-east-1
    """
    from dataclasses import asdict

    wanted = _desired(file, weight, down, partition, balancer)
    if zone_id:
        _show(_apply(wanted, zone_id, endpoint_url, dry_run=True), as_json=as_json)
        return
    if as_json:
        emit(
            {
                "records": [record.as_dict() for record in wanted.records],
                "health_checks": [{"name": check.name, **asdict(check)} for check in wanted.checks],
                "gaps": [asdict(gap) for gap in wanted.gaps],
            }
        )
        return
    shown = table(
        f"Records of {wanted.domain} ({wanted.partition})", "name", "type", "id", "policy", "leads to"
    )
    for record in wanted.records:
        policy = f"latency {record.region}" if record.region else f"weight {record.weight}"
        shown.add_row(record.name, record.type, record.set_id, policy, record.target)
    console().print(shown)
    checks = table("\nHealth checks", "name", "looks at", "every s#", "failures#")
    for check in wanted.checks:
        at = f"https://{check.fqdn}:{check.port}{check.path}"
        checks.add_row(check.name, at, str(check.interval_s), str(check.failures))
    console().print(checks)
    _say_gaps(wanted.gaps)


@app.command()
def apply(
    file: str = _FILE,
    zone_id: str = typer.Option(..., "--zone-id", metavar="ID", help="The hosted zone of the domain."),
    weight: list[str] = _WEIGHT,
    down: list[str] = _DOWN,
    partition: str = _PARTITION,
    balancer: list[str] = _BALANCER,
    endpoint_url: str = _ENDPOINT,
    dry_run: bool = typer.Option(False, "--dry-run", help="Only print the calls that would be made."),
    deadline_s: float = typer.Option(
        120, "--deadline", min=1, help="Seconds until it gives up trying again."
    ),
    as_json: bool = JSON,
) -> None:
    """Make a hosted zone of Route 53 say what the plan says; records of others are left alone.

    Exit status 3: refused. 4: try again, and what was done is not done twice.

    Example: acgs2 dns apply global --zone-id Z0123456789 --dry-run
    """
    wanted = _desired(file, weight, down, partition, balancer)
    _show(_apply(wanted, zone_id, endpoint_url, deadline_s, dry_run=dry_run), as_json=as_json)


def _desired(file: str, weight: list[str], down: list[str], partition: str, balancer: list[str]) -> Desired:
    """Return what shall be, from what the caller said."""
    from datetime import UTC, datetime

    from acgs2.drivers.dns import PARTITIONS, desired
    from acgs2.plan import rights_of
    from acgs2.topology import load

    topology = load(file)
    found: list[Partition] = [known for known in PARTITIONS if known == partition]
    if not found:
        raise InputError("partition-unknown", f"{partition} is no cloud partition.", hint="aws or aws-cn.")
    return desired(
        topology,
        rights_of(topology, datetime.now(UTC)),
        {_region(topology, region): False for region in down},
        dict(_weight(topology, given) for given in weight),
        partition=found[0],
        balancers=dict(_balancer(topology, given) for given in balancer),
    )


def _weight(topology: Topology, given: str) -> tuple[str, int]:
    region, _, percent = given.partition("=")
    if not percent.isascii() or not percent.isdigit() or int(percent) > 100:
        raise InputError("weight-invalid", f"{given} is no REGION=PERCENT.", hint="PERCENT is 0 to 100.")
    return _region(topology, region), int(percent)


def _balancer(topology: Topology, given: str) -> tuple[str, Alias]:
    from acgs2.drivers.dns import Alias

    found = re.fullmatch(r"([^=]+)=([A-Za-z0-9.-]+):([A-Z0-9]{1,32})", given)
    if found is None:
        raise InputError("load-balancer-invalid", f"{given} is no REGION=NAME:ZONE.")
    return _region(topology, found[1]), Alias(found[2].lower().rstrip("."), found[3])


def _region(topology: Topology, region: str) -> str:
    if region not in topology.stacks():
        raise InputError(
            "region-unknown",
            f"There is no region {region} that serves clients.",
            hint=f"Regions: {', '.join(topology.stacks())}.",
        )
    return region


def _apply(
    wanted: Desired, zone_id: str, endpoint_url: str, deadline_s: float = 120, *, dry_run: bool
) -> Report:
    from acgs2.drivers.route53 import Patience, connect
    from acgs2.drivers.route53 import apply as carry_out

    client = connect(wanted.partition, endpoint_url=endpoint_url or None)
    return carry_out(client, zone_id, wanted, patience=Patience(deadline_s=deadline_s), dry_run=dry_run)


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        emit(report.as_dict())
        return
    out = console()
    for one in report.tries:
        out.print(
            f"tried again: {one.operation} after {one.pause_s:.1f} s: {one.reason}",
            soft_wrap=True,
            markup=False,
        )
    for call in report.calls:
        out.print(f"{'would ' if report.dry_run else ''}{call.operation}: {call.does}", soft_wrap=True)
        for line in call.lines:
            out.print(f"    {line}", soft_wrap=True)
    if not report.calls:
        out.print("nothing to change")
    if not report.settled:
        out.print("An answer was lost: not watched until all servers have it, no health check deleted.")
    _say_gaps(report.gaps)


def _say_gaps(gaps: Iterable[Gap]) -> None:
    for gap in gaps:
        console().print(f"[yellow]{gap}[/]", soft_wrap=True)
