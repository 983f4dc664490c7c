"""`acgs2 transfers|consents|subjects`: rights that begin and end, and waiting until the last copy is gone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from acgs2.cli.shared import JSON, call, cluster, console, emit, table
from acgs2.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from acgs2.local.cluster import Cluster

_REGION = typer.Option(..., "--region", help="The region to ask.")
_ZONE = typer.Option(..., "--zone", help="The zone of the data.")
_TENANT = typer.Option(..., "--tenant", help="The person's tenant.")
_TO = typer.Option(..., "--to", help="The region that may hold it.")
_WAIT = typer.Option(True, help="Wait until every region that lost the right has reported done.")
_WITHIN = typer.Option(30.0, "--within", min=0.1, help="How many seconds to wait.")
_NAMES = {
    "transfers": "Register, revoke and list permissions for a zone's data to be held elsewhere.",
    "consents": "Record and withdraw what a person agrees to; list consents.",
    "subjects": "Erase everything about a person; see who still has to confirm.",
}


def app_for(name: str) -> typer.Typer:
    """Return the sub-commands of transfers, consents or subjects."""
    app = typer.Typer(no_args_is_help=True, help=_NAMES[name])
    {"transfers": _transfers, "consents": _consents, "subjects": _subjects}[name](app)
    return app


def _transfers(app: typer.Typer) -> None:
    @app.command("list")
    def list_(region: str = _REGION, as_json: bool = JSON) -> None:
        """List transfers, as a region's register has them."""
        items = call(cluster(), region, "GET", "/api/v1/transfers", params={"limit": 200})["items"]
        if as_json:
            emit(items)
            return
        shown = table(f"Transfers known in {region}", "id", "zone", "to", "instrument", "entities", "ends")
        for item in items:
            ends = f"revoked {item['revoked']}" if item["revoked"] else item["expires"] or "-"
            shown.add_row(
                item["id"],
                item["from_zone"],
                item["to_region"],
                item["instrument"],
                ", ".join(item["entities"]),
                ends,
            )
        console().print(shown)

    @app.command()
    def add(
        region: str = _REGION,
        zone: str = _ZONE,
        to: str = _TO,
        instrument: str = typer.Option(..., "--instrument", help="What it rests on, such as scc."),
        entities: str = typer.Option(..., "--entities", help="Kinds of records, separated by commas."),
        expires: str = typer.Option("", "--expires", help="When it ends: a date or an instant (RFC 3339)."),
        certified: bool = typer.Option(False, "--importer-certified", help="The certificate is on file."),
        note: str = typer.Option("", "--note"),
        as_json: bool = JSON,
    ) -> None:
        """Register a transfer; what it newly allows is sent, and only that."""
        body: dict[str, Any] = {
            "zone": zone,
            "to": to,
            "instrument": instrument,
            "entities": [e.strip() for e in entities.split(",")],
            "importer_certified": certified,
        }
        body |= {"expires": _instant(expires)} if expires else {}
        body |= {"note": note} if note else {}
        made = call(cluster(), region, "POST", "/api/v1/transfers", body=body)
        emit(made) if as_json else console().print(f"registered {made['id']}: {zone} to {to} by {instrument}")

    @app.command()
    def revoke(
        transfer: str,
        region: str = _REGION,
        wait: bool = _WAIT,
        within: float = _WITHIN,
        as_json: bool = JSON,
    ) -> None:
        """Revoke a transfer; the region that held data by it erases it and reports."""
        of, began_s = cluster(), time.time()
        made = call(of, region, "POST", f"/api/v1/transfers/{transfer}/revoke")
        to, zone = made["to_region"], made["from_zone"]
        wanted = set(made["entities"])

        def reports() -> list[dict[str, Any]] | None:
            found = call(of, region, "GET", "/api/v1/disposals")
            mine = [d for d in found if (d["region"], d["zone"]) == (to, zone) and d["entity"] in wanted]
            fresh = [d for d in mine if _epoch_s(d["done_at"]) >= _epoch_s(made["revoked"])]
            return fresh if {d["entity"] for d in fresh} >= wanted else None

        done = _until(reports, within, f"{to} has not reported that it erased data of {zone}") if wait else []
        if as_json:
            emit({**made, "disposals": done})
            return
        console().print(f"revoked {transfer}: {to} may not hold data of {zone} any more")
        for report in done:
            took_s = _epoch_s(report["done_at"]) - began_s
            console().print(
                f"  {to} erased {report['records']} {report['entity']}, {max(took_s, 0):.2f} s after the act"
            )


