"""Audit logs verify with other people's code: Go's sumdb for notes and trees, transparency-dev for cosignatures."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.conformance.conftest import missing, need
from tests.unit.audit.log import BEGAN_S, TRUSTED, WITNESSES, cosigned, export, healthy, leaf, note_of

from acgs2.audit.export import KEYS, write

SOURCE = Path(__file__).parent / "audit_go"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program that verifies an export."""
    go = need("go", "golang-go")
    made = tmp_path_factory.mktemp("go") / "audit"
    done = subprocess.run(
        [go, "build", "-o", str(made), "."],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode and ("dial tcp" in done.stderr or "lookup" in done.stderr):
        missing("its Go modules cannot be fetched")
    assert done.returncode == 0, done.stderr
    return made


def judged(program: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ},
    )


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 600, 66000])
def test_checkpoints_cosignatures_tiles_and_proofs_verify(program: Path, tmp_path: Path, size: int) -> None:
    entries, note, history = healthy(size, every=max(1, size // 7))
    files = export(entries, note, history)
    files.files[KEYS] = b"".join(f"{k}\n".encode() for k in TRUSTED.keys)
    write(files, tmp_path)
    done = judged(program, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["size"], found["witnesses"], found["consistent"]) == (size, len(WITNESSES), len(history))
    assert found["included"] >= min(size, 200)


def test_what_we_find_wrong_they_find_wrong_too(program: Path, tmp_path: Path) -> None:
    entries, note, history = healthy()
    changed = [*entries[:300], leaf(300, BEGAN_S + 30, "another"), *entries[301:]]
    forked = cosigned(note_of(changed), BEGAN_S + 61)
    for number, files in enumerate(
        (
            export(entries, note, history, changed),
            export(changed, forked, history),
            export(changed, note, []),
            export(entries, cosigned(note_of(entries, WITNESSES[0]), BEGAN_S), []),
        )
    ):
        files.files[KEYS] = b"".join(f"{k}\n".encode() for k in TRUSTED.keys)
        write(files, tmp_path / str(number))
        assert judged(program, tmp_path / str(number)).returncode == 1
