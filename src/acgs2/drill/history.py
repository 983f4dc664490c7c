"""What clients sent and were told, and what was done to the cluster meanwhile: all that a checker may go by.

Every operation is two events, as in jepsen: `invoke`, and later `ok` (it happened), `fail` (it did not) or
`info` (it may have, or may yet). They are written as JSON lines as they happen, so that a run can be judged
again without a cluster.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

__all__ = ["Fault", "History", "Loss", "Operation", "Outcome", "Row", "read_history"]

Outcome = Literal["ok", "fail", "info"]
#: One row of a table: a value per column, times as ISO 8601.
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of one client of one region; times are seconds of a monotonic clock since the run began.

    `sent` is what the request means (an element, a value), `answer` what came back: status, problem, record.
    Attempts with one idempotency key are one request to the user, and so to the checker.
    """

    number: int
    client: str
    region: str
    zone: str
    kind: str
    entity: str
    key: str
    invoked_s: float
    sent: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    completed_s: float = float("inf")
    outcome: Outcome = "info"
    answer: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Return whether the client was told that it happened."""
        return self.outcome == "ok"

    @property
    def possible(self) -> bool:
        """Return whether it happened or may have."""
        return self.outcome != "fail"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done to the cluster; `bitten` says how that is known, None if it is not."""

    name: str
    target: str
    began_s: float
    ended_s: float
    did: str
    bitten: str | None


@dataclass(frozen=True, slots=True)
class Loss:
    """A region died, or also lost its data: its disk was destroyed, or put back to an older state.

    `survivors` is what the databases of the others that `answered` held at that moment: per entity and key
    their rows. `exposed` are the zones with a pair that the region was agreed to acknowledge alone.
    """

    region: str
    at_s: float
    exposed: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    survivors: Mapping[str, Mapping[str, list[Row]]] = field(default_factory=dict)


class History:
    """Records events in the order in which they happen, from any thread; knows what has happened so far.

    Args:
        path: the file that they are written to as well, None for none.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        self._file: IO[str] | None = path.open("w", encoding="utf-8") if path is not None else None
        self._operations: list[Operation] = []
        self._faults: list[Fault] = []
        self._losses: list[Loss] = []
        self._deaths: list[Loss] = []

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Return every operation in the order in which they were invoked."""
        return tuple(self._operations)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Return every fault that has ended."""
        return tuple(self._faults)

    @property
    def losses(self) -> tuple[Loss, ...]:
        """Return every declared loss of a region's data."""
        return tuple(self._losses)

    @property
    def deaths(self) -> tuple[Loss, ...]:
        """Return every death of a region, with what others had of it; its data may have come back with it."""
        return tuple(self._deaths)

    def now_s(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self._began_s

    def invoke(
        self, client: str, region: str, zone: str, kind: str, entity: str, key: str, **more: Any
    ) -> int:
        """Note that a request is about to be sent; returns its number."""
        with self._lock:
            number = len(self._operations)
            made = Operation(number, client, region, zone, kind, entity, key, self.now_s(), **more)
            self._operations.append(made)
            names = ("completed_s", "outcome", "answer")
            self._write("invoke", {n: v for n, v in asdict(made).items() if n not in names})
            return number

    def complete(
        self, number: int, outcome: Outcome, answer: Mapping[str, Any], *, region: str = ""
    ) -> Operation:
        """Note what came of a request; one that is never completed may have happened.

        Who sends through the edge learns which `region` it was from the answer.
        """
        with self._lock:
            # What may yet happen has no end.
            completed_s = float("inf") if outcome == "info" else self.now_s()
            was = self._operations[number]
            region = region or was.region
            done = replace(was, completed_s=completed_s, outcome=outcome, answer=dict(answer), region=region)
            self._operations[number] = done
            found = {"number": number, "at_s": self.now_s(), "answer": done.answer, "region": region}
            self._write(outcome, found)
            return done

    def note_fault(self, fault: Fault) -> None:
        """Note a fault that has ended."""
        with self._lock:
            self._faults.append(fault)
            self._write("fault", asdict(fault))

    def note_loss(self, loss: Loss) -> None:
        """Note that a region's data is gone or old."""
        with self._lock:
            self._losses.append(loss)
            self._write("loss", asdict(loss))

    def note_death(self, death: Loss) -> None:
        """Note that a region is dead, its disk being there."""
        with self._lock:
            self._deaths.append(death)
            self._write("death", asdict(death))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, event: str, body: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"event": event, **body}) + "\n")
            self._file.flush()

    @classmethod
    def of(
        cls,
        operations: Iterable[Operation] = (),
        losses: Iterable[Loss] = (),
        faults: Iterable[Fault] = (),
        deaths: Iterable[Loss] = (),
    ) -> History:
        """Return a history that was recorded before."""
        made = cls()
        made._operations, made._losses, made._faults = list(operations), list(losses), list(faults)
        made._deaths = list(deaths)
        return made


def read_history(path: Path) -> History:
    """Return the history in a file; a last line that was cut off is left out."""
    operations: dict[int, Operation] = {}
    losses: dict[str, list[Loss]] = {"loss": [], "death": []}
    faults: list[Fault] = []
    for event, body in _events(path):
        if event == "invoke":
            operations[body["number"]] = Operation(**body)
        elif event in ("loss", "death"):
            names = {name: tuple(body[name]) for name in ("exposed", "answered")}
            losses[event].append(Loss(**{**body, **names}))
        elif event == "fault":
            faults.append(Fault(**body))
        else:
            completed_s = float("inf") if event == "info" else body["at_s"]
            was = operations[body["number"]]
            operations[body["number"]] = replace(
                was,
                completed_s=completed_s,
                outcome=event,
                answer=body["answer"],
                region=body.get("region", was.region),
            )
    return History.of(operations.values(), losses["loss"], faults, losses["death"])


def _events(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            return
        body = json.loads(line)
        yield body.pop("event"), body
