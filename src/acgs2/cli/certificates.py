"""`acgs2 certificates`: what processes of a cluster know each other by."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from acgs2.cli.shared import JSON, cluster, console, emit, table

if TYPE_CHECKING:
    from acgs2.local.pki import Target
    from acgs2.local.state import State

app = typer.Typer(no_args_is_help=True)
#: With less than this left, `acgs2 up` or a rotation is late.
_SOON_DAYS = 14


def _now() -> datetime:
    return datetime.now(UTC)


@app.command()
def show(as_json: bool = JSON) -> None:
    """Show the authorities that are accepted, and the certificate of every region and of the edge."""
    from acgs2.local import pki

    state = cluster().state
    folder = state.path / "tls"
    pki.standing(folder, state.topology.domain, state.topology.regions, _now())  # or says that there are none
    found = pki.inspect(folder, _now())
    if as_json:
        emit([asdict(certificate) for certificate in found])
        return
    authorities = {c.key_id: c.name for c in found}
    shown = table("Certificates", "name", "valid until", "days left#", "for", "authority")
    for certificate in found:
        left = f"{certificate.days_left:.1f}"
        shown.add_row(
            certificate.name,
            f"{certificate.not_after:%Y-%m-%d %H:%M} UTC",
            f"[red]{left}[/]" if certificate.days_left < _SOON_DAYS else left,
            ", ".join(certificate.names) or "-",
            authorities.get(certificate.issuer_key_id, "[red]none that is accepted[/]"),
        )
    console().print(shown)


@app.command()
def rotate(
    authority: bool = typer.Option(False, "--authority", help="Change the authority too, without an outage."),
    as_json: bool = JSON,
) -> None:
    """Give every region and the edge another key and certificate, and wait until each presents it.

    With --authority: the new one is accepted beside the old, then certificates come from it, then the old is
    accepted no longer; each step once every process has taken the one before. Broken off, it is gone on with.
    Exit status 5 when a process has not taken a step within 30 s.

    Examples: acgs2 certificates rotate;  acgs2 certificates rotate --authority
    """
    from acgs2.local import pki

    state = cluster().state
    said: list[str] = []

    def progress(line: str) -> None:
        said.append(line)
        if not as_json:
            console().print(line)

    with state.locked():
        change = pki.change_authority if authority else pki.rotate_leaves
        absent = change(_of(state), progress)
    result: dict[str, Any] = {
        "steps": said,
        "not_listening": absent,
        "certificates": [asdict(c) for c in pki.inspect(state.path / "tls", _now())],
    }
    if as_json:
        emit(result)
    elif absent:
        console().print(f"Nobody listens at {', '.join(absent)}: who comes up there reads the new ones.")


def _of(state: State) -> Target:
    from acgs2.local import pki

    return pki.Target(
        folder=state.path / "tls",
        domain=state.topology.domain,
        regions=tuple(state.topology.regions),
        endpoints=pki.endpoints_of(state.ports, state.topology.regions),
        now=_now,
    )
