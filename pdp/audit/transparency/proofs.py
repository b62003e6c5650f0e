"""Proofs as text: that a record is in a log (c2sp.org/tlog-proof), and that a checkpoint continues
an older one (the body that c2sp.org/tlog-witness uses for that)."""

import base64
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, or_, select

from pdp.audit.administration_log import KIND_ADMINISTRATION, is_recorded, placed_change
from pdp.audit.records import RECORD_BYTES_MAX
from pdp.audit.rows import filterable, payload_of
from pdp.audit.segments import (
    KIND_RECORD,
    DamagedSegmentError,
    Frame,
    list_segments,
    read_frames,
    read_header,
)
from pdp.audit.tables import audit_records
from pdp.audit.tombstones import tombstone_of
from pdp.audit.transparency.entries import entry_of, entry_of_text
from pdp.audit.transparency.merkle import consistency_proof, inclusion_proof, range_root
from pdp.audit.transparency.notes import Checkpoint, unverified_checkpoint
from pdp.audit.transparency.tiles import WIDTH, DamagedTreeError, TileReader
from pdp.audit.transparency.trees import CHECKPOINT, StoredTree, read_tree
from pdp.database.engine import begin_read

CHANGE_ID: Final = re.compile(r"(\d{1,18})/(\d{1,9})", re.ASCII)
KIND_ERASED: Final = b"E"
"""Of a tombstone in a proof."""


@dataclass(frozen=True, slots=True)
class Located:
    """A record and its place in a log."""

    log_id: str
    position: int
    payload: bytes
    kind: bytes = KIND_RECORD

    @property
    def entry(self) -> bytes:
        """The entry of the tree."""
        if self.kind == KIND_RECORD:
            return entry_of_text(self.payload)
        return entry_of(self.kind, self.payload)


def find_trees(directories: Iterable[Path]) -> list[StoredTree]:
    """Returns all trees below directories. Raises DamagedTreeError, OSError."""
    return [
        read_tree(path.parent)
        for directory in directories
        for path in sorted(directory.rglob(CHECKPOINT))
        if path.is_file()
    ]


def find_in_sql(engine: Engine, id_: str) -> list[Located]:
    """Returns the records of an id: a decision's, or REVISION/NUMBER of a change. Raises
    as `change_in_sql`."""
    change = CHANGE_ID.fullmatch(id_)
    if change is None:
        return records_in_sql(engine, id_)
    found = change_in_sql(engine, int(change[1]), int(change[2]))
    return [] if found is None else [found]


def records_in_sql(engine: Engine, decision_id: str) -> list[Located]:
    """Returns the records with a decision id, also reported ones. Raises DatabaseUnavailable."""
    column = audit_records.c
    key = filterable(decision_id)
    statement = select(column.log_id, column.position, column.record).where(
        or_(column.decision_id == key, column.decision_id.startswith(key + "/", autoescape=True))
    )
    with begin_read(engine) as connection:
        return [
            Located(row.log_id, row.position, payload_of(row.record))
            for row in connection.execute(statement)
        ]


def change_in_sql(engine: Engine, revision: int, number: int) -> Located | None:
    """Returns an administration record; None: there is none.

    Raises:
        DamagedTreeError: It has no place in the log yet.
        DatabaseUnavailable: The database does not answer.
    """
    with begin_read(engine) as connection:
        row = placed_change(connection, revision, number)
        if row is None and is_recorded(connection, revision, number):
            raise DamagedTreeError("the change has no place in the log yet: ask again later")
    if row is None or row["record"] is None:
        return None
    return Located(row["log_id"], row["position"], payload_of(row["record"]), KIND_ADMINISTRATION)


def records_on_disk(
    directories: Iterable[Path], trees: Iterable[StoredTree], decision_id: str
) -> Iterator[Located]:
    """Yields the records with a decision id in segments and archives. Raises OSError,
    DamagedTreeError."""
    for directory in directories:
        for origin in sorted({path.parent for path in directory.rglob("*.segment")}):
            yield from _in_segments(origin, decision_id)
    for tree in trees:
        yield from _in_archive(tree, decision_id)


