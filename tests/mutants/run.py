"""Runs tests against a copy of the package and judges from pytest's report what that proves."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.mutants.declared import ROOT, Mutant, copy_package

#: How long the tests of one mutant may take; those of all on the code as it is, several times as long.
LIMIT_S = 240.0
#: How the failure of an assertion begins in a report; anything else may be a mutant that cannot even start.
ASSERTIONS = ("AssertionError", "assert ", "Failed: DID NOT RAISE")


@dataclass(frozen=True, slots=True)
class Case:
    """One test as it ended: `passed`, `failed` by an assertion, or `broken` by anything else."""

    file: str
    name: str
    outcome: str
    message: str = ""

    def is_of(self, node: str) -> bool:
        """Return whether a node id names this test; one without brackets names it with any parameters."""
        file, _, name = node.partition("::")
        return self.file == file and (self.name == name or self.name.split("[", 1)[0] == name)


@dataclass(frozen=True, slots=True)
class Run:
    """What pytest said."""

    status: int | None
    cases: tuple[Case, ...]
    seconds: float
    output: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a mutant was killed; if not, why."""

    mutant: Mutant
    killed: bool
    why: str
    seconds: float


def run_tests(nodes: Iterable[str], mutant: Mutant | None, limit_s: float = LIMIT_S) -> Run:
    """Run tests against a copy of the package, with a mutant in it or as it is."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="acgs2-mutant-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        copy = copy_package(path / "src", mutant)
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        where = [sys.executable, "-c", "import acgs2; print(acgs2.__file__)"]
        loaded = subprocess.run(where, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
        assert loaded.stdout.strip().startswith(str(copy)), f"not the copy is imported: {loaded.stdout}"
        report = path / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        try:
            done = subprocess.run(
                [*command, *nodes],
                env=environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Run(None, (), time.monotonic() - began_s, "")
        cases = tuple(_cases(report)) if report.exists() else ()
        return Run(done.returncode, cases, time.monotonic() - began_s, done.stdout + done.stderr)


def _cases(report: Path) -> Iterable[Case]:
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        file = case.get("classname", "").replace(".", "/") + ".py"
        ended, message = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                message = child.get("message", "")
                by_assertion = child.tag == "failure" and message.startswith(ASSERTIONS)
                ended = "failed" if by_assertion and ended == "passed" else "broken"
        yield Case(file, case.get("name", ""), ended, message)


def judge(mutant: Mutant, sound: Sequence[Case], run: Run) -> Verdict:
    """Judge one mutant.

    Args:
        mutant: what was changed.
        sound: how the tests of all mutants ended on the code as it is.
        run: how its tests ended on the mutated copy.
    """
    why = ""
    for node in mutant.nodes:
        before = [c for c in sound if c.is_of(node)]
        after = [c for c in run.cases if c.is_of(node)]
        if not before or any(c.outcome != "passed" for c in before):
            why = f"{node} does not pass on the code as it is"
        elif run.status is None:
            why = "its tests did not end"
        elif run.status != 1:
            why = f"pytest ended with {run.status}"
        elif not after or all(c.outcome == "passed" for c in after):
            why = f"{node} passes"
        elif any(c.outcome == "broken" for c in after):
            broken = next(c for c in after if c.outcome == "broken")
            why = f"{node} fails, but by no assertion: {broken.message.splitlines()[0] if broken.message else '?'}"
        if why:
            break
    return Verdict(mutant, not why, why, run.seconds)
