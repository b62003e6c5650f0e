"""The trees of one origin's logs, beside their segments.

    <origin>/tree/<name>/checkpoint      the newest checkpoint, a signed note
    <origin>/tree/<name>/cosigned        the newest one that a witness cosigned; see `witnesses`
    <origin>/tree/<name>/tile/...        see `tiles`

A tree is one log from some position on. A new tree begins if the log is a new one, if frames are
missing that no tree has read, or if a published checkpoint shows that this tree was restored from a
backup. Its first entry names the last checkpoint of the tree before.
"""

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

import structlog

from pdp.audit.locks import take_lock
from pdp.audit.segments import (
    NO_DIGEST,
    DamagedSegmentError,
    Header,
    Place,
    list_segments,
    make_directory,
    read_header,
    valid_bytes,
)
from pdp.audit.transparency.entries import Genesis, parse_genesis, read_entries
from pdp.audit.transparency.files import replace_file
from pdp.audit.transparency.notes import (
    Checkpoint,
    NoteError,
    Signer,
    open_checkpoint,
    sign_note,
    unverified_checkpoint,
)
from pdp.audit.transparency.tiles import DamagedTreeError, TileReader, TileWriter
from pdp.audit.writer import Synced

TREES: Final = "tree"
CHECKPOINT: Final = "checkpoint"
LOCK_SECONDS_MAX: Final = 1.0
_YIELD_SECONDS: Final = 0.0002
_TREE_NAME: Final = re.compile(r"(\d{6,9})-[0-9a-f]{8}\Z", re.ASCII)

WHY_FIRST: Final = "first tree"
WHY_NEW_LOG: Final = "another log"
WHY_MISSING: Final = "frames are missing"
WHY_RESTORED: Final = "restored directory"
WHY_DATABASE: Final = "restored database"
WHY_UNSIGNED: Final = "checkpoint without a trusted signature"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredTree:
    """A tree with a checkpoint on disk."""

    directory: Path
    note: str
    """The newest checkpoint, whose signatures are not checked."""
    checkpoint: Checkpoint
    genesis: Genesis

    @property
    def end(self) -> int:
        """The position after the last frame that the checkpoint covers."""
        return self.genesis.first_position + self.checkpoint.size - 1


def stored_trees(origin: Path) -> Iterator[StoredTree]:
    """Yields the trees below an origin's directory, oldest first. Skips what has no checkpoint.

    Raises:
        DamagedTreeError: A checkpoint or a first entry cannot be read.
        OSError: A file cannot be read.
    """
    if not (origin / TREES).is_dir():
        return
    for directory in sorted((origin / TREES).iterdir()):
        path = directory / CHECKPOINT
        if path.is_file():
            yield read_tree(directory)


def read_tree(directory: Path) -> StoredTree:
    """Reads a tree's checkpoint and first entry. Raises DamagedTreeError, OSError."""
    try:
        note = (directory / CHECKPOINT).read_text(encoding="utf-8")
        checkpoint = unverified_checkpoint(note)
    except ValueError as error:
        raise DamagedTreeError(f"{directory}: {error}") from None
    if not checkpoint.size:
        raise DamagedTreeError(f"{directory}: the checkpoint is empty")
    genesis = parse_genesis(TileReader(directory, checkpoint.size).entry(0))
    return StoredTree(directory, note, checkpoint, genesis)


class _Tree:
    """A tree that this process extends."""

    def __init__(self, directory: Path, name: str, genesis: Genesis, size: int) -> None:
        self.directory = directory
        self.genesis = genesis
        self.origin = name
        self.tiles = TileWriter(directory, size)
        self.signed = size
        """The size that the newest checkpoint covers."""
        self.place = Place(0, 0, 0, NO_DIGEST)
        """Where to continue to read; sequence 0: unknown."""

    @property
    def next_position(self) -> int:
        return self.genesis.first_position + self.tiles.size - 1

    @property
    def signed_position(self) -> int:
        return self.genesis.first_position + self.signed - 1


