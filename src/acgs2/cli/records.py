"""`acgs2 tenants|users|agents`: one set of commands for every kind of record, from its declaration."""

from __future__ import annotations

import json
from typing import Any

import typer

from acgs2.cli.shared import JSON, call, cluster, console, emit, table
from acgs2.errors import InputError

_REGION = typer.Option(..., "--region", help="The region to ask.")
_ZONE = typer.Option(..., "--zone", help="The zone of the data.")
_FIELDS = typer.Argument(
    None, metavar="FIELD=VALUE...", help="Fields; a value that is JSON is taken as JSON."
)


def app_for(name: str) -> typer.Typer:
    """Return the sub-commands for one kind of record."""
    path = f"/api/v1/{name}"
    app = typer.Typer(no_args_is_help=True, help=f"List, show, create, change and erase {name}.")

    @app.command("list")
    def list_(
        region: str = _REGION,
        tenant: str = typer.Option("", "--tenant"),
        limit: int = typer.Option(50, "-n"),
        as_json: bool = JSON,
    ) -> None:
        """List records that a region holds."""
        params = {"limit": limit} | ({"tenant": tenant} if tenant else {})
        items = call(cluster(), region, "GET", path, params=params)["items"]
        if as_json:
            emit(items)
            return
        shown = table(f"{name} in {region}", "id", "zone", "name", "held in", "updated in")
        for item in items:
            shown.add_row(
                item["id"],
                item["zone"],
                str(item.get("name") or item.get("display_name") or "-"),
                ", ".join(item["residency"]),
                item["updated_in"],
            )
        console().print(shown)

    @app.command()
    def show(record: str, region: str = _REGION, as_json: bool = JSON) -> None:
        """Show one record."""
        _print(call(cluster(), region, "GET", f"{path}/{record}"), as_json)

    @app.command()
    def create(
        fields: list[str] = _FIELDS,
        region: str = _REGION,
        zone: str = _ZONE,
        key: str = typer.Option("", "--idempotency-key"),
        as_json: bool = JSON,
    ) -> None:
        """Create a record."""
        headers = {"idempotency-key": key} if key else {}
        _print(call(cluster(), region, "POST", path, zone=zone, body=_body(fields), headers=headers), as_json)

    @app.command()
    def change(
        record: str,
        fields: list[str] = _FIELDS,
        region: str = _REGION,
        zone: str = _ZONE,
        if_match: str = typer.Option("", "--if-match"),
        as_json: bool = JSON,
    ) -> None:
        """Change a record; sets take {"add": [], "remove": []}, counters {"increment": n}."""
        headers = {"if-match": if_match} if if_match else {}
        _print(
            call(
                cluster(), region, "PATCH", f"{path}/{record}", zone=zone, body=_body(fields), headers=headers
            ),
            as_json,
        )

    @app.command()
    def erase(record: str, region: str = _REGION, zone: str = _ZONE, as_json: bool = JSON) -> None:
        """Erase a record everywhere; its id is never used again."""
        call(cluster(), region, "DELETE", f"{path}/{record}", zone=zone)
        emit({"erased": record}) if as_json else console().print(f"erased {record}")

    if name == "tenants":

        @app.command()
        def move(
            tenant: str,
            region: str = typer.Option(..., "--region", help="A region that may hold both zones."),
            to_zone: str = typer.Option(..., "--to-zone", help="The zone where it shall belong."),
            as_json: bool = JSON,
        ) -> None:
            """Move a tenant and all that is its own to another zone; regions of the old zone forget it."""
            made = call(cluster(), region, "POST", f"{path}/{tenant}/move", body={"to_zone": to_zone})
            emit(made) if as_json else console().print(f"moved {tenant} to {to_zone}")

    return app


def _body(fields: list[str] | None) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for field in fields or []:
        name, equals, value = field.partition("=")
        if not equals:
            raise InputError(
                "field-invalid", f"{field!r} is not FIELD=VALUE.", hint='For example name="Acme".'
            )
        try:
            body[name] = json.loads(value)
        except ValueError:
            body[name] = value
    return body


def _print(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit(record)
        return
    for name, value in record.items():
        console().print(f"[bold]{name:<16}[/] {value}", markup=True)
