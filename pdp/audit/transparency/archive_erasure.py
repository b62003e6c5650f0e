"""Erases personal data from archives: a tombstone takes the line of a record.

The administration record of the erasure is committed before a file is replaced. After a crash
between the two, the next run finds the texts again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Engine

from pdp.audit.erasure import (
    BATCH_RECORDS,
    Erasable,
    ErasureReport,
    ErasureRequest,
    Write,
    entomb,
)
from pdp.audit.retention import lock_retention
from pdp.audit.rows import record_row
from pdp.audit.segments import (
    KIND_RECORD,
    NO_DIGEST,
    DamagedSegmentError,
    Frame,
    Log,
    Place,
    read_frames,
    read_header,
)
from pdp.audit.transparency.archives import (
    RECORDS,
    SUFFIX,
    copy_path,
    indexes_of,
    locked,
    new_path,
    note_of,
    put_file,
    text_of_note,
    write_lines,
)
from pdp.audit.transparency.entries import entry_of_text
from pdp.audit.transparency.notes import NoteError, Signer, open_note
from pdp.audit.transparency.proofs import read_lines
from pdp.audit.transparency.tiles import DamagedTreeError, TileReader
from pdp.audit.transparency.trees import StoredTree
from pdp.audit.transparency.verification import origin_in_sql
from pdp.database.engine import begin_read


def erase_archived(
    engine: Engine,
    write: Write,
    tree: StoredTree,
    signers: Sequence[Signer],
    request: ErasureRequest,
    *,
    at: float,
    report: ErasureReport,
) -> None:
    """Erases records in the archive of a tree, signs the changed files, and deletes their copies as
    Parquet.

    Args:
        engine: The database.
        write: Begins a transaction in the name of the author.
        tree: The tree in the archive, which was verified.
        signers: The keys that sign the files.
        request: Whose records.
        at: The time of the erasure; seconds since 1970-01-01 UTC.
        report: Gets what was done.

    Raises:
        DamagedTreeError: A file is not what its note and the tree say: it is not changed.
        DatabaseUnavailable: The database does not answer.
        OSError: A file cannot be read or written.
    """
    if not (tree.directory / RECORDS).is_dir():
        return
    with begin_read(engine) as connection:
        origin = origin_in_sql(connection, tree) or tree.genesis.origin
    with locked(tree.directory):
        for path in sorted((tree.directory / RECORDS).glob(f"*{SUFFIX}")):
            _check_note(tree, path, signers)
            found = list(_find(tree, path, Log(origin, tree.genesis.log_id), request))
            tombstones: dict[int, bytes] = {}
            for first in range(0, len(found), BATCH_RECORDS):
                with write() as transaction:
                    lock_retention(transaction.connection)
                    batch = entomb(transaction, found[first : first + BATCH_RECORDS], at, report)
                tombstones |= {position: tombstone for (_, position), tombstone in batch.items()}
            if tombstones:
                lines = (tombstones.get(position, line) for position, line in _lines(tree, path))
                write_lines(path, lines)
                copy = copy_path(path)
                for old in copy.parent.glob(f"{copy.name}*"):
                    old.unlink()
                put_file(path, note_of(tree, path, new_path(path), signers))


def waiting_in_segments(directories: Iterable[Path], request: ErasureRequest) -> int:
    """Returns how many records that a request concerns are still in segments, shipped or not.
    Raises OSError."""
    count = 0
    for directory in directories:
        for path in sorted(directory.rglob("*.segment")):
            try:
                _, start = read_header(path)
                for item in read_frames(path, start):
                    if isinstance(item, Frame) and item.kind == KIND_RECORD:
                        count += request.concerns(item.payload) is not None
            except (DamagedSegmentError, FileNotFoundError):
                continue
    return count


def _check_note(tree: StoredTree, path: Path, signers: Sequence[Signer]) -> None:
    """Checks that the keys have signed a file: a new signature must not vouch for other content."""
    note = path.with_name(path.name + ".note")
    try:
        text = open_note(note.read_text(encoding="utf-8"), [signer.key for signer in signers])
    except (NoteError, UnicodeDecodeError, FileNotFoundError) as error:
        raise DamagedTreeError(f"{note}: {error}") from None
    if text != text_of_note(tree, path, path):
        raise DamagedTreeError(f"{path}: not the file that its note describes")


def _find(tree: StoredTree, path: Path, log: Log, request: ErasureRequest) -> Iterator[Erasable]:
    reporter = log.origin.rpartition("/")[0] or None
    for position, line in _lines(tree, path):
        data: Mapping[str, object] | None = request.concerns(line)
        if data is not None:
            after = Place(0, 0, position + 1, NO_DIGEST)
            row = record_row(Frame(KIND_RECORD, line, position, after, NO_DIGEST), log, reporter)
            yield Erasable((log, position), row, line, data)


def _lines(tree: StoredTree, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the records of a file with their positions, each compared with its entry."""
    reader = TileReader(tree.directory, tree.checkpoint.size)
    lines = read_lines(path)
    first, end = indexes_of(path)
    for index in range(first, end):
        entry = reader.entry(index)
        if entry[:1] != KIND_RECORD:
            continue
        line = next(lines, b"")
        if entry_of_text(line) != entry:
            raise DamagedTreeError(f"{path}: record {index} is not what the tree says")
        yield index + tree.genesis.first_position - 1, line
    if next(lines, None) is not None:
        raise DamagedTreeError(f"{path}: holds more records than the tree")
