"""One region's API server: objects are read, changed and applied. No exception of kr8s leaves this module."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from acgs2.drivers.cloud import Kubernetes
from acgs2.errors import ForbiddenError, RefusedError, RuntimeFault, UnavailableError
from acgs2.plan.may import May, anybody

__all__ = ["MANAGER", "Cluster", "visit"]

#: Who manages the fields of objects that are applied.
MANAGER = "acgs2"
_TIMEOUT_S = 10.0
_FORBIDDEN = (401, 403)


class Cluster:
    """Speaks with an API server.

    Args:
        api: kr8s's.
        region: whose cluster it is, for sentences.
        settings: what there is of ours in it.
        may: asked before every call; raises where it is not to be made.
    """

    def __init__(self, api: Any, region: str, settings: Kubernetes, may: May = anybody) -> None:
        self._may = may
        self._api, self.region, self.settings = api, region, settings

    async def get(self, version: str, path: str) -> dict[str, Any] | None:
        """Return an object of our namespace, None if it is not there.

        Args:
            version: its API version, such as apps/v1.
            path: plural and name, and a subresource.
        """
        return await self._call("GET", version, path)

    async def merge(self, version: str, path: str, change: Mapping[str, Any]) -> dict[str, Any] | None:
        """Change fields of an object; return it as it is then, None if it is not there."""
        return await self._call("PATCH", version, path, "application/merge-patch+json", change)

    async def apply(self, version: str, path: str, wanted: Mapping[str, Any]) -> None:
        """Have an object say what is wanted, by server-side apply; what others manage of it stays."""
        params = {"fieldManager": MANAGER, "force": "true"}
        done = await self._call("PATCH", version, path, "application/apply-patch+yaml", wanted, params)
        if done is None:
            raise RefusedError(
                "kubernetes-kind-unknown",
                f"The cluster of {self.region} has no {path.partition('/')[0]} of {version}.",
                hint="Install Istio's definitions there, or say mesh: false in cloud.yaml.",
            )

    async def _call(
        self,
        method: str,
        version: str,
        path: str,
        kind: str = "",
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any] | None:
        sent: dict[str, Any] = {}
        if body is not None:
            sent = {"content": json.dumps(body), "headers": {"content-type": kind}, "params": params}
        self._may()
        with _mapped(self.region):
            async with self._api.call_api(
                method,
                version=version,
                namespace=self.settings.namespace,
                url=path,
                raise_for_status=False,
                **sent,
            ) as answer:
                if answer.status_code == 404:
                    return None
                if answer.is_error:
                    raise _refused(self.region, answer.status_code, answer.text)
                return dict(answer.json())


def visit(
    region: str, settings: Kubernetes, do: Callable[[Cluster], Awaitable[list[str]]], may: May = anybody
) -> list[str]:
    """Do something with a region's cluster; blocks until it is done.

    Raises:
        UnavailableError: its API server does not answer, or not now.
        ForbiddenError: it does not let these credentials do it.
        RefusedError: it does not take what it is told.
        RuntimeFault: kr8s is not installed, or there is no such context.
    """
    try:
        import kr8s.asyncio
    except ImportError as error:
        raise RuntimeFault(
            "kr8s-missing", "kr8s is not installed.", hint="pip install 'acgs2[kubernetes]'"
        ) from error

    async def run() -> list[str]:
        with _mapped(region):
            api: Any = await kr8s.asyncio.api(kubeconfig=settings.kubeconfig, context=settings.context)
            api.timeout = _TIMEOUT_S
        return await do(Cluster(api, region, settings, may))

    return asyncio.run(run())


@contextmanager
def _mapped(region: str) -> Iterator[None]:
    """Turn what kr8s and httpx raise into our errors."""
    import httpx
    import kr8s

    try:
        yield
    except kr8s.ServerError as error:
        status = error.response.status_code if error.response is not None else 0
        raise _refused(region, status, str(error)) from error
    except (kr8s.APITimeoutError, kr8s.ConnectionClosedError, httpx.HTTPError) as error:
        said = str(error) or type(error).__name__
        raise UnavailableError(
            "kubernetes-away", f"The API server of {region} does not answer: {said}", hint="Try again later."
        ) from error
    except (ValueError, KeyError, OSError) as error:
        raise RuntimeFault(
            "kubernetes-configuration",
            f"The cluster of {region} cannot be spoken with: {error}",
            hint=f"Check regions.{region}.kubernetes in cloud.yaml, and the kubeconfig.",
        ) from error


def _refused(region: str, status: int, said: str) -> Exception:
    """Return what an answer that is an error means."""
    try:
        said = str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        said = said[:200]
    if status in _FORBIDDEN:
        return ForbiddenError("kubernetes-forbids", f"The cluster of {region} forbids it: {said}")
    if status in (409, 429) or status >= 500:
        return UnavailableError(
            "kubernetes-away",
            f"The API server of {region} cannot now ({status}): {said}",
            hint="Try again later.",
        )
    return RefusedError("kubernetes-refuses", f"The API server of {region} refuses ({status}): {said}")
