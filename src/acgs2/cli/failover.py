"""`acgs2 failover` and `acgs2 failback`: plans as they would be, as they go on, and as they ended."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from acgs2.cli.shared import JSON, any_region, call, cluster, console, emit, table
from acgs2.errors import InputError, RuntimeFault, UnavailableError

if TYPE_CHECKING:
    from acgs2.local.cluster import Cluster

_DRY = typer.Option(False, "--dry-run", help="Only say what would be done, and why.")
_CLOUD = typer.Option(
    "",
    "--cloud",
    metavar="FILE",
    help="With --dry-run: a cloud.yaml whose every call is shown.",
)
_WAIT = typer.Option(True, "--wait/--no-wait", help="Show each step as it is done, until the plan is over.")
_POLL_S = 0.3
#: How long a region may take to say what it knows.
_ASK_S = 3
#: For how long regions that answer may not know of a plan that was begun: those that do may be busy.
_FORGOTTEN_S = 15.0


def app_for(name: str) -> typer.Typer:
    """Return the command of that name."""
    app = typer.Typer()
    app.command(name)({"failover": failover, "failback": failback}[name])
    return app


def failover(
    region: str = typer.Argument("", metavar="[REGION]", help="The region to leave; none shows all plans."),
    dry_run: bool = _DRY,
    cloud: str = _CLOUD,
    wait: bool = _WAIT,
    as_json: bool = JSON,
) -> None:
    """Leave a region: fence it, move each zone to a lawful region, and verify each through the edge.

    Without a region: what is held of every region, open plans, and the last ones. Regions that a majority
    sees fail are left without being asked for. Where the law leaves no region for a zone, the zone stops and
    says so. Exit status 1 when the plan was stopped.
    """
    if not region:
        _show(as_json)
        return
    _begin("failover", region, dry_run, cloud, wait, as_json)


def failback(
    region: str = typer.Argument(..., metavar="REGION", help="The region to bring back."),
    dry_run: bool = _DRY,
    cloud: str = _CLOUD,
    wait: bool = _WAIT,
    as_json: bool = JSON,
) -> None:
    """Bring a region back: 10, 25, 50, 75, 100 % of what is its own, each gated on how the last one went.

    A region that is well again is brought back without being asked for, unless an operator has left it, its
    last failback was stopped while it was up, or failover.automatic is false. Exit status 1 when the plan was
    stopped.
    """
    _begin("failback", region, dry_run, cloud, wait, as_json)


def _begin(kind: str, region: str, dry_run: bool, cloud: str, wait: bool, as_json: bool) -> None:
    found = cluster()
    if cloud and not dry_run:
        raise InputError(
            "cloud-without-dry-run",
            "Regions act on the cloud by themselves: --cloud only shows what they would do.",
            hint="Add --dry-run, or give regions the file in their configuration.",
        )
    leader = _state(found)["leader"] or ""
    path = f"/api/v1/{kind}/{region}"
    params: dict[str, Any] | None = {"dry_run": "true"} if dry_run else None
    if params and cloud and kind == "failover":
        params["outside"] = ["capacity", "mesh", "database"]
    begun = any_region(found, leader, lambda each: call(found, each, "POST", path, params=params))
    plan = begun["plan"]
    if cloud:
        begun["calls"] += _rehearsed(found, cloud, plan)
    if dry_run or not wait:
        if as_json:
            emit(begun)
        else:
            _tell(plan)
            for line in begun["calls"]:
                console().print(f"  [dim]{line}[/]")
            console().print("Nothing was done." if dry_run else f"Begun: plan {plan['id']}.")
        return
    if not as_json:
        _tell(plan)
    ended = _follow(found, plan, quiet=as_json)
    if as_json:
        emit(ended)
    if ended["state"] != "closed":
        raise typer.Exit(1)


def _rehearsed(found: Cluster, file: str, shown: dict[str, Any]) -> list[str]:
    """Return every call that a plan would make in the cloud, step by step; raises InputError."""
    import asyncio

    import msgspec

    from acgs2.api.actors import acted
    from acgs2.drivers.actors import cloud_actors
    from acgs2.drivers.cloud import load
    from acgs2.plan import Plan, agreed_of, rights_of

    plan = msgspec.convert(shown, Plan)
    agreed = agreed_of(_state(found)["agreed"])
    topology, rights = found.state.topology, rights_of(found.state.topology, datetime.now(UTC))
    actors = cloud_actors(topology, load(file), agreed=lambda: agreed.opened(plan), rights=lambda: rights)
    calls: list[str] = []
    for step, as_shown in zip(plan.steps, shown["steps"], strict=True):
        lines = asyncio.run(acted(actors, plan, step, dry_run=True))
        calls += [f"{_step(as_shown)}: {line}" for line in lines]
    return calls


def _follow(found: Cluster, plan: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Show each step as it is done, and return the plan once it is over."""
    shown, out, known_s = 0, console(), time.monotonic()
    while True:
        agreed = _state(found)["agreed"]
        now = agreed["plans"].get(plan["region"])
        if now is None or now["id"] != plan["id"]:
            now = next((each for each in agreed["closed"] if each["id"] == plan["id"]), None)
        if now is None:
            if time.monotonic() > known_s + _FORGOTTEN_S:
                raise RuntimeFault(
                    "plan-unknown", "The plan is not known any more.", hint="See `acgs2 failover`."
                )
            time.sleep(_POLL_S)
            continue
        known_s = time.monotonic()
        for note in now["notes"][shown:]:
            if not quiet:
                took_s = (note["at_us"] - now["begun_us"]) / 1e6
                mark = "[green]done[/]   " if note["good"] else "[red]stopped[/]"
                out.print(f"{took_s:6.1f} s  {mark} {_step(now['steps'][note['step']])}: {note['said']}")
        shown = len(now["notes"])
        if now["state"] != "open":
            return now
        time.sleep(_POLL_S)


