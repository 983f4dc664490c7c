"""The Litestar application of one region."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from litestar import Litestar, Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

import acgs2
from acgs2.api.audit import HANDLERS as AUDIT
from acgs2.api.audit_log import run_audit
from acgs2.api.audited import run_refusals
from acgs2.api.constitution import HANDLERS as CONSTITUTION
from acgs2.api.controller import Controller, run_controller
from acgs2.api.deciding import run_deciding
from acgs2.api.deliberation_events import HANDLERS as DELIBERATION_EVENTS
from acgs2.api.deliberations import HANDLERS as DELIBERATIONS
from acgs2.api.failover import HANDLERS as FAILOVER
from acgs2.api.governance import run_governance
from acgs2.api.halts import HANDLERS as HALTS
from acgs2.api.health import HANDLERS as HEALTH
from acgs2.api.inbox_duty import run_inboxes
from acgs2.api.inbox_streams import HANDLERS as INBOX_STREAMS
from acgs2.api.inboxes import HANDLERS as INBOXES
from acgs2.api.links import run_links
from acgs2.api.looks import HANDLERS as METRICS
from acgs2.api.message_door import Rendered
from acgs2.api.messages import with_messages
from acgs2.api.observe import observed
from acgs2.api.observers import HANDLERS as OBSERVATIONS
from acgs2.api.observers import run_observers
from acgs2.api.operations import HANDLERS as OPERATIONS
from acgs2.api.pairs import run_pairs
from acgs2.api.policies import ACTS as POLICIES
from acgs2.api.problems import HANDLERS as PROBLEMS
from acgs2.api.quarantine import HANDLERS as QUARANTINE
from acgs2.api.region import RegionServer
from acgs2.api.repair import HANDLERS as REPAIR
from acgs2.api.repair import run_repair
from acgs2.api.rights import ACTS
from acgs2.api.rights import HANDLERS as RIGHTS
from acgs2.api.routes import router_of
from acgs2.api.standing import run_standing
from acgs2.api.tasks import run_committer, run_leader, run_mender, run_tasks
from acgs2.api.trace import ACTS as TRACE
from acgs2.api.traffic import HANDLERS as TRAFFIC
from acgs2.api.voters import HANDLERS as VOTERS
from acgs2.api.witness import run_witness
from acgs2.api.worker import run_worker
from acgs2.consensus import EtcdRegister
from acgs2.logs.write import get_logger
from acgs2.model import entities

__all__ = ["create_app"]

_LOG = get_logger("acgs2.api")
#: After how long a duty that failed is begun anew.
_ANEW_S = 1.0
#: A record is at most 256 KiB; the rest is what surrounds it.
_BODY_BYTES = 300 * 1024


#: What a region does unasked, each until it stops.
_DUTIES = (
    run_links,
    run_tasks,
    run_worker,
    run_pairs,
    run_repair,
    run_leader,
    run_mender,
    run_standing,
    run_controller,
    run_observers,
    run_governance,
    run_committer,
    run_audit,
    run_witness,
    run_refusals,
    run_inboxes,
    run_deciding,
)


async def _kept(duty: Callable[[RegionServer], Awaitable[None]], server: RegionServer) -> None:
    """Do a duty until cancelled; what nobody foresaw is logged whole, and the duty begun anew."""
    while True:
        try:
            await duty(server)
        except Exception:  # noqa: BLE001 - the edge of a duty: ending silently would be worse than any error
            _LOG.exception("duty-failed", duty=getattr(duty, "__name__", str(duty)))
        await asyncio.sleep(_ANEW_S)


def create_app(server: RegionServer) -> Litestar:
    """Return the application of a region; its lifespan opens pool and watcher and does the duties."""
    server.controller = Controller(server)

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await server.pool.open(wait=False)
        await server.watcher.start()
        running = [asyncio.create_task(_kept(duty, server)) for duty in _DUTIES]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await server.facts.close()
            await server.peers.close()
            await server.neighbours.close()
            if isinstance(server.register, EtcdRegister):
                await server.register.close()
            for voter in server.voters.values():
                await voter.close()
            await server.watcher.stop()
            await server.pool.close(timeout=2)
            await asyncio.to_thread(server.tracing.close)

    application = Litestar(
        route_handlers=[
            *OPERATIONS,
            *HEALTH,
            *OBSERVATIONS,
            *METRICS,
            *RIGHTS,
            *REPAIR,
            *QUARANTINE,
            *VOTERS,
            *TRAFFIC,
            *FAILOVER,
            *HALTS,
            *CONSTITUTION,
            *INBOXES,
            *INBOX_STREAMS,
            *DELIBERATIONS,
            *DELIBERATION_EVENTS,
            *AUDIT,
            Router(
                "/api/v1",
                route_handlers=[
                    router_of(e, {**ACTS, **POLICIES, **TRACE}.get(e.name, [])) for e in entities().values()
                ],
            ),
        ],
        exception_handlers=PROBLEMS,
        lifespan=[lifespan],
        logging_config=None,  # it would put its own handlers in place of ours
        request_max_body_size=_BODY_BYTES,
        openapi_config=OpenAPIConfig(
            title="ACGS-2",
            version=acgs2.__version__,
            use_handler_docstrings=True,
            components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"bearer": []}],
            path="/api/schema",
            render_plugins=[Rendered()],
        ),
    )
    application.state.server = server
    # Outside of everything: what has no route, or is refused before one is found, is counted too.
    handle = with_messages(application.asgi_handler, server)
    application.asgi_handler = observed(handle, server.metrics, server.tracing, server.refusals, server.tally)
    return application
