"""The tree: equal to RFC 9162's definition, every proof holds, no changed one does."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acgs2.audit.tiles import WIDTH, Growth, Tile, node_in, number_path, parse_number, tile_of, tiles_at
from acgs2.audit.tree import (
    EMPTY,
    Node,
    consistency_proof,
    inclusion_proof,
    is_consistent,
    is_included,
    leaf_hash,
    needed,
    node_hash,
    root_of,
    tree_root,
)


def mth(hashes: list[bytes]) -> bytes:
    """Section 2.1.1, word for word."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return node_hash(mth(hashes[:k]), mth(hashes[k:]))


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(str(n).encode()) for n in range(count)]


def nodes_of(hashes: list[bytes]):
    return lambda node: root_of(hashes[node.number << node.level : (node.number + 1) << node.level])


sizes = st.integers(1, 700)
bits = st.integers(0, 255)


@given(sizes)
def test_roots_are_those_of_the_definition(size: int) -> None:
    hashes = leaves(size)
    assert root_of(hashes) == mth(hashes) == tree_root(size, nodes_of(hashes))
    assert tree_root(0, nodes_of([])) == EMPTY == mth([])


@given(sizes, st.data())
def test_every_inclusion_proof_holds_and_no_changed_one(size: int, data: st.DataObject) -> None:
    hashes = leaves(size)
    index = data.draw(st.integers(0, size - 1))
    proof, root = inclusion_proof(index, size, nodes_of(hashes)), mth(hashes)
    assert is_included(hashes[index], index, size, proof, root)
    for other in {(index + 1) % size, data.draw(st.integers(0, size - 1))} - {index}:
        assert not is_included(hashes[index], other, size, proof, root)
        assert not is_included(hashes[other], index, size, proof, root)
    assert not is_included(hashes[index], index, size, [*proof, EMPTY], root)
    assert not is_included(hashes[index], index, size, proof, EMPTY)
    for at in range(len(proof)):
        changed = [flipped(p, data.draw(bits)) if n == at else p for n, p in enumerate(proof)]
        assert not is_included(hashes[index], index, size, changed, root)
        assert not is_included(hashes[index], index, size, proof[:at] + proof[at + 1 :], root)
    assert not is_included(hashes[index], size, size, proof, root)


@given(sizes, st.data())
def test_every_consistency_proof_holds_and_no_changed_one(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new))
    hashes = leaves(new)
    before, after = mth(hashes[:old]), mth(hashes)
    proof = consistency_proof(old, new, nodes_of(hashes))
    assert is_consistent(old, before, new, after, proof)
    fork = [*hashes[: old - 1], leaf_hash(b"another"), *hashes[old:]]
    assert not is_consistent(old, mth(fork[:old]), new, after, proof)
    assert not is_consistent(old, before, new, mth(fork), consistency_proof(old, new, nodes_of(fork)))
    assert not is_consistent(old, before, new, after, [*proof, EMPTY])
    for at in range(len(proof)):
        changed = [flipped(p, data.draw(bits)) if n == at else p for n, p in enumerate(proof)]
        assert not is_consistent(old, before, new, after, changed)
        assert not is_consistent(old, before, new, after, proof[:at] + proof[at + 1 :])


def test_proofs_of_trees_that_are_not_are_refused() -> None:
    hashes = leaves(5)
    for index in (-1, 5):
        with pytest.raises(ValueError, match="index"):
            inclusion_proof(index, 5, nodes_of(hashes))
    for old, new in ((0, 5), (6, 5), (-1, 5)):
        with pytest.raises(ValueError, match="proof"):
            consistency_proof(old, new, nodes_of(hashes))
        assert not is_consistent(old, EMPTY, new, EMPTY, [])


@given(st.lists(st.integers(0, 900), max_size=5))
def test_a_log_that_grows_in_steps_has_the_tiles_and_roots_of_one_made_at_once(steps: list[int]) -> None:
    hashes = leaves(sum(steps))
    growth, full = Growth(), {}
    for step in steps:
        before = growth.size
        for tile, content, above in growth.add(hashes[before : before + step]):
            full[tile] = content
            assert above == root_of([content[i : i + 32] for i in range(0, len(content), 32)])
        assert growth.root() == mth(hashes[: growth.size])
        growth = Growth.resume(growth.size, {n: b"".join(level) for n, level in enumerate(growth.edge)})
    assert {t for t in tiles_at(growth.size) if t.width == WIDTH} == set(full)
    whole = full | {t: b"".join(growth.edge[t.level]) for t in Growth.edge_tiles(growth.size)}
    size = growth.size

    def node(at: Node) -> bytes:
        tile = tile_of(at, size)
        return node_in(whole[tile], tile, at)

    for index in {0, size // 2, size - 1} if size else set():
        assert is_included(hashes[index], index, size, inclusion_proof(index, size, node), mth(hashes))


def test_a_log_is_not_resumed_from_too_few_hashes() -> None:
    with pytest.raises(ValueError, match="level 0"):
        Growth.resume(3, {0: EMPTY * 2})


def test_what_a_question_needs_is_known_before_it_is_asked() -> None:
    assert needed(lambda nodes: inclusion_proof(3, 8, nodes)) == [Node(2, 1), Node(1, 0), Node(0, 2)]


@given(st.integers(0, 10**9), st.integers(1, 256))
def test_paths_of_tiles_are_read_as_they_are_written(number: int, width: int) -> None:
    assert parse_number(number_path(number, width)) == (number, width)


def test_paths_are_those_of_the_specification() -> None:
    assert Tile(0, 1234067).path == "tile/0/x001/x234/067"
    assert Tile(1, 0, 5).path == "tile/1/000.p/5"
    for wrong in (
        "1",
        "001/002",
        "x001",
        "000.p/0",
        "000.p/256",
        "000.p/01",
        "",
        "-01",
        "x01/000",
        "\u0660\u0660\u0661",
    ):
        with pytest.raises(ValueError, match=r"tile|invalid"):
            parse_number(wrong)


def flipped(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value, "big") ^ (1 << bit)).to_bytes(len(value), "big")
