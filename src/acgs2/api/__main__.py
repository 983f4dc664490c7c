"""`python -m acgs2.api CONFIG.json`: serve one region until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

import msgspec
import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server

from acgs2.api.app import create_app
from acgs2.api.region import Config, RegionServer
from acgs2.topology import load


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT."""
    app = create_app(RegionServer(config, load(config.topology)))
    server = Server(
        app,
        address="127.0.0.1",
        port=config.listen_port,
        interface=Interfaces.ASGI,
        log_access=False,
        websockets=False,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.stop)
    await server.serve()


def main() -> int:
    """Run the server of the configuration file named by the first argument."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Config)
    uvloop.run(serve(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