def prove_record(trees: Iterable[StoredTree], record: Located, note: str | None = None) -> str:
    """Returns the proof that a record is in its log.

    Args:
        trees: All known trees.
        record: The record.
        note: The checkpoint to prove it for; None: the newest of the tree.

    Raises:
        DamagedTreeError: No tree holds the record, or the checkpoint is not of its tree.
        OSError: A file cannot be read.
    """
    entry = record.entry
    wanted = None if note is None else unverified_checkpoint(note)
    for tree in trees:
        checkpoint = tree.checkpoint if wanted is None else wanted
        index = record.position - tree.genesis.first_position + 1
        size = min(checkpoint.size, tree.checkpoint.size)
        if (tree.genesis.log_id, tree.checkpoint.origin) != (record.log_id, checkpoint.origin):
            continue
        if not 0 < index < size:
            continue
        reader = _reader_of(tree, checkpoint)
        if reader.entry(index) != entry:
            raise DamagedTreeError("the record is not what the tree says: it was changed")
        path = inclusion_proof(reader.fetch, index, checkpoint.size)
        kind = record.kind if tombstone_of(record.payload) is None else KIND_ERASED
        extra = base64.b64encode(kind + record.payload).decode()
        head = ["c2sp.org/tlog-proof@v1", f"extra {extra}", f"index {index}"]
        return _text(head, path, tree.note if note is None else note)
    raise DamagedTreeError("no checkpoint here covers the record")


def prove_consistency(trees: Iterable[StoredTree], old_note: str, note: str | None = None) -> str:
    """Returns the proof that a checkpoint continues an older one of its tree.

    Raises:
        DamagedTreeError: There is no such tree, or it does not continue the older checkpoint.
        OSError: A file cannot be read.
    """
    old = unverified_checkpoint(old_note)
    for tree in trees:
        new = tree.checkpoint if note is None else unverified_checkpoint(note)
        if old.origin != tree.checkpoint.origin or new.origin != old.origin:
            continue
        if not 0 < old.size <= new.size:
            raise DamagedTreeError("the older checkpoint is larger: the tree was cut off")
        _reader_of(tree, old)
        reader = _reader_of(tree, new)
        path = consistency_proof(reader.fetch, old.size, new.size)
        return _text([f"old {old.size}"], path, tree.note if note is None else note)
    raise DamagedTreeError(f"there is no tree of {old.origin} here")


def _reader_of(tree: StoredTree, checkpoint: Checkpoint) -> TileReader:
    """Returns the tree at the size of a checkpoint. Raises DamagedTreeError."""
    if checkpoint.size > tree.checkpoint.size:
        raise DamagedTreeError("the checkpoint is newer than the tree here")
    reader = TileReader(tree.directory, tree.checkpoint.size)
    if range_root(reader.fetch, 0, checkpoint.size) != checkpoint.root:
        raise DamagedTreeError(f"the tree has another root at size {checkpoint.size}")
    return reader


def _text(head: list[str], path: list[bytes], note: str) -> str:
    hashes = [base64.b64encode(node).decode() for node in path]
    return "\n".join([*head, *hashes]) + "\n\n" + note


def _in_segments(origin: Path, decision_id: str) -> Iterator[Located]:
    wanted = json.dumps(decision_id).encode()
    for _, path in list_segments(origin):
        try:
            header, start = read_header(path)
        except DamagedSegmentError:
            continue
        for item in read_frames(path, start):
            if not isinstance(item, Frame) or item.kind != KIND_RECORD:
                continue
            if wanted in item.payload and json.loads(item.payload)["decision_id"] == decision_id:
                yield Located(header.log_id, item.position, item.payload)


def _in_archive(tree: StoredTree, decision_id: str) -> Iterator[Located]:
    wanted = json.dumps(decision_id).encode()
    reader = TileReader(tree.directory, tree.checkpoint.size)
    for path in sorted((tree.directory / "records").glob("*.jsonl.gz")):
        for line in read_lines(path):
            if wanted in line and json.loads(line)["decision_id"] == decision_id:
                index = _index_of(reader, path, entry_of_text(line))
                position = tree.genesis.first_position + index - 1
                yield Located(tree.genesis.log_id, position, line)


def _index_of(reader: TileReader, path: Path, entry: bytes) -> int:
    first, _, end = path.name.removesuffix(".jsonl.gz").partition("-")
    for bundle in range(int(first) // WIDTH, (int(end) - 1) // WIDTH + 1):
        entries = reader.bundle(bundle)
        if entry in entries:
            return bundle * WIDTH + entries.index(entry)
    raise DamagedTreeError(f"{path}: a record is not in the tree")


def read_lines(path: Path) -> Iterator[bytes]:
    """Yields the lines of an archived file. Raises DamagedTreeError, OSError."""
    try:
        with gzip.open(path, "rb") as file:
            while line := file.readline(RECORD_BYTES_MAX + 2):
                if not line.endswith(b"\n"):
                    raise DamagedTreeError(f"{path}: a line is cut off or too long")
                yield line[:-1]
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DamagedTreeError(f"{path}: cannot be decompressed") from None
