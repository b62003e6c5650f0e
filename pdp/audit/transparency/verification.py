"""Verifies trees on disk, and compares the decision log in SQL with them."""

import heapq
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, select

from pdp.audit.administration_log import (
    KIND_ADMINISTRATION,
    ORIGIN,
    placed_after,
)
from pdp.audit.counts import count_of
from pdp.audit.records import MalformedRecordError
from pdp.audit.retention import archived_position
from pdp.audit.rows import payload_of
from pdp.audit.segments import (
    KIND_GAP,
    KIND_RECORD,
    DamagedSegmentError,
    Log,
    gap_payload,
    list_segments,
    read_header,
)
from pdp.audit.tables import audit_gaps, audit_records, audit_shipping
from pdp.audit.transparency.entries import entry_of, entry_of_change, entry_of_text
from pdp.audit.transparency.merkle import leaf_hash, perfect_root, range_root
from pdp.audit.transparency.notes import (
    Checkpoint,
    NoteError,
    VerifierKey,
    cosigned_at,
    open_checkpoint,
    signatures_of,
)
from pdp.audit.transparency.tiles import WIDTH, DamagedTreeError, TileReader
from pdp.audit.transparency.trees import StoredTree
from pdp.audit.transparency.witnesses import cosigned_note
from pdp.database.engine import begin_read, extended_timeouts

ROWS_AT_ONCE: Final = 500
_STORED: Final = (KIND_RECORD, KIND_ADMINISTRATION)
"""The kinds of entries that have rows."""


@dataclass(slots=True)
class TreeReport:
    """The result for one tree."""

    origin: str
    entries: int = 0
    records: int = 0
    changes: int = 0
    """Administration records."""
    dropped: int = 0
    folded: dict[str, int] = field(default_factory=dict)
    """By decision id: how many decisions a record counts."""
    problems: list[str] = field(default_factory=list)
    cosigned_size: int = 0
    cosigned_at: dict[str, int] = field(default_factory=dict)
    """By witness: when it cosigned the checkpoint of that size, in Unix seconds."""
    in_sql: int = 0
    """Records that SQL has as the tree says."""
    missing: int = 0
    """Records that SQL should have."""

    @property
    def decisions(self) -> int:
        """The number of decisions that the tree accounts for."""
        return self.records + sum(self.folded.values()) - len(self.folded) + self.dropped


