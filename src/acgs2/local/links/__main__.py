"""`python -m acgs2.local.links CONFIG.json`: run the links until told to stop."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import uvloop

from acgs2.errors import AcgsError, InputError, RuntimeFault
from acgs2.local.control import serve
from acgs2.local.links.config import LinksConfig
from acgs2.local.links.line import Line
from acgs2.local.links.relay import Route


class Links:
    """All lines and routes, and what may be done to them."""

    def __init__(self, config: LinksConfig) -> None:
        self._lines: dict[tuple[str, str], Line] = {}
        for link in config.links:
            for a, b in ((link.a, link.b), (link.b, link.a)):
                self._lines[a, b] = Line(
                    link.rtt_ms, link.jitter_ms, link.bandwidth_mbps, link.loss, rng=Random(f"{a}{b}")
                )
        self._routes = [
            Route(r, self.line(r.source, r.target), self.line(r.target, r.source)) for r in config.routes
        ]

    def line(self, a: str, b: str) -> Line:
        """Return the line from a to b; raises InputError `unknown-link`."""
        try:
            return self._lines[a, b]
        except KeyError:
            known = ", ".join(sorted({n for pair in self._lines for n in pair}))
            raise InputError(
                "unknown-link", f"There is no link between {a} and {b}.", hint=f"Regions with links: {known}."
            ) from None

    async def start(self) -> None:
        """Listen on every route; raises RuntimeFault `port-in-use`."""
        for route in self._routes:
            try:
                await route.start()
            except OSError as error:
                spec = route.spec
                raise RuntimeFault(
                    "port-in-use",
                    f"Port {spec.listen_port} for {spec.source} to {spec.target} ({spec.service}) is taken.",
                    hint="Stop what uses it, or choose another local.base_port.",
                    port=spec.listen_port,
                ) from error

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one control request and return its answer."""
        action = request.get("action")
        if action == "status":
            return self.status()
        a, b = str(request.get("a")), str(request.get("b"))
        one_way = bool(request.get("one_way"))
        lines = [self.line(a, b)] if one_way else [self.line(a, b), self.line(b, a)]
        if action == "cut":
            for line in lines:
                line.cut = True
        elif action == "restore":
            for line in (self.line(a, b), self.line(b, a)):
                line.cut, line.factor = False, 1.0
        elif action == "set":
            for line in lines:
                for name in ("factor", "rtt_ms", "jitter_ms", "bandwidth_mbps", "loss"):
                    if name in request:
                        setattr(line, name, None if request[name] is None else float(request[name]))
        else:
            raise InputError(
                "unknown-action", f"There is no action {action!r}.", hint="Use status, cut, restore or set."
            )
        for route in self._routes:
            if {route.spec.source, route.spec.target} == {a, b}:
                if action == "restore" and request.get("reset"):
                    route.reset()
                route.kick()
        return self.status()

    def status(self) -> dict[str, Any]:
        """Return every line and route as plain values."""
        return {
            "lines": [
                {
                    "from": a,
                    "to": b,
                    "rtt_ms": n.rtt_ms,
                    "factor": n.factor,
                    "jitter_ms": n.jitter_ms,
                    "bandwidth_mbps": n.bandwidth_mbps,
                    "loss": n.loss,
                    "cut": n.cut,
                    "bytes": n.bytes_carried,
                }
                for (a, b), n in sorted(self._lines.items())
            ],
            "routes": [
                {**msgspec.to_builtins(r.spec), "connections": r.connections, "accepted": r.accepted}
                for r in self._routes
            ],
        }


async def run(config: LinksConfig) -> None:
    """Run until SIGTERM or SIGINT."""
    links = Links(config)
    await links.start()

    async def handle(request: dict[str, Any]) -> dict[str, Any]:
        return links.handle(request)

    server = await serve(config.control_port, config.token, handle)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    server.close()


def main() -> int:
    """Run the links; returns the exit status."""
    try:
        config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=LinksConfig)
        uvloop.run(run(config))
    except AcgsError as error:
        print(json.dumps(error.as_dict()), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
