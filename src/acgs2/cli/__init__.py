"""The command line: one module per command, found when it is called, so that --help answers at once."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import typer.main
from typer import Typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["main"]

#: Command, the module that has it, and what it is for. Adding a command is adding a line.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Bring up regions, write everywhere, cut links, kill one; show what is where."),
    "drill": ("drill", "Break a region under load; see what clients see, and what was lost: nothing."),
    "up": ("up", "Bring the regions of a topology up on this machine, or go on with them."),
    "down": ("down", "Stop every process of a cluster."),
    "status": ("status", "Show regions, links, zones and where their data is."),
    "logs": ("logs", "Show what the processes of a cluster logged."),
    "traffic": ("traffic", "Show where requests go, by place and zone; share and drain regions."),
    "topology": ("topology", "Check and show topology files."),
    "policy": ("policy", "Check, test, explain and compare policies."),
    "dns": ("dns", "Show and carry out the route plan as records of Amazon Route 53."),
    "failover": ("failover", "Show plans; leave a region for lawful ones, step by step."),
    "failback": ("failover", "Bring a region back, share by share."),
    "chaos": ("chaos", "Cut and slow links; kill, freeze and thaw regions."),
    "certificates": (
        "certificates",
        "Show and rotate the certificates of a local cluster and its authority.",
    ),
    "token": ("token", "Make a short-lived token for the API of a local cluster."),
    "tenants": ("records", "List, show, create, change and erase tenants."),
    "users": ("records", "List, show, create, change and erase users."),
    "agents": ("records", "List, show, create, change and erase agents."),
    "messages": ("messages", "Send messages as an agent, take an agent's, and see what became of one."),
    "deliberations": ("deliberations", "See held messages, and approve or deny them."),
    "transfers": ("rights", "Register, revoke and list permissions for a zone's data to be elsewhere."),
    "consents": ("rights", "Record and withdraw what a person agrees to; list consents."),
    "subjects": ("rights", "Erase everything about a person; see who still has to confirm."),
    "constitution": ("constitution", "Show, amend and compare the constitution in force."),
    "policies": ("policies", "Show and replace the policies in force: the platform's, or a tenant's."),
    "halt": ("halt", "Halt an agent, a tenant, or everything, in all regions."),
    "halts": ("halt", "List the halts in force."),
    "resume": ("halt", "Ask that a halt ends; it takes two operators."),
    "quarantine": ("quarantine", "See, retry and give up rows that could not be merged."),
    "repair": ("repair", "Compare a region with its peers by ranges, and repair what differs."),
    "audit": ("audit", "Verify, prove, show and export the witnessed audit log of a region."),
    "inbox": ("inbox", "See inboxes, what was given up, and which region serves a zone."),
    "conflicts": ("conflicts", "Show the losing sides of concurrent changes."),
    "lag": ("lag", "Show how far regions are behind each other, beside the distance between them."),
    "latency": ("latency", "Measure how long clients of each place wait, beside the distance they are from."),
}


class _Lazy(TyperGroup):
    _listing = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if self._listing:
            # Listing commands needs their help only, not what they import.
            return TyperCommand(cmd_name, short_help=COMMANDS[cmd_name][1], help=COMMANDS[cmd_name][1])
        module = importlib.import_module(f"acgs2.cli.{COMMANDS[cmd_name][0]}")
        app: Typer = module.app_for(cmd_name) if hasattr(module, "app_for") else module.app
        command = typer.main.get_command(app)
        command.name = cmd_name
        command.help = command.help or COMMANDS[cmd_name][1]
        return command


app = Typer(
    cls=_Lazy,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        import acgs2

        print(f"acgs2 {acgs2.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    state: str = typer.Option(
        "", "--state", metavar="DIR", help="State directory; also by the variable ACGS2_STATE."
    ),
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Run AI agents under governance in many regions, and prove where their data is.

    Start with `acgs2 drill`. Every command takes --help; what a script would read takes --json.
    Exit status: 0 done, 1 failed or findings, 2 wrong input, 3 refused, 4 try again,
    5 the cluster is not well.
    """
    if state:
        os.environ["ACGS2_STATE"] = state


def main() -> None:
    """Run the command line."""
    from acgs2.errors import AcgsError

    try:
        app(prog_name="acgs2")
    except AcgsError as error:
        from acgs2.cli.shared import report

        report(error, as_json="--json" in sys.argv)
        if os.environ.get("ACGS2_DEBUG"):
            raise
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