def verify_tree(
    tree: StoredTree,
    keys: Sequence[VerifierKey],
    older: Sequence[Checkpoint] = (),
    *,
    witnesses: Sequence[VerifierKey] = (),
    cosignatures: int = 0,
) -> TreeReport:
    """Verifies entries, hashes and the checkpoints of a tree.

    Args:
        tree: The tree.
        keys: Keys of which one must have signed the checkpoint; none: signatures are not checked.
        older: Older checkpoints, of any tree, that it must continue.
        witnesses: Keys of witnesses.
        cosignatures: How many of them must have cosigned the tree.

    Raises:
        OSError: A file cannot be read.
    """
    report = TreeReport(tree.checkpoint.origin)
    size = tree.checkpoint.size
    reader = TileReader(tree.directory, size)
    try:
        if keys:
            open_checkpoint(tree.note, keys)
        cosigned = _cosigned(tree, keys, witnesses, report)
        if len(report.cosigned_at) < cosignatures:
            raise NoteError(
                f"{len(report.cosigned_at)} witnesses have cosigned it, and not {cosignatures}"
            )
        for first in range(0, size, WIDTH):
            entries = reader.bundle(first // WIDTH)
            leaves = reader.tile(0, first // WIDTH)
            for index, entry in enumerate(entries):
                if leaf_hash(entry) != leaves[index]:
                    raise DamagedTreeError(f"entry {first + index} is not what its leaf hash says")
            _account(report, entries)
        _check_upper_tiles(reader)
        if range_root(reader.fetch, 0, size) != tree.checkpoint.root:
            raise DamagedTreeError("the tree does not have the root of its checkpoint")
        for old in (*older, *cosigned):
            if old.origin != report.origin:
                continue
            if old.size > size or range_root(reader.fetch, 0, old.size) != old.root:
                raise DamagedTreeError(f"it does not continue the checkpoint of size {old.size}")
    except (DamagedTreeError, NoteError, MalformedRecordError) as error:
        report.problems.append(str(error))
    return report


def compare_with_sql(
    engine: Engine, tree: StoredTree, report: TreeReport, on_problem: Callable[[str], None]
) -> None:
    """Compares the rows of a log with a verified tree.

    Rows of segments that are still on disk may be missing, and rows that were archived.

    Raises:
        DatabaseUnavailable: The database does not answer.
        OSError: A file cannot be read.
    """
    with begin_read(engine) as connection, extended_timeouts(connection):
        walk = _Walk(tree, report, on_problem)
        origin = origin_in_sql(connection, tree)
        if origin is None:
            on_problem(f"{report.origin}: the database does not know this log")
            return
        archived = archived_position(connection, Log(origin, tree.genesis.log_id))
        walk.skip_to(archived)
        rows = _rows if origin != ORIGIN else _changes
        for row in rows(connection, origin, tree):
            walk.take(row, is_archived=row.position < archived)
        walk.skip_missing(_first_on_disk(tree))


def _cosigned(
    tree: StoredTree,
    keys: Sequence[VerifierKey],
    witnesses: Sequence[VerifierKey],
    report: TreeReport,
) -> list[Checkpoint]:
    """Returns the cosigned checkpoint of a tree, if there is one that a key has signed. Raises
    OSError."""
    found = cosigned_note(tree.directory)
    if found is None or found[1].origin != report.origin:
        return []
    note, checkpoint = found
    try:
        if keys:
            open_checkpoint(note, keys)
        _, signatures = signatures_of(note, witnesses)
    except NoteError:
        return []  # anybody could have written it, or deleted it
    report.cosigned_size = checkpoint.size
    # A key under two names is one witness, and a key of the log is none.
    third = {key.public: key for key in signatures}
    for key in keys:
        third.pop(key.public, None)
    report.cosigned_at = {key.name: cosigned_at(signatures[key]) for key in third.values()}
    return [checkpoint]


class _Row(NamedTuple):
    position: int
    name: str
    entry: bytes
    occurrences: int


class _Walk:
    """Compares the rows of one log, in order."""

    def __init__(
        self, tree: StoredTree, report: TreeReport, on_problem: Callable[[str], None]
    ) -> None:
        self._tree = tree
        self._report = report
        self._on_problem = on_problem
        self._reader = TileReader(tree.directory, tree.checkpoint.size)
        self._bundle: tuple[int, list[bytes]] = -1, []
        self._next = tree.genesis.first_position
        """The position of the next entry to compare."""

    def take(self, row: _Row, *, is_archived: bool) -> None:
        """Compares a row. An archived row is there because of a hold."""
        if not is_archived:
            self.skip_missing(row.position)
            self._next = row.position + 1
        report = self._report
        if self._entry(row.position) != row.entry:
            self._problem(row, "is not what the tree says")
            return
        report.in_sql += row.entry[:1] in _STORED
        counted = report.folded.get(row.name, 1)
        if row.occurrences > counted:
            self._problem(row, f"counts {row.occurrences} decisions, the tree {counted}")

    def skip_to(self, position: int) -> None:
        """Skips archived entries."""
        self._next = max(self._next, position)

    def skip_missing(self, position: int) -> None:
        """Reports the entries before a position that have no row, but counts, which never do."""
        first, count = 0, 0
        for number in range(self._next, min(position, self._tree.end)):
            if self._entry(number)[:1] in _STORED:
                first, count = first if count else number, count + 1
        if count:
            self._report.missing += count
            self._on_problem(
                f"{self._report.origin}: {count} records from {first} on are not in the database"
            )

    def _entry(self, position: int) -> bytes:
        index = position - self._tree.genesis.first_position + 1
        if self._bundle[0] != index // WIDTH:
            self._bundle = index // WIDTH, self._reader.bundle(index // WIDTH)
        return self._bundle[1][index % WIDTH]

    def _problem(self, row: _Row, what: str) -> None:
        self._on_problem(f"{self._report.origin}: row {row.position} ({row.name}) {what}")


def _account(report: TreeReport, entries: Sequence[bytes]) -> None:
    report.entries += len(entries)
    for entry in entries:
        if entry[:1] == KIND_RECORD:
            report.records += 1
        elif entry[:1] == KIND_ADMINISTRATION:
            report.changes += 1
        elif entry[:1] == KIND_GAP:
            count = count_of(entry[1:])
            if count is None:
                report.dropped += int(json.loads(entry[1:])["dropped"])
                continue
            known = report.folded.get(count.decision_id, 1)
            report.folded[count.decision_id] = max(known, count.occurrences)


def _check_upper_tiles(reader: TileReader) -> None:
    level = 1
    while count := reader.size >> 8 * level:
        for index in range(count):
            below = perfect_root(reader.tile(level - 1, index))
            if reader.tile(level, index // WIDTH)[index % WIDTH] != below:
                raise DamagedTreeError(f"tile {level}/{index // WIDTH} is not what is below it")
        level += 1


def origin_in_sql(connection: Connection, tree: StoredTree) -> str | None:
    """Returns the origin of the log in SQL: with the reporter's name, if a sidecar reported it."""
    column, genesis = audit_shipping.c, tree.genesis
    statement = select(column.origin).where(column.log_id == genesis.log_id)
    found = set(connection.execute(statement).scalars())
    if genesis.origin in found:
        return genesis.origin
    reported = sorted(origin for origin in found if origin.endswith(f"/{genesis.origin}"))
    return reported[0] if reported else None


def _rows(connection: Connection, origin: str, tree: StoredTree) -> Iterator[_Row]:
    records, gaps = audit_records.c, audit_gaps.c

    def of_log(column: Any) -> tuple[ColumnElement[bool], ...]:
        return (
            column.origin == origin,
            column.log_id == tree.genesis.log_id,
            column.position >= tree.genesis.first_position,
            column.position < tree.end,
        )

    columns = (records.position, records.decision_id, records.record, records.occurrences)
    in_records = connection.execute(
        select(*columns)
        .where(*of_log(records))
        .order_by(records.position)
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
    in_gaps = connection.execute(
        select(gaps.position, gaps.dropped, gaps.noticed_at)
        .where(*of_log(gaps))
        .order_by(gaps.position)
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
    yield from heapq.merge(
        (
            _Row(
                row.position,
                row.decision_id.partition("/")[0],
                entry_of_text(payload_of(row.record)),
                row.occurrences,
            )
            for row in in_records
        ),
        (
            _Row(
                row.position,
                "a gap",
                entry_of(KIND_GAP, gap_payload(row.dropped, row.noticed_at)),
                0,
            )
            for row in in_gaps
        ),
    )


def _changes(connection: Connection, _: str, tree: StoredTree) -> Iterator[_Row]:
    first = tree.genesis.first_position
    for row in placed_after(connection, tree.genesis.log_id, first, ROWS_AT_ONCE):
        if row["position"] >= tree.end:
            return
        name = f"change {row['number']} of revision {row['revision']}"
        yield _Row(row["position"], name, entry_of_change(row), 0)


def _first_on_disk(tree: StoredTree) -> int:
    """Returns the position from which on the log is still in segments."""
    for _, path in list_segments(tree.directory.parent.parent):
        try:
            header, _ = read_header(path)
        except DamagedSegmentError:
            continue
        if header.log_id == tree.genesis.log_id:
            return header.position
    return tree.end