class OriginTrees:
    """Extends the trees of one origin. For one thread at a time; a lock keeps others out."""

    def __init__(
        self,
        directory: Path,
        name: str,
        signers: Sequence[Signer],
        published: Callable[[str], Sequence[str]] = lambda _: (),
    ) -> None:
        """Opens the trees.

        Args:
            directory: The directory of the origin.
            name: The first part of every checkpoint's origin line.
            signers: The keys that sign checkpoints.
            published: Returns the last notes of a tree that its destinations have.

        Raises:
            OSError: The directory cannot be used, or another process holds its trees.
            DamagedTreeError: The newest tree of a log cannot be read.
        """
        self._directory = directory
        self._name = name
        self._signers = signers
        self._published = published
        make_directory(directory / TREES)
        self._lock = take_lock(directory / TREES, LOCK_SECONDS_MAX)
        if self._lock is None:
            raise OSError(f"another process holds the trees of {directory}")
        self._trees: dict[str, _Tree] = {}
        """By log id: the newest tree of each log."""
        self._last: str | None = None
        """The newest note of the newest tree."""
        self._why = WHY_FIRST
        """Why a tree for another log would begin."""
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Releases the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def newest_notes(self) -> dict[str, str]:
        """Returns the newest checkpoint of each tree, by origin line. Raises OSError."""
        return {
            tree.origin: (tree.directory / CHECKPOINT).read_text(encoding="utf-8")
            for tree in self._trees.values()
            if tree.signed
        }

    def path_of(self, origin: str) -> Path:
        """Returns the directory of the tree with an origin line."""
        return self._directory / TREES / origin.rpartition("/")[2]

    def signed_position(self, log_id: str) -> int:
        """Returns the position after the last frame of a log that a checkpoint covers."""
        tree = self._trees.get(log_id)
        return 0 if tree is None else tree.signed_position

    def next_position(self, log_id: str) -> int:
        """Returns the position in a log of the next entry of its tree."""
        tree = self._trees.get(log_id)
        return 0 if tree is None else tree.next_position

    def append(self, log_id: str, position: int, entries: Sequence[bytes]) -> None:
        """Appends the entries of frames from a position on, of a log without segments.

        Raises:
            OSError: A tile cannot be written.
        """
        tree = self._trees.get(log_id)
        if tree is None:
            tree = self._begin(log_id, position, self._why)
        if position > tree.next_position:
            tree = self._begin(log_id, position, WHY_MISSING)
        tree.tiles.append(entries[max(0, tree.next_position - position) :])

    def extend(self, until: Synced | None = None) -> None:
        """Reads the frames that are new.

        Args:
            until: How far the log is synced, if a process writes it; None: all of it.

        Raises:
            OSError: A segment cannot be read, or a tile cannot be written.
            DamagedTreeError: A frame cannot be an entry.
        """
        segments = list_segments(self._directory)
        if until is not None:
            segments = [item for item in segments if item[0] <= until.place.sequence]
        for (sequence, path), after in zip_longest(segments, segments[1:]):
            try:
                header, start = read_header(path)
            except DamagedSegmentError:
                continue  # the shipper reports it
            except FileNotFoundError:
                continue  # it was just shipped: a checkpoint covers it
            end = valid_bytes(header, after and after[1])
            if until is not None and sequence == until.place.sequence:
                end = until.place.byte_offset
            self._extend_by(path, header, start, end)

    def checkpoint(self) -> list[tuple[str, str]]:
        """Signs a checkpoint of each tree that has grown, and makes it durable.

        Returns:
            Origin line and note of each.

        Raises:
            OSError: A file cannot be written.
            NoteError: A key did not sign.
            DamagedTreeError: Somebody has deleted the tree.
        """
        notes = []
        for tree in self._trees.values():
            size = tree.tiles.size
            if size == tree.signed:
                continue
            if tree.signed and not (tree.directory / CHECKPOINT).is_file():
                raise DamagedTreeError(f"{tree.directory} was deleted")
            tree.tiles.sync()
            note = sign_note(Checkpoint(tree.origin, size, tree.tiles.root()).text(), self._signers)
            replace_file(tree.directory / CHECKPOINT, note.encode())
            tree.signed, self._last, self._why = size, note, WHY_NEW_LOG
            tree.tiles.remove_outdated()
            notes.append((tree.origin, note))
        return notes

    def fork(self, log_id: str, why: str) -> None:
        """Continues a log in a new tree."""
        tree = self._trees.get(log_id)
        if tree is not None:
            self._begin(tree.genesis.log_id, tree.next_position, why)

    # --- reading ---------------------------------------------------------------------------------

    def _extend_by(self, path: Path, header: Header, start: Place, end: int | None) -> None:
        tree = self._trees.get(header.log_id)
        if tree is None:
            tree = self._begin(header.log_id, header.position, self._why)
        place = tree.place if tree.place.sequence == header.sequence else start
        if header.sequence < tree.place.sequence or place.byte_offset == end:
            return
        if place.position > tree.next_position:
            tree = self._begin(header.log_id, place.position, WHY_MISSING)
        for entries, after in read_entries(path, place, end):
            first = after.position - len(entries)
            tree.tiles.append(entries[max(0, tree.next_position - first) :])
            tree.place = after
            time.sleep(_YIELD_SECONDS)  # as the shipper does

    def _begin(self, log_id: str, position: int, why: str) -> _Tree:
        names = [path.name for path in (self._directory / TREES).iterdir() if path.is_dir()]
        numbers = [int(found[1]) for name in names if (found := _TREE_NAME.match(name))]
        number = 1 + max(numbers, default=0)
        name = f"{number:06d}-{secrets.token_hex(4)}"
        directory = self._directory / TREES / name
        make_directory(directory)
        genesis = Genesis(self._directory.name, log_id, position, why, self._last)
        tree = _Tree(directory, self._origin_of(name), genesis, 0)
        tree.tiles.append([genesis.entry()])
        self._trees[log_id] = tree
        if why not in {WHY_FIRST, WHY_NEW_LOG}:
            _log.error("audit_tree_forked", tree=tree.origin, why=why, position=position)
        return tree

    def _load(self) -> None:
        stored = list(stored_trees(self._directory))
        for found in stored:
            origin = self._origin_of(found.directory.name)
            if not self._has_signed(found.note):
                # Somebody else may have written it: what follows must not vouch for it.
                _log.error("audit_checkpoint_not_trusted", tree=str(found.directory))
                if not self._trees:
                    self._last, self._why = found.note, WHY_UNSIGNED
                continue
            self._last, self._why = found.note, WHY_NEW_LOG
            size = found.checkpoint.size
            tree = _Tree(found.directory, found.checkpoint.origin, found.genesis, size)
            if tree.tiles.root() != found.checkpoint.root:
                raise DamagedTreeError(f"{found.directory}: the tiles do not have the signed root")
            if found.checkpoint.origin != origin:
                _log.warning("audit_tree_renamed", tree=found.checkpoint.origin, name=self._name)
            self._trees[found.genesis.log_id] = tree
        for log_id, tree in list(self._trees.items()):
            ahead = self._ahead_of(tree)
            if ahead is not None:
                self._last, self._why = ahead, WHY_RESTORED
                self.fork(log_id, WHY_RESTORED)

    def _ahead_of(self, tree: _Tree) -> str | None:
        """Returns a published note that this tree is behind: it was restored from a backup."""
        found: str | None = None
        largest = tree.signed
        for note in self._published(tree.origin):
            if not self._has_signed(note):
                continue
            checkpoint = unverified_checkpoint(note)
            same = (tree.signed, tree.tiles.root()) == (checkpoint.size, checkpoint.root)
            if checkpoint.size >= largest and not same:
                found, largest = note, checkpoint.size
        return found

    def _has_signed(self, note: str) -> bool:
        """Returns whether one of the keys has signed a checkpoint."""
        try:
            open_checkpoint(note, [signer.key for signer in self._signers])
        except NoteError:
            return False
        return True

    def _origin_of(self, name: str) -> str:
        return f"{self._name}/{self._directory.name}/{name}"
