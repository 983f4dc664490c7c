"""Every way in which a log can be falsified is found in its files alone."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.audit.log import (
    BEGAN_S,
    LOG,
    TRUSTED,
    WITNESSES,
    Files,
    cosigned,
    export,
    healthy,
    leaf,
    note_of,
    packed,
)

from acgs2.audit.cosignature import line
from acgs2.audit.export import KEYS, opened, unpacked, write
from acgs2.audit.keys import Trusted
from acgs2.audit.note import COSIGNATURE, ED25519, Signer
from acgs2.audit.tiles import Tile
from acgs2.audit.verify import verify
from acgs2.errors import InputError

ENTRIES, NOTE, HISTORY = healthy()


def kinds(files: Files, trusted: Trusted = TRUSTED, **options: object) -> set[str]:
    return {f.kind for f in verify(files, trusted, **options).findings}  # type: ignore[arg-type]


def test_a_log_that_only_grew_is_found_well() -> None:
    report = verify(export(ENTRIES, NOTE, HISTORY), TRUSTED)
    assert (report.findings, report.size, len(report.witnesses)) == ([], 600, 3)
    assert report.as_dict()["findings"] == []


@settings(max_examples=25)
@given(st.integers(1, 599), st.data())
def test_a_changed_leaf_is_found_wherever_it_is(index: int, data: st.DataObject) -> None:
    entry = bytearray(ENTRIES[index])
    at = data.draw(st.integers(0, len(entry) - 1))
    entry[at] ^= data.draw(st.integers(1, 255))
    changed = [*ENTRIES[:index], bytes(entry), *ENTRIES[index + 1 :]]
    report = verify(export(ENTRIES, NOTE, HISTORY, changed), TRUSTED)
    found = {(f.kind, f.index) for f in report.findings}
    assert ("leaf-tampered", index) in found
    assert "root-mismatch" in {kind for kind, _ in found}


def test_a_leaf_changed_with_its_hashes_is_found_by_the_root() -> None:
    changed = [*ENTRIES[:300], leaf(300, BEGAN_S + 30, "another"), *ENTRIES[301:]]
    assert "root-mismatch" in kinds(export(changed, NOTE, HISTORY))


def test_a_log_that_its_own_key_rewrote_is_found_by_what_witnesses_saw() -> None:
    changed = [*ENTRIES[:300], leaf(300, BEGAN_S + 30, "another"), *ENTRIES[301:]]
    forged = cosigned(note_of(changed), BEGAN_S + 61)
    assert kinds(export(changed, forged, HISTORY)) == {"log-forked"}


def test_reordered_leaves_are_found() -> None:
    changed = [*ENTRIES[:20], ENTRIES[21], ENTRIES[20], *ENTRIES[22:]]
    report = verify(export(ENTRIES, NOTE, HISTORY, changed), TRUSTED)
    assert {(f.kind, f.index) for f in report.findings} >= {("leaf-reordered", 20), ("leaf-reordered", 21)}


def test_a_truncated_log_is_found() -> None:
    short = ENTRIES[:400]
    note = cosigned(note_of(short), BEGAN_S + 41)
    assert kinds(export(short, note, HISTORY)) == {"log-truncated"}
    assert kinds(export(short, note, []), known=[NOTE]) == {"log-truncated"}
    files = export(ENTRIES, NOTE, HISTORY)
    del files.files["tile/entries/001"]
    assert kinds(files) == {"log-truncated"}
    files.files["tile/entries/001"] = packed(ENTRIES[256:511])
    assert kinds(files) == {"log-truncated"}


def test_two_exports_of_a_forked_log_contradict_each_other() -> None:
    other = [*ENTRIES[:500], *(leaf(n, BEGAN_S + n // 10, "another") for n in range(500, 700))]
    note = cosigned(note_of(other), BEGAN_S + 71)
    mine, theirs = export(ENTRIES, NOTE, HISTORY), export(other, note, [])
    assert kinds(mine) == kinds(theirs) == set()
    assert kinds(mine, later=[note]) == set(), "a later checkpoint alone says nothing of an earlier export"
    assert kinds(theirs, later=[NOTE]) == {"log-forked"}


@pytest.mark.parametrize(("at_s", "kind"), [(-600, "leaf-back-dated"), (600, "leaf-post-dated")])
def test_a_leaf_with_a_time_that_witnesses_contradict_is_found(at_s: int, kind: str) -> None:
    entries = [*ENTRIES[:550], leaf(550, BEGAN_S + 55 + at_s), *ENTRIES[551:]]
    notes = [cosigned(note_of(entries[:n]), BEGAN_S + n // 10 + 1) for n in (1, 501, 600)]
    report = verify(export(entries, notes[-1], notes), TRUSTED)
    assert [(f.kind, f.index) for f in report.findings] == [(kind, 550)]


def test_too_few_and_forged_cosignatures_are_found() -> None:
    plain = note_of(ENTRIES)
    assert kinds(export(ENTRIES, plain, [])) == {"cosignatures-too-few"}
    assert kinds(export(ENTRIES, cosigned(plain, BEGAN_S + 61, WITNESSES[:1]), [])) == {
        "cosignatures-too-few"
    }
    twice = cosigned(cosigned(plain, BEGAN_S + 61, WITNESSES[:1]), BEGAN_S + 62, WITNESSES[:1])
    assert kinds(export(ENTRIES, twice, [])) == {"cosignatures-too-few"}, "one witness twice is one"
    forged = cosigned(plain, BEGAN_S + 61, WITNESSES[:2]).with_signatures(
        line(WITNESSES[2].key, BEGAN_S + 61, b"\x00" * 64)
    )
    assert kinds(export(ENTRIES, forged, [])) == {"cosignature-forged"}
    another = cosigned(plain, BEGAN_S + 61, WITNESSES[:2])
    moved = another.with_signatures(line(WITNESSES[2].key, BEGAN_S, another.signatures[-1].body[8:]))
    assert kinds(export(ENTRIES, moved, [])) == {"cosignature-forged"}


def test_a_log_does_not_witness_itself() -> None:
    own = Signer.from_seed(LOG.key.name, COSIGNATURE, b"O" * 32)
    note = cosigned(note_of(ENTRIES), BEGAN_S + 61, [WITNESSES[0], own])
    assert kinds(export(ENTRIES, note, []), Trusted((*TRUSTED.keys, own.key))) == {"cosignatures-too-few"}


def test_a_checkpoint_by_another_key_is_found() -> None:
    stranger = Signer.from_seed(LOG.key.name, ED25519, b"S" * 32)
    note = cosigned(note_of(ENTRIES, stranger), BEGAN_S + 61)
    assert kinds(export(ENTRIES, note, [])) == {"signature-invalid"}
    assert kinds(export(ENTRIES, NOTE, [note])) == {"signature-invalid"}
    assert kinds(export(ENTRIES, NOTE, HISTORY), Trusted(tuple(w.key for w in WITNESSES))) >= {"log-unknown"}


def test_files_that_are_no_log_are_findings_or_errors_never_a_crash() -> None:
    assert kinds(Files()) == {"checkpoint-missing"}
    assert kinds(Files({"checkpoint": b"\xff\xfe"})) == {"checkpoint-missing"}
    assert kinds(Files({"checkpoint": b"a\nb\nc\n\n"})) == {"checkpoint-missing"}
    files = export(ENTRIES, NOTE, HISTORY)
    files.files["tile/entries/000"] = b"\x00"
    assert kinds(files) == {"log-truncated"}
    files.files["history.jsonl"] = b"{"
    with pytest.raises(InputError, match="JSON"):
        verify(files, TRUSTED)
    changed = [ENTRIES[0].replace(b"log-began", b"log-bogus"), b"\x00not json", *ENTRIES[2:]]
    assert kinds(export(changed, cosigned(note_of(changed), BEGAN_S + 61), [])) == {
        "log-began-missing",
        "leaf-malformed",
    }
    assert unpacked(b"\x00\x05abc") is None


def test_what_is_found_many_times_is_counted() -> None:
    report = verify(export(ENTRIES, NOTE, [], [b"{}" for _ in ENTRIES]), TRUSTED)
    assert len(report.findings) == 20
    assert report.more > 500


def test_an_export_is_written_and_read_from_a_directory_and_a_tar(tmp_path: Path) -> None:
    files = export(ENTRIES, NOTE, HISTORY)
    files.files[KEYS] = b"".join(f"{k}\n".encode() for k in TRUSTED.keys)
    seen: list[int] = []
    assert write(files, tmp_path / "log", lambda done, of: seen.append(of)) == 600
    assert seen
    assert write(files, tmp_path / "log") == 600, "a second export adds what is new"
    with tarfile.open(tmp_path / "log.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "log", ".")
    for path in ("log", "log.tar.gz"):
        source = opened(tmp_path / path)
        assert verify(source, Trusted.parse(source.text(KEYS))).findings == []
    with pytest.raises(InputError, match="no export"):
        opened(tmp_path / "missing")
    del files.files[Tile(1, 0, 2).path]
    with pytest.raises(FileNotFoundError):
        write(files, tmp_path / "another")
