"""Reads the frames of the decision log as SQL holds them: each with its place and its digest."""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, RowMapping, Table, select

from pdp.audit.administration_log import KIND_ADMINISTRATION, ORIGIN, placed_records
from pdp.audit.rows import payload_of
from pdp.audit.segments import KIND_GAP, KIND_RECORD, Log, Place, gap_payload
from pdp.audit.tables import audit_counts, audit_gaps, audit_records, audit_shipping
from pdp.database.engine import begin_read

ROWS_AT_ONCE: Final = 500
KIND_COUNTS: Final = b"C"
"""A run of count frames; SQL holds only the digest of the last one."""


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame as SQL holds it."""

    log: Log
    segment: int
    position: int
    kind: bytes
    payload: bytes
    digest: bytes
    row: RowMapping
    frames: int = 1

    @property
    def name(self) -> str:
        """The frame in a message for people."""
        what = "a gap" if self.kind == KIND_GAP else f"{self.frames} counts"
        if self.kind == KIND_RECORD:
            what = f"decision {self.row['decision_id']}"
        elif self.kind == KIND_ADMINISTRATION:
            what = f"change {self.row['number']} of revision {self.row['revision']}"
        return f"row {self.position} ({what})"


def shipped_places(engine: Engine) -> dict[Log, Place]:
    """Returns how far each log was shipped. Raises DatabaseUnavailable."""
    with begin_read(engine) as connection:
        return places_in(connection)


def places_in(connection: Connection) -> dict[Log, Place]:
    """Returns how far each log was shipped, in the snapshot of a connection."""
    rows = connection.execute(select(audit_shipping)).mappings()
    return {
        Log(row["origin"], row["log_id"]): Place(
            row["segment"], row["byte_offset"], row["position"], bytes(row["digest"])
        )
        for row in rows
    }


def stored_frames(connection: Connection) -> Iterator[StoredFrame]:
    """Yields all frames of all logs, each log in order."""
    return heapq.merge(
        _rows(connection, audit_records, KIND_RECORD, lambda row: payload_of(row["record"])),
        _rows(
            connection,
            audit_gaps,
            KIND_GAP,
            lambda row: gap_payload(row["dropped"], row["noticed_at"]),
        ),
        _rows(connection, audit_counts, KIND_COUNTS, lambda _: b""),
        _changes(connection),
        key=lambda frame: (frame.log, frame.position),
    )


def _rows(
    connection: Connection, table: Table, kind: bytes, payload: Callable[[Any], bytes]
) -> Iterator[StoredFrame]:
    order = (table.c.origin, table.c.log_id, table.c.position, table.c.segment)
    statement = select(table).order_by(*order).execution_options(yield_per=ROWS_AT_ONCE)
    for row in connection.execute(statement).mappings():
        log = Log(row["origin"], row["log_id"])
        digest = bytes(row["digest"])
        frames = row["frames"] if kind == KIND_COUNTS else 1
        yield StoredFrame(
            log, row["segment"], row["position"], kind, payload(row), digest, row, frames
        )


def _changes(connection: Connection) -> Iterator[StoredFrame]:
    for row in placed_records(connection, ROWS_AT_ONCE):
        payload = b"" if row["record"] is None else payload_of(row["record"])
        log = Log(ORIGIN, row["log_id"])
        digest = bytes(row["digest"])
        yield StoredFrame(log, 1, row["position"], KIND_ADMINISTRATION, payload, digest, row)
