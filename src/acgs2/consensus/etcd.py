"""The register over etcd v3, for where one is run already: compare-and-set on a key's revision.

It speaks etcd's own JSON gateway (3.4 and later). Reads are linearizable, so a member that is cut off from
the others does not answer. etcd counts how often a key was put, and nothing is put that changes nothing:
that count is the version.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from acgs2.consensus.register import Decide, Versioned
from acgs2.errors import UnavailableError

__all__ = ["EtcdRegister"]

_ROUNDS = 12
#: How often all endpoints are tried before it is said that none has a majority; an election fits in.
_PASSES = 3
_REFUSALS = (400, 401, 403, 404)


class _Away(Exception):
    """An endpoint gave no answer; `sent` says whether it may have carried the request out all the same."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


@dataclass(frozen=True, slots=True)
class _Stored:
    """What etcd has under a key: its revision (0: nothing), version, value and which change it was."""

    revision: int = 0
    version: int = 0
    value: Any = None
    by: str = ""


class EtcdRegister:
    """The register over etcd.

    Args:
        endpoints: base URLs of members; the one that answered last is asked first.
        prefix: what the names of keys begin with; the same for all regions, another for another cluster.
        timeout_s: how long one endpoint is waited for; well under the length of a lease, so that another can
            be asked in time.
        tls: how to speak to endpoints with https; default: public authorities.
        rng: for the pauses after a lost race, and the names of changes.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        prefix: str,
        *,
        timeout_s: float = 1.0,
        tls: ssl.SSLContext | None = None,
        rng: Random | None = None,
    ) -> None:
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self._prefix = prefix
        self._rng = rng or Random()
        # Never through a proxy that the environment happens to name.
        self._client = httpx.AsyncClient(timeout=timeout_s, verify=tls or True, trust_env=False)
        self._timeout_s = timeout_s
        self._last_error = ""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def read(self, key: str) -> Versioned:
        """Return the agreed value, as a majority of etcd's members has it now."""
        stored = await self._get(key)
        return Versioned(stored.version, stored.value)

    async def change(self, key: str, decide: Decide) -> Versioned:
        """Change a value by compare-and-set; see `Register`.

        A change whose answer was lost is read again before it is tried again, and known by its name, so that
        it is not done twice; only if others have changed the value since may `decide` see its own effect.
        """
        name, value, answered = f"{self._rng.getrandbits(64):016x}", None, True
        for attempt in range(_ROUNDS):
            if attempt:
                await asyncio.sleep(self._rng.uniform(0.2, 1) * min(0.01 * 2**attempt, 0.5))
            stored = await self._get(key)
            if stored.by == name and stored.value == value:
                return Versioned(stored.version, stored.value)
            value = decide(stored.value)
            if value == stored.value:
                return Versioned(stored.version, stored.value)
            changed = await self._put(key, stored, value, name)
            if changed:
                return Versioned(stored.version + 1, value)
            answered = changed is not None
        if not answered:
            raise self._no_majority(key)
        raise UnavailableError(
            "contended", f"Others kept changing {key}.", hint="Try again in a moment.", key=key
        )

    async def _get(self, key: str) -> _Stored:
        """Return what is stored; tries every endpoint in turn, several times."""
        for number in range(_PASSES):
            if number:
                await asyncio.sleep(self._rng.uniform(0.2, 0.4) * self._timeout_s)
            for _ in range(len(self._endpoints)):
                try:
                    answer = await self._ask("range", {"key": self._name(key)})
                except _Away:
                    continue
                return _stored(answer)
        raise self._no_majority(key)

    async def _put(self, key: str, before: _Stored, value: Any, name: str) -> bool | None:
        """Store a value if nobody has since `before`; return whether it is, None if that is not known."""
        text = json.dumps({"by": name, "value": value}, separators=(",", ":"), allow_nan=False)
        coded, revision = self._name(key), str(before.revision)
        body = {
            "compare": [{"key": coded, "target": "MOD", "result": "EQUAL", "mod_revision": revision}],
            "success": [{"request_put": {"key": coded, "value": b64encode(text.encode()).decode()}}],
        }
        for _ in range(len(self._endpoints)):
            try:
                return bool((await self._ask("txn", body)).get("succeeded", False))
            except _Away as away:
                if away.sent:
                    return None
        return None

    async def _ask(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the endpoint that is first; one that does not answer becomes the last."""
        endpoint = self._endpoints[0]
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.post(f"{endpoint}/v3/kv/{call}", json=body)
            if answer.status_code in _REFUSALS:
                raise _refused(endpoint, answer)
            if answer.is_success:
                return answer.json()
            # No leader, an election, a full disk: whether it was carried out is not said.
            error, sent = f"{endpoint}: {answer.status_code} {_said(answer)}", True
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as failure:
            error, sent = f"{endpoint}: {type(failure).__name__} {failure}", False
        except (httpx.HTTPError, OSError, ValueError) as failure:
            # OSError: out of time, or a certificate of ours that the member turns down after the handshake.
            error, sent = f"{endpoint}: {type(failure).__name__} {failure}", True
        if endpoint == self._endpoints[0]:  # else another call has turned to the next already
            self._endpoints.append(self._endpoints.pop(0))
        self._last_error = error
        raise _Away(error, sent=sent)

    def _name(self, key: str) -> str:
        return b64encode(f"{self._prefix}/{key}".encode()).decode()

    def _no_majority(self, key: str) -> UnavailableError:
        return UnavailableError(
            "no-majority",
            f"None of {len(self._endpoints)} endpoints of etcd answers with a majority of its members.",
            hint="Wait until a majority of etcd's members is connected; see its own logs.",
            key=key,
            last_error=self._last_error,
        )


def _stored(answer: Mapping[str, Any]) -> _Stored:
    if not answer.get("kvs"):
        return _Stored()
    found = answer["kvs"][0]
    body = json.loads(b64decode(found["value"]))
    return _Stored(int(found["mod_revision"]), int(found["version"]), body["value"], body["by"])


def _refused(endpoint: str, answer: httpx.Response) -> UnavailableError:
    return UnavailableError(
        "register-refuses",
        f"etcd at {endpoint} refuses: {_said(answer)}",
        hint="Check that it is etcd 3.4 or later with its JSON gateway on, and who may use the keys.",
        status=answer.status_code,
    )


def _said(answer: httpx.Response) -> str:
    return answer.text[:200].strip()
