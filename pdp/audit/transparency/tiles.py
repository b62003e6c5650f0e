"""A Merkle tree on disk in the layout of C2SP tlog-tiles (https://c2sp.org/tlog-tiles).

    tile/entries/<N>[.p/<W>]   256 (or W) entries, each after its length as u16 big-endian
    tile/<L>/<N>[.p/<W>]       256 (or W) hashes; each covers 256^L leaves

Files up to the size of the newest checkpoint are synced and never change. Files beyond it are
rewritten after a crash.
"""

import shutil
import struct
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

from pdp.audit.segments import make_directory, sync_directory
from pdp.audit.transparency.files import sync_file
from pdp.audit.transparency.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    leaf_hash,
    node_hash,
    perfect_root,
)

WIDTH: Final = 256
ENTRY_BYTES_MAX: Final = (1 << 16) - 1
ENTRIES: Final = "entries"
_LENGTH: Final = struct.Struct(">H")
_CACHED_TILES: Final = 512
_CACHED_BUNDLES: Final = 4


class DamagedTreeError(Exception):
    """A file of a tree is missing, or does not have the length that its place requires."""


class TileWriter:
    """Appends entries to a tree. For one thread."""

    def __init__(self, directory: Path, size: int = 0) -> None:
        """Continues a tree.

        Args:
            directory: The directory of the tree, which exists.
            size: The number of its entries, according to its newest checkpoint.

        Raises:
            DamagedTreeError: Its last tiles cannot be read.
            OSError: A file cannot be read.
        """
        self._directory = directory
        self.size = size
        self._bundle: list[bytes] = []
        """The entries of the last bundle, if it is not full."""
        self._levels: list[list[bytes]] = [[]]
        """For each level, the hashes of the last tile, if it is not full."""
        self._unsynced: set[Path] = set()
        self._outdated: list[Path] = []
        """Directories of partial tiles of which the full tile exists."""
        if size:
            reader = TileReader(directory, size)
            if size % WIDTH:
                self._bundle = list(reader.bundle(size // WIDTH))
            self._levels = [
                list(reader.tile(level, count // WIDTH))
                if (count := size >> 8 * level) % WIDTH
                else []
                for level in range(levels_of(size))
            ]

    def append(self, entries: Iterable[bytes]) -> None:
        """Appends entries; `sync` makes them durable. Raises OSError: the tree is to be opened
        again."""
        bundle, leaves = self._bundle, self._levels[0]
        for entry in entries:
            bundle.append(entry)
            leaves.append(leaf_hash(entry))
            self.size += 1
            if len(leaves) == WIDTH:
                index = self.size // WIDTH - 1
                self._write(ENTRIES, index, encode_bundle(bundle), WIDTH)
                bundle.clear()
                self._carry(index)

    def root(self) -> bytes:
        """Returns the root of the whole tree."""
        root: bytes | None = None
        for hashes in self._levels:
            end = len(hashes)
            while end:
                width = end & -end  # the perfect subtrees of a tile, from right to left
                subtree = perfect_root(hashes[end - width : end])
                root = subtree if root is None else node_hash(subtree, root)
                end -= width
        return EMPTY_ROOT if root is None else root

    def sync(self) -> None:
        """Writes the partial tiles, and syncs everything that was written. Raises OSError."""
        if self._bundle:
            content = encode_bundle(self._bundle)
            self._write(ENTRIES, self.size // WIDTH, content, len(self._bundle))
        for level, hashes in enumerate(self._levels):
            if hashes:
                index = (self.size >> 8 * level) // WIDTH
                self._write(str(level), index, b"".join(hashes), len(hashes))
        for path in self._unsynced:
            sync_file(path)
        for directory in {path.parent for path in self._unsynced}:
            sync_directory(directory)
        self._unsynced.clear()

    def remove_outdated(self) -> None:
        """Removes partial tiles of which the full tile is synced, as the layout permits."""
        for directory in self._outdated:
            shutil.rmtree(directory, ignore_errors=True)
        self._outdated.clear()

    def _carry(self, index: int) -> None:
        """Writes the full tiles, and puts their roots into the tiles above."""
        for level, hashes in enumerate(self._levels):
            if len(hashes) < WIDTH:
                return
            self._write(str(level), index, b"".join(hashes), WIDTH)
            if level + 1 == len(self._levels):
                self._levels.append([])
            self._levels[level + 1].append(perfect_root(hashes))
            hashes.clear()
            index //= WIDTH

    def _write(self, kind: str, index: int, content: bytes, width: int) -> None:
        path = tile_path(self._directory, kind, index, width)
        # A tile above the lowest level may be covered already: nobody must find it cut off.
        if not path.is_file() or path.read_bytes() != content:
            make_directory(path.parent)
            path.write_bytes(content)
        self._unsynced.add(path)
        if width == WIDTH:
            partial = path.with_name(path.name + ".p")
            if partial.is_dir():
                self._outdated.append(partial)


class TileReader:
    """Reads a tree at a size. Trusts its files: see `verification` for a check of all."""

    def __init__(self, directory: Path, size: int) -> None:
        self._directory = directory
        self.size = size
        self.tile = lru_cache(_CACHED_TILES)(self._tile)
        self.bundle = lru_cache(_CACHED_BUNDLES)(self._read_bundle)

    def fetch(self, level: int, index: int) -> bytes:
        """Returns the hash of a perfect subtree; see `merkle.Fetch`. Raises DamagedTreeError,
        OSError."""
        above, below = divmod(level, 8)
        first = index << below
        hashes = self.tile(above, first // WIDTH)[first % WIDTH :][: 1 << below]
        if len(hashes) < 1 << below:
            raise DamagedTreeError(f"tile {above}/{first // WIDTH} is too short")
        return perfect_root(hashes)

    def _read_bundle(self, index: int) -> list[bytes]:
        """Returns the entries of a bundle. Raises DamagedTreeError, OSError."""
        width = min(WIDTH, self.size - index * WIDTH)
        entries = decode_bundle(self._read(ENTRIES, index, width))
        if len(entries) < width:
            raise DamagedTreeError(f"entry bundle {index} is too short")
        return entries[:width]

    def entry(self, index: int) -> bytes:
        """Returns one entry. Raises DamagedTreeError, OSError."""
        return self.bundle(index // WIDTH)[index % WIDTH]

    def _tile(self, level: int, index: int) -> list[bytes]:
        width = min(WIDTH, (self.size >> 8 * level) - index * WIDTH)
        content = self._read(str(level), index, width)
        if width <= 0 or len(content) < width * HASH_BYTES:
            raise DamagedTreeError(f"tile {level}/{index} is too short")
        return [content[at : at + HASH_BYTES] for at in range(0, width * HASH_BYTES, HASH_BYTES)]

    def _read(self, kind: str, index: int, width: int) -> bytes:
        # Without the partial tile, the full one begins with the same entries.
        for path in (tile_path(self._directory, kind, index, w) for w in (width, WIDTH)):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                continue
        raise DamagedTreeError(f"tile {kind}/{index} is missing")


def tile_path(directory: Path, kind: str, index: int, width: int) -> Path:
    """Returns the path of a tile: `kind` is its level, or `entries`."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03d}")
    path = directory.joinpath("tile", kind, *groups)
    return path if width == WIDTH else path.with_name(path.name + ".p") / str(width)


def levels_of(size: int) -> int:
    """Returns the number of levels of tiles in a tree of this size."""
    return max(1, (size.bit_length() + 7) // 8)


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Returns the content of an entry bundle."""
    return b"".join([_LENGTH.pack(len(entry)) + entry for entry in entries])


def decode_bundle(content: bytes) -> list[bytes]:
    """Returns the entries of a bundle. Raises DamagedTreeError."""
    entries, at = [], 0
    while at < len(content):
        start = at + _LENGTH.size
        at = start + int.from_bytes(content[at:start], "big")
        if start > len(content) or at > len(content):
            raise DamagedTreeError("an entry is cut off")
        entries.append(content[start:at])
    return entries
