"""Signed notes, checkpoints, cosignatures, keys and leaves: read as written, and nothing else is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.audit.log import LOG, NAME, ORIGIN, TRUSTED, WITNESSES, cosigned, note_of

from acgs2.audit.checkpoint import Checkpoint, is_signed_by, origin_of, region_of
from acgs2.audit.cosignature import cosigned_at_s
from acgs2.audit.keys import (
    PUBLIC,
    Trusted,
    create_audit_keys,
    private_path,
    read_own,
    read_trusted,
)
from acgs2.audit.leaf import Leaf, canonical, commitment
from acgs2.audit.note import ED25519, Key, parse_note
from acgs2.errors import InputError, RuntimeFault


def test_keys_are_the_specification_s_own_example() -> None:
    # https://pkg.go.dev/golang.org/x/mod/sumdb/note: the example's verifier key and signed note.
    key = Key.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    note = parse_note(
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n\n"
        "\N{EM DASH} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    assert str(key) == "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    (signature,) = note.signatures
    assert signature.is_by(key)
    assert key.accepts(signature.body, note.text.encode())
    assert not key.accepts(signature.body, b"another text\n")


@given(st.integers(0, 2**60), st.binary(min_size=32, max_size=32))
def test_checkpoints_are_read_as_they_are_written(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(ORIGIN, size, root)
    note = parse_note(str(checkpoint.sign(LOG)))
    assert Checkpoint.parse(note.text) == checkpoint
    assert is_signed_by(note, LOG.key)
    assert not is_signed_by(note, WITNESSES[0].key)


@given(st.data())
def test_a_changed_note_is_not_signed(data: st.DataObject) -> None:
    raw = str(cosigned(note_of([b"a", b"b"]), 1_800_000_000)).encode()
    at = data.draw(st.integers(0, len(raw) - 1))
    changed = bytearray(raw)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        note = parse_note(changed.decode())
        signed = is_signed_by(note, LOG.key)
        times = [cosigned_at_s(note, w.key) for w in WITNESSES]
    except (InputError, UnicodeDecodeError):
        return
    assert not signed or None in times


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "\n\n",
        "text\n",
        "text\n\nno signature\n",
        "a\n\n\N{EM DASH} name AAAA\n",
        "a\n\n\N{EM DASH} n =\n",
        "a\r\n\n\N{EM DASH} n AAAAAAAA\n",
    ],
)
def test_what_is_no_note_is_refused(raw: str) -> None:
    with pytest.raises(InputError, match="no note"):
        parse_note(raw)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        "a\n-1\nAAAA\n",
        "a\n01\n" + "A" * 43 + "=\n",
        "a\n1\n" + "A" * 43 + "=\nmore\n",
        "\n1\n" + "A" * 43 + "=\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "vkey", ["", "a", "a+b", f"{LOG.key}x", str(LOG.key).replace("+", "+0", 1), "a b+00000000+AQ=="]
)
def test_what_is_no_key_is_refused(vkey: str) -> None:
    with pytest.raises(InputError):
        Key.parse(vkey)


def test_a_region_s_key_signs_for_its_logs_and_for_no_other() -> None:
    assert region_of(origin_of(NAME, "0a1b2c3d")) == NAME
    assert [k.public for k in TRUSTED.of_log(ORIGIN)] == [LOG.key.public]
    assert TRUSTED.of_log("acgs2.example/local/other/0a1b2c3d") == []
    assert TRUSTED.of_log(NAME + "/") == [LOG.key.named(NAME + "/")]
    assert LOG.key.named(ORIGIN).id != LOG.key.id


def test_keys_are_made_once_and_those_of_regions_that_are_gone_stay(tmp_path: Path) -> None:
    create_audit_keys(tmp_path, [("a", "d/t/a"), ("b", "d/t/b")])
    first = (tmp_path / PUBLIC).read_text()
    assert private_path(tmp_path, "a").stat().st_mode & 0o777 == 0o600
    create_audit_keys(tmp_path, [("b", "d/t/b"), ("c", "d/t/c")])
    assert (tmp_path / PUBLIC).read_text().startswith(first)
    trusted = read_trusted(tmp_path / PUBLIC)
    assert {k.name for k in trusted.keys} == {"d/t/a", "d/t/b", "d/t/c"}
    own = read_own(private_path(tmp_path, "a"))
    assert own.log.key in trusted.keys
    assert own.witness.key not in trusted.witnesses("d/t/a/00000000")
    assert own.witness.key in trusted.witnesses("d/t/b/00000000")
    for broken in ("", "{}", '{"name": "a b", "log": "", "witness": ""}', json.dumps([])):
        private_path(tmp_path, "a").write_text(broken)
        with pytest.raises(RuntimeFault, match="audit keys"):
            read_own(private_path(tmp_path, "a"))
    with pytest.raises(RuntimeFault):
        read_trusted(tmp_path / "missing")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=5), json_values, max_size=4),
    st.none() | st.uuids(),
    st.none() | st.uuids(),
)
def test_leaves_are_read_as_they_are_written(body: dict, subject: UUID | None, tenant: UUID | None) -> None:
    leaf = Leaf(1_800_000_000_000_000, "verdict", subject, tenant, body)
    assert Leaf.parse(leaf.entry) == leaf
    assert canonical(body) == rfc8785.dumps(body).decode()
    with pytest.raises(InputError):
        Leaf.parse(leaf.entry + b" ")


@pytest.mark.parametrize("entry", [b"", b"[]", b"{}", b"\xff", b'{"at_us":1}', b"[" * 5000])
def test_what_is_no_leaf_is_refused(entry: bytes) -> None:
    with pytest.raises(InputError, match="no leaf"):
        Leaf.parse(entry)


@pytest.mark.parametrize(
    "body", [{"a": 0.5}, {"a": [{"b": 1.0}]}, {"a": "x" * 60000}, {"a": 2**60}, {"a": "\ud800"}]
)
def test_bodies_that_a_log_cannot_hold_are_refused(body: dict) -> None:
    with pytest.raises(InputError, match="body"):
        canonical(body)


def test_a_commitment_needs_a_salt_and_binds() -> None:
    salt = b"s" * 16
    assert commitment(salt, "a") == commitment(salt, "a") != commitment(salt, "b")
    assert commitment(salt, "a") != commitment(b"t" * 16, "a")
    with pytest.raises(InputError, match="salt"):
        commitment(b"short", "a")


def test_a_file_of_keys_may_have_remarks() -> None:
    assert Trusted.parse(f"# ours\n\n{LOG.key}\n").keys == (LOG.key,)
    assert LOG.key.kind == ED25519
