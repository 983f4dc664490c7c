"""The Merkle tree of RFC 9162, section 2.1: roots, proofs that a leaf is in it, and that it only grew.

Nothing here reads a store: whoever asks gives a function that returns the hash of a full subtree by its level
and number (the leaf at index 5 is (0, 5), its parent (1, 2)).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = [
    "EMPTY",
    "HASH_BYTES",
    "Node",
    "Nodes",
    "consistency_proof",
    "inclusion_proof",
    "is_consistent",
    "is_included",
    "leaf_hash",
    "needed",
    "node_hash",
    "root_of",
    "tree_root",
]

HASH_BYTES = 32
#: The root of a tree without leaves.
EMPTY = hashlib.sha256(b"").digest()


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A full subtree of 2^level leaves, the one of that number from the left."""

    level: int
    number: int


Nodes = Callable[[Node], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Return the root over the hashes of leaves, or of full subtrees of one size."""
    if not hashes:
        return EMPTY
    level = list(hashes)
    while len(level) > 1:
        # One that is left over at the right goes up as it is: the same tree as RFC 9162's recursion.
        pairs = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def tree_root(size: int, nodes: Nodes) -> bytes:
    """Return the root of a tree of so many leaves."""
    return _subtree(0, size, nodes) if size else EMPTY


def inclusion_proof(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """Return the proof that a leaf is at an index of a tree of so many leaves (section 2.1.3).

    Raises:
        ValueError: the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has none at index {index}")
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(_subtree(middle, high, nodes))
            high = middle
        else:
            proof.append(_subtree(low, middle, nodes))
            low = middle
    return proof[::-1]


def consistency_proof(old: int, new: int, nodes: Nodes) -> list[bytes]:
    """Return the proof that a tree of `new` leaves begins with one of `old` (section 2.1.4).

    Raises:
        ValueError: the old tree is empty, or larger than the new one.
    """
    if not 0 < old <= new:
        raise ValueError(f"there is no proof from {old} to {new} leaves")
    proof: list[bytes] = []
    low, high, whole = 0, new, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            proof.append(_subtree(middle, high, nodes))
            high = middle
        else:
            proof.append(_subtree(low, middle, nodes))
            low, whole = middle, False
    if not whole:
        proof.append(_subtree(low, high, nodes))
    return proof[::-1]


def is_included(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Return whether a proof shows that a leaf of that hash is at an index of a tree (section 2.1.3.2)."""
    if not 0 <= index < size or any(len(p) != HASH_BYTES for p in proof):
        return False
    at, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(sibling, found)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            found = node_hash(found, sibling)
        at >>= 1
        last >>= 1
    return last == 0 and found == root


def is_consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether a proof shows that a tree only grew from one root to another (section 2.1.4.2)."""
    if not 0 < old <= new or any(len(p) != HASH_BYTES for p in proof):
        return False
    if old == new:
        return old_root == new_root and not proof
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at >>= 1
        last >>= 1
    before = after = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            after = node_hash(after, sibling)
        at >>= 1
        last >>= 1
    return last == 0 and before == old_root and after == new_root


def needed(ask: Callable[[Nodes], object]) -> list[Node]:
    """Return the nodes that a question asks for: they are fetched before it is asked in earnest."""
    asked: dict[Node, None] = {}

    def note(node: Node) -> bytes:
        asked[node] = None
        return EMPTY

    ask(note)
    return list(asked)


def _split(count: int) -> int:
    """Return the largest power of two below a count."""
    return 1 << (count - 1).bit_length() - 1


def _subtree(low: int, high: int, nodes: Nodes) -> bytes:
    """Return the root over the leaves of a range that begins where a full subtree of its size may."""
    count = high - low
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return nodes(Node(level, low >> level))
    middle = low + _split(count)
    return node_hash(_subtree(low, middle, nodes), _subtree(middle, high, nodes))