def _state(found: Cluster) -> dict[str, Any]:
    """Return the newest that regions know to be agreed, and what the one that leads holds of them.

    All are asked: one that is cut off answers too, by what it heard last.
    """
    known: list[dict[str, Any]] = []
    away: UnavailableError | None = None

    def ask(region: str) -> dict[str, Any]:
        return call(found, region, "GET", "/api/v1/failover", timeout_s=_ASK_S)  # type: ignore[no-any-return]

    with ThreadPoolExecutor(len(found.state.topology.regions)) as pool:
        for asked in [pool.submit(ask, region) for region in found.state.topology.regions]:
            try:
                known.append(asked.result())
            except UnavailableError as error:
                away = error
    if not known:
        assert away is not None
        raise away
    newest = max(known, key=lambda each: each["version"])
    leads = max((each for each in known if each["judged"]), key=lambda each: each["term"], default=newest)
    return leads | {"version": newest["version"], "agreed": newest["agreed"]}


def _show(as_json: bool) -> None:
    from acgs2.plan import agreed_of

    state = _state(cluster())
    if as_json:
        emit(state)
        return
    agreed, out = state["agreed"], console()
    shares = agreed_of(agreed).shares
    shown = table("Regions", "region", "held to be", "traffic", "why")
    colours = {"up": "green", "down": "red", "unsure": "yellow"}
    for region, judged in sorted(state["judged"].items()):
        taking = f"{shares.weights.get(region, 100)} %"
        if region in shares.down:
            taking = "none" if region in agreed["traffic"]["down"] else "none, drained"
        state_of = judged["state"]
        shown.add_row(region, f"[{colours[state_of]}]{state_of}[/]", taking, judged.get("why", ""))
    out.print(shown)
    out.print(f"{state['leader'] or 'nobody'} leads, in term {state['term']}.")
    for plan in agreed["plans"].values():
        out.print()
        _tell(plan)
        if waits := state["waits_for"].get(plan["region"]):
            out.print(f"  waits: {waits}")
    past = agreed["closed"][-5:]
    if past:
        out.print()
        done = table("Past plans", "begun", "plan", "ended", "took s", "why")
        for plan in past:
            begun = datetime.fromtimestamp(plan["begun_us"] / 1e6, UTC).strftime("%H:%M:%S")
            took_s = (plan["notes"][-1]["at_us"] - plan["begun_us"]) / 1e6 if plan["notes"] else 0.0
            colour = "green" if plan["state"] == "closed" else "red"
            why = plan["why"] or plan["cause"]
            done.add_row(
                begun,
                f"{plan['kind']} {plan['region']}",
                f"[{colour}]{plan['state']}[/]",
                f"{took_s:.1f}",
                why,
            )
        out.print(done)


def _tell(plan: dict[str, Any]) -> None:
    """Print a plan: why, where each zone goes and why there, and its steps."""
    out = console()
    out.print(f"[bold]{plan['kind']} of {plan['region']}[/]: {plan['cause']}")
    for choice in plan["choices"]:
        target = choice["target"] or "[red]no lawful target: the zone answers 503[/]"
        out.print(f"  zone {choice['zone']} goes to {target}")
        for each in choice["candidates"]:
            mark = "[green]+[/]" if each["chosen"] else "-"
            out.print(f"    {mark} {each['region']}: {each['why']}")
    done = len([note for note in plan["notes"] if note["good"]])
    for number, step in enumerate(plan["steps"]):
        mark = "[green]x[/]" if number < done else " "
        out.print(f"  {mark} {number + 1:2}. {_step(step)}")


def _step(step: dict[str, Any]) -> str:
    words = [step["kind"]]
    if step.get("zone"):
        words.append(f"zone {step['zone']}")
    if step.get("target"):
        words.append(f"in {step['target']}")
    if step.get("value"):
        words.append(f"{step['value']}" + (" %" if step["kind"] in ("weight", "gate") else " nodes"))
    return " ".join(words)
