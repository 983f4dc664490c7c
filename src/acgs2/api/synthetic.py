"""A client's write and read, made by the region that leads: what tells that a zone is really served."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from acgs2.api.door import PREFERENCE_HEADER, ZONE_HEADER
from acgs2.api.tokens import CONTROLLER, mint
from acgs2.api.verification import tenant_of
from acgs2.consensus import boottime_s
from acgs2.errors import RefusedError, UnavailableError
from acgs2.plan import Plan, Step

if TYPE_CHECKING:
    from acgs2.api.region import RegionServer

__all__ = ["Synthetic"]

_TRY_S, _ALL_S, _PAUSE_S = 3.0, 5.0, 0.1
_REGION = "x-acgs2-region"
#: What is said of a tenant that was made under a key before, and was erased since.
_ERASED = ("erased", "record-unknown")


class Synthetic:
    """Asks as a client does, through the edge where there is one.

    Args:
        server: the region that asks.
    """

    def __init__(self, server: RegionServer) -> None:
        self._server = server
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._token = ("", 0.0)
        #: How often a zone of a plan was verified with a tenant that was erased since: it is not made again.
        self._erased: Counter[tuple[str, str]] = Counter()

    async def verify(self, plan: Plan, step: Step) -> str:
        """Write and read a record of a zone until that works, and return who answered.

        Where the law leaves nobody, the edge must say so.

        Raises:
            UnavailableError: it did not work for long enough (`not-verified`).
            RefusedError: this region has no key for it (`no-controller-key`).
        """
        if not step.target and not self._server.config.edges:
            return "no lawful target, and no edge that would have to say so"
        deadline_s, why = boottime_s() + _ALL_S, "it was not tried"
        while boottime_s() < deadline_s:
            try:
                done, why = await self._once(plan, step)
                if done:
                    return why
            except (httpx.HTTPError, OSError, ValueError) as error:
                why = f"{type(error).__name__}"
            await asyncio.sleep(_PAUSE_S)
        raise UnavailableError("not-verified", f"Zone {step.zone} could not be verified: {why}.", hint="")

    async def _once(self, plan: Plan, step: Step) -> tuple[bool, str]:
        base, http = self._way(step)
        headers = self._headers() | {ZONE_HEADER: step.zone}
        if plan.kind == "failback":
            headers[PREFERENCE_HEADER] = step.target
        if not step.target:
            answer = await http.get(f"{base}/api/v1/tenants", headers=headers, timeout=_TRY_S)
            problem = _problem(answer)
            return problem == "no-lawful-target", f"{answer.status_code} {problem or 'and no problem'}"
        # One record for a plan and zone at a time; who repeats a create finds it.
        number = self._erased[plan.id, step.zone]
        named = tenant_of(step.zone)
        made = await http.post(
            f"{base}/api/v1/tenants",
            json=named,
            headers=headers | {"idempotency-key": f"verify-{plan.id}-{step.zone}-{number}"},
            timeout=_TRY_S,
        )
        if made.status_code not in (200, 201):
            self._erased[plan.id, step.zone] += _problem(made) in _ERASED
            return False, f"{made.status_code} {_problem(made)} to a write"
        by = made.headers.get(_REGION, "?")
        key = made.json()["id"]
        read = await http.get(f"{base}/api/v1/tenants/{key}", headers=headers, timeout=_TRY_S)
        if read.status_code != 200 or read.json()["name"] != named["name"]:
            return False, f"{read.status_code} {_problem(read)} to a read of what was written"
        if plan.kind == "failover" and plan.region in (by, read.headers.get(_REGION)):
            return False, f"{plan.region} still answers"
        gone = await http.delete(f"{base}/api/v1/tenants/{key}", headers=headers, timeout=_TRY_S)
        said = "" if gone.status_code < 300 else f", and it stays there ({gone.status_code})"
        where = "through the edge" if base in self._server.config.edges.values() else "at its door"
        return True, f"written and read {where}, answered by {by}{said}"

    def _way(self, step: Step) -> tuple[str, httpx.AsyncClient]:
        """Return where a client of the zone reaches the edge, or the target's own door without an edge."""
        config, topology = self._server.config, self._server.topology
        near = [place for place, known in topology.places.items() if known.zone == step.zone]
        for place in (*near, *config.edges):
            if place in config.edges:
                return config.edges[place], self._client(config.edge_ca or "")
        own = f"http://127.0.0.1:{config.listen_port}"
        return config.peers.get(step.target, own), self._client("")

    def _client(self, ca: str) -> httpx.AsyncClient:
        if ca not in self._clients:
            verify = ssl.create_default_context(cafile=ca) if ca and Path(ca).is_file() else False
            self._clients[ca] = httpx.AsyncClient(
                verify=verify, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
            )
        return self._clients[ca]

    def _headers(self) -> dict[str, str]:
        path = self._server.config.controller_key_path
        if path is None:
            raise RefusedError(
                "no-controller-key",
                "This region was given no key to make its controller's tokens with.",
                hint="Set controller_key_path in its configuration.",
            )
        token, until_s = self._token
        if time.time() > until_s - 60:
            until_s = time.time() + 900
            name = f"controller@{self._server.region}"
            token = mint(Path(path), name, CONTROLLER, self._server.topology.name, int(time.time()))
            self._token = (token, until_s)
        return {"authorization": f"Bearer {token}"}

    async def close(self) -> None:
        """Close all connections."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()


def _problem(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["type"]).rpartition("/")[2]
    except (ValueError, KeyError, TypeError):
        return ""
