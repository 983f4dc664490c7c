"""`python -m acgs2.api CONFIG.json`: serve one region until told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

import acgs2
from acgs2.api.app import create_app
from acgs2.api.region import Config, RegionServer
from acgs2.logs.write import configure, get_logger
from acgs2.topology import load

_LOG = get_logger("acgs2.server")
#: granian installs handlers of its own, that print; its records shall go where all others go.
_GRANIAN_LOGS: dict[str, Any] = {
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"propagate": True}},
}


#: Connections that wait to be taken, and that are open at once. Agents that wait for messages keep theirs;
#: what is too much is refused by what is asked, with a reason, never by letting a connection hang.
_BACKLOG = 1024
_CONNECTIONS = 8192


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT."""
    asyncio.get_running_loop().set_exception_handler(_task_failed)
    app = create_app(RegionServer(config, load(config.topology)))
    server = Server(
        app,
        address="127.0.0.1",
        port=config.listen_port,
        interface=Interfaces.ASGI,
        log_access=False,
        log_dictconfig=_GRANIAN_LOGS,
        log_level=LogLevels.warning,
        backlog=_BACKLOG,
        backpressure=_CONNECTIONS,
        websockets=True,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.stop)
    _LOG.info("serving", port=config.listen_port, version=acgs2.__version__, traces=config.otlp is not None)
    await server.serve()
    _LOG.info("stopped")


def _task_failed(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _LOG.error("task-failed", exc_info=context.get("exception"))


def main() -> int:
    """Run the server of the configuration file named by the first argument."""
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Config)
    configure("server", region=config.region, wordless=True)
    uvloop.run(serve(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
