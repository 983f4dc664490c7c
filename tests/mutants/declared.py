"""What a mutant is, and a copy of the package with one of them in it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "acgs2"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of our own code, and what must fail because of it."""

    name: str
    #: What holds no more.
    promise: str
    #: Below the package.
    file: str
    #: Occurs exactly once in it.
    find: str
    replace: str
    #: pytest node ids, below tests/.
    tests: tuple[str, ...]

    def occurrences(self, package: Path = PACKAGE) -> int:
        """Return how often the text is in the file; anything but 1 means that the code has moved on."""
        return (package / self.file).read_text(encoding="utf-8").count(self.find)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the node ids as pytest takes them."""
        return tuple(f"tests/{test}" for test in self.tests)


def declared() -> list[Mutant]:
    """Return every mutant, in the order in which they are run."""
    rows = yaml.safe_load((ROOT / "tests/mutants/mutants.yaml").read_text(encoding="utf-8"))
    return [Mutant(name, **{**row, "tests": tuple(row["tests"])}) for name, row in rows.items()]


def copy_package(to: Path, mutant: Mutant | None) -> Path:
    """Copy the package, with a mutant in it or as it is, and return what to put before everything on the path."""
    package = to / "acgs2"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    # An installed package has the topologies beside its modules; a checkout finds them at its root.
    shutil.copytree(ROOT / "topologies", package / "topologies")
    if mutant is not None:
        path = package / mutant.file
        text = path.read_text(encoding="utf-8")
        assert text.count(mutant.find) == 1, f"{mutant.name}: the text is not there exactly once"
        path.write_text(text.replace(mutant.find, mutant.replace), encoding="utf-8")
    return to
