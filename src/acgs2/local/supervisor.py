"""`python -m acgs2.local.supervisor STATE`: owns every process of a local cluster, until told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from acgs2.errors import AcgsError, InputError, RuntimeFault
from acgs2.local import front
from acgs2.local.bringup import Bringup
from acgs2.local.child import Child
from acgs2.local.control import serve
from acgs2.local.state import State, open_state
from acgs2.logs.write import configure, get_logger

_LOG = get_logger("acgs2.supervisor")
_RENEW_S = 6 * 3600
_BACKOFF_S = (0.2, 0.5, 1, 2, 5)


class Supervisor:
    """The children of one cluster, and what may be asked of them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._bringup = Bringup(state)
        self._stop = asyncio.Event()
        self._watchers: list[asyncio.Task[None]] = []
        self._front: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Bring everything up, answer requests, and stop everything at the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        server = await serve(self._state.ports["supervisor"], self._state.secrets["supervisor"], self._answer)
        self._bringup.on_start = self._watch
        bringing = asyncio.create_task(self._bringup.run())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({bringing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        self._front = asyncio.create_task(self._keep_front())
        renewing = asyncio.create_task(self._renew())
        if bringing.done() and bringing.exception() is not None:
            self._fail(bringing.exception())
        await stopping
        bringing.cancel()
        renewing.cancel()
        if self._front is not None:
            self._front.cancel()
        for task in self._watchers:
            task.cancel()
        # Clients first, so that no request is cut off by its database; what carries the databases' last words
        # to each other comes after them.
        for component in ("edge", "server", "postgres", "gateway", "links"):
            await asyncio.gather(*(c.stop() for c in self._bringup.children if c.component == component))
        server.close()

    async def _renew(self) -> None:
        """Replace certificates before they end, however long the cluster runs."""
        while True:
            await asyncio.sleep(_RENEW_S)
            try:
                await asyncio.to_thread(self._bringup.proxies.certify)
            except (AcgsError, OSError):
                _LOG.exception("certificates-not-renewed")

    async def _keep_front(self) -> None:
        """Keep the edge to what is lawful, as long as there is one."""
        while True:
            try:
                if self._state.topology.places:
                    await front.keep(self._bringup.proxies, self._state)
            except* (AcgsError, OSError, ValueError):
                _LOG.exception("front-failed")
            await asyncio.sleep(1)

    def _fail(self, error: BaseException | None) -> None:
        _LOG.error("bringing-up-failed", exc_info=error)
        if isinstance(error, AcgsError):
            self._bringup.failure = error.as_dict()
        else:
            self._bringup.failure = {
                "error": "internal",
                "message": repr(error),
                "hint": f"See {self._state.logs / 'supervisor.log'}.",
            }

    def _watch(self, child: Child) -> None:
        self._watchers.append(asyncio.create_task(self._keep(child)))

    async def _keep(self, child: Child) -> None:
        """Start a child again when it ends without having been asked to."""
        while True:
            start = child.starts
            code = await child.wait()
            if not child.wanted or child.starts != start:
                return  # stopped on purpose; whoever starts it again watches it
            child.phase = "crashed"
            _LOG.warning(
                "child-ended",
                region=child.region,
                component=child.component,
                status=code,
                said=child.last_words(),
            )
            await asyncio.sleep(_BACKOFF_S[min(child.restarts, len(_BACKOFF_S) - 1)])
            if not child.wanted:
                return
            child.restarts += 1
            try:
                await self._bringup.again(child)
            except RuntimeFault as error:
                # It ended again, and is waited for and tried again; or it runs and is slow.
                _LOG.warning(
                    "child-not-ready",
                    region=child.region,
                    component=child.component,
                    error=error.reference,
                    message=error.message,
                )

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        action = request.get("action")
        if action == "stop":
            self._stop.set()
        elif action in ("kill", "freeze", "thaw", "start"):
            await self._signal(str(action), str(request.get("region")), str(request.get("component", "all")))
        elif action == "adopt":
            self._state = open_state(self._state.path)
            if self._front is not None:
                self._front.cancel()
            await self._bringup.adopt(self._state)
            self._front = asyncio.create_task(self._keep_front())
        elif action == "retire":
            await self._bringup.retire(str(request.get("region")))
        elif action != "status":
            raise InputError("unknown-action", f"There is no action {action!r}.")
        return self._bringup.status()

    async def _signal(self, action: str, region: str, component: str) -> None:
        chosen = [
            c for c in self._bringup.children if c.region == region and component in ("all", c.component)
        ]
        if not chosen:
            raise InputError(
                "unknown-region",
                f"There is no region {region} with a component {component}.",
                hint=f"Regions: {', '.join(self._state.topology.regions)}.",
            )
        if action == "kill":
            await asyncio.gather(*(c.kill() for c in chosen))
        for child in chosen:
            if action == "freeze":
                child.freeze()
            elif action == "thaw":
                child.thaw()
            elif action == "start" and child.pid is None:
                await self._bringup.again(child)
                self._watch(child)


def main() -> int:
    """Run the supervisor of the state directory named by the first argument."""
    configure("supervisor")
    asyncio.run(Supervisor(open_state(Path(sys.argv[1]))).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