def _consents(app: typer.Typer) -> None:
    @app.command("list")
    def list_(
        region: str = _REGION, tenant: str = typer.Option("", "--tenant"), as_json: bool = JSON
    ) -> None:
        """List consents that a region knows."""
        params = {"limit": 200} | ({"tenant": tenant} if tenant else {})
        items = call(cluster(), region, "GET", "/api/v1/consents", params=params)["items"]
        if as_json:
            emit(items)
            return
        shown = table(f"Consents known in {region}", "person", "to", "withdrawals#", "evidence", "updated in")
        for item in items:
            shown.add_row(
                item["subject_id"],
                item["to_region"],
                str(item["withdrawals"] or 0),
                item["evidence"] or "-",
                item["updated_in"],
            )
        console().print(shown)

    @app.command()
    def grant(
        person: str,
        region: str = _REGION,
        zone: str = _ZONE,
        tenant: str = _TENANT,
        to: str = _TO,
        evidence: str = typer.Option(..., "--evidence", help="Where the consent is on file."),
        as_json: bool = JSON,
    ) -> None:
        """Record that a person agrees that a region holds what is about them."""
        body = {"tenant_id": tenant, "subject_id": person, "to_region": to, "evidence": evidence}
        made = call(cluster(), region, "POST", "/api/v1/consents", zone=zone, body=body)
        emit(made) if as_json else console().print(f"{person} agrees to {to}")

    @app.command()
    def withdraw(
        person: str,
        region: str = _REGION,
        zone: str = _ZONE,
        tenant: str = _TENANT,
        to: str = _TO,
        wait: bool = _WAIT,
        within: float = _WITHIN,
        as_json: bool = JSON,
    ) -> None:
        """Withdraw a consent; that region erases what it held by it and reports."""
        of = cluster()
        body = {"tenant_id": tenant, "subject_id": person, "to_region": to}
        made = call(of, region, "POST", "/api/v1/consents/withdraw", zone=zone, body=body)
        owed = _confirmed(of, region, person, within) if wait else []
        emit({**made, "owed": owed}) if as_json else _print_owed(f"{person} withdrew consent to {to}", owed)


def _subjects(app: typer.Typer) -> None:
    @app.command()
    def erase(
        person: str,
        region: str = _REGION,
        zone: str = _ZONE,
        wait: bool = _WAIT,
        within: float = _WITHIN,
        as_json: bool = JSON,
    ) -> None:
        """Erase everything about a person, everywhere; the id is never used again."""
        of = cluster()
        made = call(of, region, "DELETE", f"/api/v1/subjects/{person}", zone=zone)
        owed = _confirmed(of, region, person, within) if wait else made["owed"]
        count = sum(made["erased"].values())
        emit({**made, "owed": owed}) if as_json else _print_owed(
            f"erased {count} records about {person}", owed
        )

    @app.command()
    def status(person: str, region: str = _REGION, as_json: bool = JSON) -> None:
        """Show which regions had to forget something about a person, and which have confirmed it."""
        owed = call(cluster(), region, "GET", "/api/v1/duties", params={"key": person})
        emit(owed) if as_json else _print_owed(f"owed to {region} about {person}", owed)


def _confirmed(of: Cluster, region: str, key: str, within_s: float) -> list[dict[str, Any]]:
    def owed() -> list[dict[str, Any]] | None:
        found = call(of, region, "GET", "/api/v1/duties", params={"key": key})
        return found if all(d["done_at"] for d in found) else None

    return _until(owed, within_s, "not every region has confirmed")


def _until(look: Any, within_s: float, what: str) -> Any:
    """Look again until there is something; raises UnavailableError, for the act itself stands."""
    deadline_s = time.monotonic() + within_s
    while (found := look()) is None:
        if time.monotonic() > deadline_s:
            raise UnavailableError(
                "not-confirmed",
                f"The act is recorded, but {what} within {within_s:g} s.",
                hint="It goes on by itself; look again with `acgs2 subjects status` or `acgs2 status`.",
            )
        time.sleep(0.05)
    return found


def _print_owed(what: str, owed: list[dict[str, Any]]) -> None:
    console().print(what)
    for duty in owed:
        state = "has not confirmed yet"
        if duty["done_at"]:
            state = f"confirmed after {_epoch_s(duty['done_at']) - _epoch_s(duty['since']):.2f} s"
        console().print(f"  {duty['region']} {duty['entity']}: {state}")


def _instant(text: str) -> str:
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            "time-invalid", f"{text!r} is no date or instant.", hint="For example 2027-07-01."
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _epoch_s(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
