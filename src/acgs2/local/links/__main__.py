"""`python -m acgs2.local.links CONFIG.json`: run the links until told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterable
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
from acgs2.logs.write import configure, get_logger

_LOG = get_logger("acgs2.local.links")
#: What of a line can be set.
_SETTINGS = ("factor", "rtt_ms", "jitter_ms", "bandwidth_mbps", "loss")


class Links:
    """All lines and routes, and what may be done to them."""

    def __init__(self, config: LinksConfig) -> None:
        self._lines: dict[tuple[str, str], Line] = {}
        self._routes: list[Route] = []
        self._new(config)

    def _new(self, config: LinksConfig) -> list[Route]:
        """Make the lines and routes that there are not yet, and return those routes."""
        for link in config.links:
            for a, b in ((link.a, link.b), (link.b, link.a)):
                if (a, b) not in self._lines:
                    self._lines[a, b] = Line(
                        link.rtt_ms, link.jitter_ms, link.bandwidth_mbps, link.loss, rng=Random(f"{a}{b}")
                    )
        have = {route.spec for route in self._routes}
        made = [
            Route(r, self.line(r.source, r.target), self.line(r.target, r.source))
            for r in config.routes
            if r not in have
        ]
        self._routes += made
        return made

    async def configure(self, config: LinksConfig) -> dict[str, Any]:
        """Go by a changed configuration: new routes listen, those that are gone end; the others go on."""
        gone = [route for route in self._routes if route.spec not in config.routes]
        self._routes = [route for route in self._routes if route not in gone]
        for route in gone:
            route.close()
        kept = {(r.source, r.target) for r in config.routes}
        self._lines = {ends: line for ends, line in self._lines.items() if ends in kept}
        await self._listen(self._new(config))
        return self.status()

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
        await self._listen(self._routes)

    async def _listen(self, routes: Iterable[Route]) -> None:
        for route in routes:
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
                for name in _SETTINGS:
                    if name in request:
                        setattr(line, name, None if request[name] is None else float(request[name]))
        else:
            raise InputError(
                "unknown-action",
                f"There is no action {action!r}.",
                hint="Use status, cut, restore, set or configure.",
            )
        given = {name: request[name] for name in (*_SETTINGS, "one_way", "reset") if name in request}
        _LOG.info(f"link-{action}", a=a, b=b, **given)
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


async def run(path: Path) -> None:
    """Run by a configuration file until SIGTERM or SIGINT."""
    config = _read(path)
    links = Links(config)
    await links.start()
    _LOG.info("links-up", routes=len(config.routes))

    async def handle(request: dict[str, Any]) -> dict[str, Any]:
        if request.get("action") == "configure":
            return await links.configure(_read(path))
        return links.handle(request)

    server = await serve(config.control_port, config.token, handle)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    server.close()


def _read(path: Path) -> LinksConfig:
    return msgspec.json.decode(path.read_bytes(), type=LinksConfig)


def main() -> int:
    """Run the links; returns the exit status."""
    configure("links")
    try:
        uvloop.run(run(Path(sys.argv[1])))
    except AcgsError as error:
        _LOG.critical("failed", **error.as_dict())
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
