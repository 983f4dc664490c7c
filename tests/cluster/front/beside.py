"""Who behaves well all the while: reads and keyed writes, each by every way in, judged by what they answer."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from uuid import uuid4

import httpx
from tests.cluster.conftest import await_that
from tests.cluster.front.raw import Door

__all__ = ["NAME", "Beside"]

#: What its records are called, to be told from what an attack has stored.
NAME = "beside"


class Beside:
    """A thread for each way in; every round is a write and a read of what it wrote."""

    def __init__(self, doors: Sequence[Door], token: Callable[[], str]) -> None:
        self.failures: list[str] = []
        self.rounds: Counter[str] = Counter()
        self._token = token
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(d,), name=d.name) for d in doors]

    def __enter__(self) -> Beside:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def answered_since(self, rounds: Counter[str]) -> bool:
        """Return whether every way in has taken another round that began after those."""
        return all(self.rounds[t.name] > rounds[t.name] + 1 for t in self._threads) or bool(self.failures)

    def judge(self) -> None:
        """Assert that it is answered now and was all the time since it was judged before."""
        before = self.rounds.copy()
        await_that(lambda: self.answered_since(before), "others to be answered", 10)
        failures, self.failures = self.failures, []
        assert not failures, failures

    def _run(self, door: Door) -> None:
        url = f"https://localhost:{door.port}"
        with httpx.Client(base_url=url, verify=door.context(), trust_env=False, timeout=5) as client:
            while not self._stop.is_set():
                try:
                    self._round(client)
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    self.failures.append(f"{door.name}: {error!r}")
                self.rounds[door.name] += 1
                self._stop.wait(0.01)

    def _round(self, client: httpx.Client) -> None:
        headers = {"authorization": f"Bearer {self._token()}", "x-data-sovereignty": "eu"}
        key = {"idempotency-key": str(uuid4())}
        made = client.post("/api/v1/tenants", headers=headers | key, json={"name": NAME})
        if made.status_code != 201:
            raise ValueError(f"{made.status_code} {made.text}")
        shown = client.get(f"/api/v1/tenants/{made.json()['id']}", headers=headers)
        if shown.status_code != 200:
            raise ValueError(f"{shown.status_code} {shown.text}")
