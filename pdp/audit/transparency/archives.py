"""Archives: the texts of old records in compressed, signed files next to a copy of their tree.

    <archive>/<origin>/<tree>/checkpoint, tile/...
    <archive>/<origin>/<tree>/records/<first>-<end>.jsonl.gz        one record a line, in order
    <archive>/<origin>/<tree>/records/<first>-<end>.jsonl.gz.note   its digest, signed

`first` and `end` are indexes of the tree. Line by line, a file holds the texts of its entries that
are records; gaps and counts are in the entries themselves. An erased record has the line of its
tombstone.
"""

import gzip
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine, RowMapping, func, select

from pdp.audit.erasure import last_erasure
from pdp.audit.locks import take_lock
from pdp.audit.retention import archived_position, lock_retention, prune
from pdp.audit.rows import payload_of
from pdp.audit.segments import KIND_RECORD, Log, Place, make_directory, sync_directory
from pdp.audit.tables import audit_records, audit_shipping
from pdp.audit.transparency.entries import entry_of_text
from pdp.audit.transparency.files import replace_file, sync_file
from pdp.audit.transparency.notes import Signer, sign_note
from pdp.audit.transparency.tiles import (
    ENTRIES,
    WIDTH,
    DamagedTreeError,
    TileReader,
    levels_of,
    tile_path,
)
from pdp.audit.transparency.trees import CHECKPOINT, StoredTree
from pdp.audit.transparency.verification import origin_in_sql
from pdp.audit.transparency.witnesses import COSIGNED, cosigned_note
from pdp.database.engine import begin_read, begin_write, extended_timeouts

FILE_ENTRIES_MAX: Final = 1 << 18
ROWS_AT_ONCE: Final = 500
RECORDS: Final = "records"
SUFFIX: Final = ".jsonl.gz"
LOCK_SECONDS_MAX: Final = 1.0
_TITLE: Final = "pdp-audit-archive/v1"


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """What was archived of one tree."""

    records: int
    kept: int
    """Records of them that a hold keeps in SQL."""


class _Written(NamedTuple):
    """A new file that is not in its place yet."""

    path: Path
    note: str
    records: int
    last_erasure: int


class _Part(NamedTuple):
    """Frames of a log to archive."""

    log: Log
    first: int
    end: Place


def archive(
    engine: Engine,
    tree: StoredTree,
    directory: Path,
    before: float,
    signers: Sequence[Signer],
    *,
    remove: bool,
) -> ArchiveReport:
    """Archives the oldest records of a tree, as far as they are decided before a time.

    Args:
        engine: The database.
        tree: The tree, which was verified.
        directory: The archive.
        before: Seconds since 1970-01-01 UTC.
        signers: The keys that sign the files.
        remove: Whether to remove the archived rows from SQL, once the files are on disk.

    Raises:
        DamagedTreeError: A row is not what the tree says, or is missing: nothing is removed.
        DatabaseUnavailable: The database does not answer.
        OSError: A file cannot be written.
    """
    target = directory / tree.genesis.origin / tree.directory.name
    make_directory(target)
    records = kept = 0
    with locked(target):
        while (part := _next_part(engine, tree, target, before)) is not None:
            if not records:
                copy_tree(tree, target)
            written = _write_part(engine, tree, part, target, signers)
            with begin_write(engine) as connection, extended_timeouts(connection):
                lock_retention(connection)
                if last_erasure(connection) != written.last_erasure:
                    # It may hold texts that were erased meanwhile; the next one may get another
                    # name.
                    new_path(written.path).unlink()
                    continue
                put_file(written.path, written.note)
                if remove:
                    kept += prune(connection, part.log, part.first, part.end)
            records += written.records
    return ArchiveReport(records, kept)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keeps other commands from the archive of a tree, and repairs what a crash has left.

    Raises:
        OSError: Another command is using it.
    """
    lock = take_lock(target, LOCK_SECONDS_MAX)
    if lock is None:
        raise OSError(f"another command is using the archive {target}")
    try:
        for new in target.glob(f"*{SUFFIX}.new"):
            _recover(target / RECORDS / new.stem)
        yield
    finally:
        os.close(lock)


def _recover(path: Path) -> None:
    note = path.with_name(path.name + ".note")
    if not path.exists():
        note.unlink(missing_ok=True)
    elif note.read_text(encoding="utf-8").split("\n")[3] == _digest(new_path(path)):
        new_path(path).rename(path)
        sync_directory(path.parent)
        return
    new_path(path).unlink()


def put_file(path: Path, note: str) -> None:
    """Puts a synced new file (`new_path`) in its place. `locked` completes the replacement of a
    file that a crash has interrupted. Raises OSError."""
    replace_file(path.with_name(path.name + ".note"), note.encode())
    new_path(path).rename(path)
    sync_directory(path.parent)


def new_path(path: Path) -> Path:
    """Returns the path of a file before it is put in its place: outside of `records`."""
    return path.parent.with_name(f"{path.name}.new")


def copy_path(path: Path) -> Path:
    """Returns the path of the copy of an archived file as Parquet; see `parquet`."""
    return path.parent.with_name("parquet") / f"{path.name.removesuffix(SUFFIX)}.parquet"


def note_of(tree: StoredTree, path: Path, content: Path, signers: Sequence[Signer]) -> str:
    """Returns the signed note of an archived file. Raises OSError, NoteError."""
    return sign_note(text_of_note(tree, path, content), signers)


def text_of_note(tree: StoredTree, path: Path, content: Path) -> str:
    """Returns what the note of an archived file at `path` says, if it has a content. Raises
    OSError."""
    first, end = indexes_of(path)
    return f"{_TITLE}\n{tree.checkpoint.origin}\n{first} {end}\n{_digest(content)}\n"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def indexes_of(path: Path) -> tuple[int, int]:
    """Returns the first index of a file, and the index after its last one."""
    first, _, end = path.name.removesuffix(SUFFIX).partition("-")
    return int(first), int(end)


def write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Writes the new content of a file to `new_path`, synced; returns the number of lines."""
    count = 0
    with new_path(path).open("wb") as raw:
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            for line in lines:
                file.write(line + b"\n")
                count += 1
        raw.flush()
        os.fsync(raw.fileno())
    return count


