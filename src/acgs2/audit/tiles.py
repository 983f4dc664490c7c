"""Hashes in tiles of 256, as https://c2sp.org/tlog-tiles lays them out: paths, nodes, and growth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from acgs2.audit.tree import HASH_BYTES, Node, node_hash, root_of

__all__ = [
    "HEIGHT",
    "WIDTH",
    "Growth",
    "Tile",
    "node_in",
    "number_path",
    "parse_number",
    "tile_of",
    "tiles_at",
]

HEIGHT = 8
WIDTH = 1 << HEIGHT
#: tlog-tiles allows levels 0 to 63; a tree of 2^62 leaves has eight.
LEVELS = 8


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A tile's place, and how many of its 256 hashes there are."""

    level: int
    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Return where it is below the log's prefix."""
        return f"tile/{self.level}/{number_path(self.number, self.width)}"


def number_path(number: int, width: int = WIDTH) -> str:
    """Return a tile's number as its path: x001/x234/067, with .p/WIDTH where it is not full."""
    parts = [f"{number % 1000:03}"]
    while number := number // 1000:
        parts.append(f"x{number % 1000:03}")
    return "/".join(reversed(parts)) + ("" if width == WIDTH else f".p/{width}")


def parse_number(path: str) -> tuple[int, int]:
    """Return number and width of a tile's path.

    Raises:
        ValueError: no tile has that path.
    """
    head, partial, tail = path.partition(".p/")
    number = int("".join(part.removeprefix("x") for part in head.split("/")) or "x")
    width = int(tail) if partial else WIDTH
    if number_path(number, width) != path or (partial and not 0 < width < WIDTH):
        raise ValueError(f"there is no tile {path!r}")
    return number, width


def tiles_at(size: int) -> list[Tile]:
    """Return every tile of a tree of so many leaves, level by level."""
    found = []
    for level in range(LEVELS):
        hashes = size >> (HEIGHT * level)
        if not hashes:
            break
        found += [Tile(level, number) for number in range(hashes // WIDTH)]
        if hashes % WIDTH:
            found.append(Tile(level, hashes // WIDTH, hashes % WIDTH))
    return found


def tile_of(node: Node, size: int) -> Tile:
    """Return the tile that has a node, as it is in a tree of so many leaves."""
    level = node.level // HEIGHT
    number = node.number << (node.level % HEIGHT) >> HEIGHT
    hashes = size >> (HEIGHT * level)
    return Tile(level, number, min(WIDTH, hashes - number * WIDTH))


def node_in(hashes: bytes, tile: Tile, node: Node) -> bytes:
    """Return the hash of a node from the hashes of its tile.

    Raises:
        ValueError: the tile does not have all that is below the node.
    """
    above = node.level - tile.level * HEIGHT
    first = (node.number << above) - tile.number * WIDTH
    part = hashes[first * HASH_BYTES : (first + (1 << above)) * HASH_BYTES]
    if first < 0 or len(part) != HASH_BYTES << above:
        raise ValueError(f"{tile.path} does not have node {node.number} of level {node.level}")
    return root_of(_split(part))


@dataclass(slots=True)
class Growth:
    """The right edge of a growing tree: at each level the hashes of the tile that is not full yet."""

    size: int = 0
    edge: list[list[bytes]] = field(default_factory=lambda: [[] for _ in range(LEVELS)])

    @classmethod
    def resume(cls, size: int, edge: Mapping[int, bytes]) -> Growth:
        """Go on from a size, with the hashes of each level's tile that is not full."""
        found = cls(size)
        for level in range(LEVELS):
            found.edge[level] = _split(edge.get(level, b""))
            if len(found.edge[level]) != (size >> (HEIGHT * level)) % WIDTH:
                raise ValueError(f"level {level} does not have the hashes of {size} leaves")
        return found

    @staticmethod
    def edge_tiles(size: int) -> list[Tile]:
        """Return the tiles that `resume` needs."""
        return [t for t in tiles_at(size) if t.width < WIDTH]

    def add(self, hashes: Iterable[bytes]) -> list[tuple[Tile, bytes, bytes]]:
        """Add leaves; returns the tiles that became full, each with its hashes and the root over them."""
        full: list[tuple[Tile, bytes, bytes]] = []
        for leaf in hashes:
            self.size += 1
            level, found = 0, leaf
            while True:
                self.edge[level].append(found)
                if len(self.edge[level]) < WIDTH:
                    break
                tile = Tile(level, (self.size >> (HEIGHT * (level + 1))) - 1)
                found = root_of(self.edge[level])
                full.append((tile, b"".join(self.edge[level]), found))
                self.edge[level] = []
                level += 1
        return full

    def root(self) -> bytes:
        """Return the root of the tree as it is."""
        below: bytes | None = None
        for hashes in self.edge:
            # Full subtrees of one size at each level: largest first, and what is smaller is right of it.
            at = len(hashes)
            while at:
                part = at & -at
                found = root_of(hashes[at - part : at])
                below = found if below is None else node_hash(found, below)
                at -= part
        return root_of([]) if below is None else below


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)]
