"""What commands share: printing, the cluster they speak to, and requests to its regions."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from acgs2.errors import AcgsError, ForbiddenError, InputError, RefusedError, UnavailableError

if TYPE_CHECKING:
    import httpx

    from acgs2.local.cluster import Cluster

__all__ = [
    "JSON",
    "any_region",
    "call",
    "call_any",
    "cluster",
    "console",
    "emit",
    "minted",
    "operator_token",
    "report",
    "seen",
    "state_path",
    "table",
]

T = TypeVar("T")
#: What every problem document has; the rest is what it is about.
_PROBLEM = ("type", "title", "status", "detail", "hint")
JSON = typer.Option(False, "--json", help="Print JSON.")


def console() -> Console:
    """Return the console: colours and width of a terminal, plain and unwrapped in a pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def emit(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, default=str))


def table(title: str, *columns: str) -> Table:
    """Return an empty table in the house's style."""
    made = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False
    )
    for column in columns:
        right = column.endswith((" ms", "#", "MB"))
        made.add_column(column.removesuffix("#"), justify="right" if right else "left", no_wrap=False)
    return made


def report(error: AcgsError, *, as_json: bool) -> None:
    """Print an error to standard error."""
    if as_json:
        print(json.dumps(error.as_dict(), default=str), file=sys.stderr)
        return
    out = Console(stderr=True, highlight=False)
    out.print(f"[bold red]error:[/] {escape(error.message)}", soft_wrap=True)
    if error.hint:
        out.print(f"[bold]hint:[/] {escape(error.hint)}", soft_wrap=True)


def state_path() -> Path | None:
    """Return the state directory that the caller named, if any."""
    given = os.environ.get("ACGS2_STATE")
    return Path(given).absolute() if given else None


def cluster() -> Cluster:
    """Return the cluster that commands speak to."""
    from acgs2.local.cluster import Cluster

    return Cluster.open(state_path())


def operator_token(of: Cluster, subject: str = "operator@cli") -> str:
    """Return an operator's token for a local cluster."""
    return minted(of, subject, "operator")


def minted(of: Cluster, subject: str, role: str, tenant: str = "") -> str:
    """Return a token for a local cluster, in somebody's name."""
    from acgs2.api.tokens import mint

    key = of.state.path / "secrets" / "signing.json"
    return mint(key, subject, role, of.state.topology.name, int(time.time()), tenant=tenant or None)


def call(
    of: Cluster,
    region: str,
    method: str,
    path: str,
    *,
    zone: str | None = None,
    body: Any = None,
    headers: dict[str, str] | None = None,
    params: dict[str, Any] | None = None,
    timeout_s: float = 15,
    subject: str = "operator@cli",
) -> Any:
    """Send a request to a region's API, as an operator of that name, and return its JSON.

    Raises:
        AcgsError: the region is unknown or away, or its answer is a problem.
    """
    answer = _sent(of, region, method, path, zone, body, headers or {}, params, timeout_s, subject)
    return answer.json() if answer.content else {}


def seen(of: Cluster, region: str, path: str) -> tuple[Any, str]:
    """Return what a region shows and which version of it that is; raises as `call` does."""
    answer = _sent(of, region, "GET", path, None, None, {}, None, 15, "operator@cli")
    return answer.json(), answer.headers.get("etag", "").strip('"')


def any_region(of: Cluster, region: str, ask: Callable[[str], T]) -> T:
    """Return what a region answers, or the first that can answer where none is named.

    Raises:
        AcgsError: the answer is a problem, or no region answers.
    """
    away: UnavailableError | None = None
    for each in [region] if region else of.state.topology.regions:
        try:
            return ask(each)
        except UnavailableError as error:
            away = error
    assert away is not None
    raise away


def call_any(of: Cluster, region: str, method: str, path: str, **rest: Any) -> Any:
    """Send a request as `call` does, to each region in turn until one can answer where none is named."""
    return any_region(of, region, lambda each: call(of, each, method, path, **rest))


def _sent(
    of: Cluster,
    region: str,
    method: str,
    path: str,
    zone: str | None,
    body: Any,
    headers: Mapping[str, str],
    params: Mapping[str, Any] | None,
    timeout_s: float,
    subject: str,
) -> httpx.Response:
    import httpx

    from acgs2.local.loopback import loopback

    if region not in of.state.topology.regions:
        raise InputError(
            "region-unknown",
            f"There is no region {region}.",
            hint=f"Regions: {', '.join(of.state.topology.regions)}.",
        )
    sent = {"authorization": f"Bearer {operator_token(of, subject)}", **headers}
    if zone:
        sent["x-data-sovereignty"] = zone
    try:
        answer = loopback().request(
            method, of.state.url(region) + path, headers=sent, json=body, params=params, timeout=timeout_s
        )
    except httpx.HTTPError as error:
        raise UnavailableError(
            "region-away", f"{region} does not answer: {error}.", hint="See `acgs2 status`."
        ) from error
    if answer.status_code < 400:
        return answer
    content = answer.json() if answer.content else {}
    kinds: dict[int, type[AcgsError]] = {400: InputError, 403: ForbiddenError, 503: UnavailableError}
    reference = str(content.get("type", "")).rpartition("/")[2] or "failed"
    hint = content.get("hint", "")
    if content.get("endpoints"):
        hint = f"Lawful: {', '.join(e['region'] for e in content['endpoints'])}; name one with --region."
    context = {name: value for name, value in content.items() if name not in _PROBLEM}
    raise kinds.get(answer.status_code, RefusedError)(
        reference, content.get("detail", ""), hint=hint, **context
    )