def copy_tree(tree: StoredTree, target: Path) -> None:
    """Copies the files of a tree that its checkpoint covers, the checkpoint last. Raises OSError,
    DamagedTreeError."""
    size = tree.checkpoint.size
    kinds = [(ENTRIES, size)]
    kinds += [(str(level), size >> 8 * level) for level in range(levels_of(size))]
    for kind, count in kinds:
        for first in range(0, count, WIDTH):
            width = min(WIDTH, count - first)
            source = tile_path(tree.directory, kind, first // WIDTH, width)
            if not source.is_file():
                # The tree has grown since: the full tile is there, and a newer checkpoint.
                raise DamagedTreeError(f"{source} is missing: the tree has grown; try again")
            copy = tile_path(target, kind, first // WIDTH, width)
            if copy.is_file() and copy.stat().st_size == source.stat().st_size:
                continue
            make_directory(copy.parent)
            shutil.copyfile(source, copy)
            sync_file(copy)
    cosigned = cosigned_note(tree.directory)
    if cosigned is not None and cosigned[1].size <= size:
        replace_file(target / COSIGNED, cosigned[0].encode())
    replace_file(target / CHECKPOINT, tree.note.encode())


def _next_part(engine: Engine, tree: StoredTree, target: Path, before: float) -> _Part | None:
    """Returns the next frames to archive: up to a record, and not more than a file holds."""
    column, place = audit_records.c, audit_shipping.c
    with begin_read(engine) as connection:
        origin = origin_in_sql(connection, tree)
        if origin is None:
            return None
        log = Log(origin, tree.genesis.log_id)
        first = max(
            archived_position(connection, log),
            tree.genesis.first_position,
            tree.genesis.first_position + _archived_index(target) - 1,
        )
        shipped: int = connection.execute(
            select(place.position).where(place.origin == origin, place.log_id == log.log_id)
        ).scalar_one()
        mine = (column.origin == origin, column.log_id == log.log_id, column.position >= first)
        newer: int | None = connection.execute(
            select(func.min(column.position)).where(*mine, column.decided_at >= before)
        ).scalar()
        bound = min(tree.end, shipped, first + FILE_ENTRIES_MAX)
        bound = bound if newer is None else min(bound, newer)
        last = connection.execute(
            select(column.position, column.segment, column.digest)
            .where(*mine, column.position < bound)
            .order_by(column.position.desc())
            .limit(1)
        ).one_or_none()
    if last is None:
        return None
    return _Part(log, first, Place(last.segment, 0, last.position + 1, bytes(last.digest)))


def _archived_index(target: Path) -> int:
    """Returns the index after the last one of the archive."""
    ends = [indexes_of(path)[1] for path in (target / RECORDS).glob(f"*{SUFFIX}")]
    return max(ends, default=1)


def _write_part(
    engine: Engine, tree: StoredTree, part: _Part, target: Path, signers: Sequence[Signer]
) -> _Written:
    first = part.first - tree.genesis.first_position + 1
    end = part.end.position - tree.genesis.first_position + 1
    path = target / RECORDS / f"{first}-{end}{SUFFIX}"
    make_directory(path.parent)
    with begin_read(engine) as connection, extended_timeouts(connection):
        erased = last_erasure(connection)
        records = write_lines(path, _texts(connection, tree, part))
    return _Written(path, note_of(tree, path, new_path(path), signers), records, erased)


def _texts(connection: Connection, tree: StoredTree, part: _Part) -> Iterator[bytes]:
    """Yields the texts of all records of a part, each compared with its entry."""
    reader = TileReader(tree.directory, tree.checkpoint.size)
    rows = _rows(connection, part)
    row = next(rows, None)
    for position in range(part.first, part.end.position):
        entry = reader.entry(position - tree.genesis.first_position + 1)
        if entry[:1] != KIND_RECORD:
            continue
        if row is None or row["position"] != position:
            raise DamagedTreeError(f"record {position} is not in the database")
        text = payload_of(row["record"])
        if entry_of_text(text) != entry:
            raise DamagedTreeError(f"row {position} is not what the tree says")
        yield text
        row = next(rows, None)


def _rows(connection: Connection, part: _Part) -> Iterator[RowMapping]:
    column = audit_records.c
    statement = (
        select(column.position, column.record)
        .where(column.origin == part.log.origin, column.log_id == part.log.log_id)
        .where(column.position >= part.first, column.position < part.end.position)
        .order_by(column.position)
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
    yield from connection.execute(statement).mappings()
