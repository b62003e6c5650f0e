"""Destinations of a shipper: the protocol, and SQL, where every log ends."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, Engine, select

from pdp.audit.counts import Counts, count_of
from pdp.audit.records import MalformedRecordError
from pdp.audit.rollups import RecordsRepeated, Rollups, insert_counted
from pdp.audit.rows import Row, gap_row, insert_new, record_row
from pdp.audit.segments import KIND_RECORD, Frame, Log, Place
from pdp.audit.tables import audit_gaps, audit_shipping
from pdp.database.bulk import insert_into
from pdp.database.engine import begin_read, begin_write


class Refusal(NamedTuple):
    """A frame that the destination refused permanently."""

    position: int
    what: str


class Destination(Protocol):
    """Accepts logs. Idempotent: frames that are sent again, after a crash or a lost response, are
    stored once."""

    def place(self, log: Log) -> Place | None:
        """Returns how far a log is stored; None: not at all. Saves work only. Raises PdpError."""

    def commit(self, log: Log, frames: Sequence[Frame]) -> Sequence[Refusal]:
        """Stores consecutive frames and the place after them, in one transaction.

        If some are refused, the place does not move: they are sent again, should the shipper stop
        before it sets their segment aside.

        Raises:
            PdpError: Nothing was stored; try again.
        """


class SqlDestination:
    """The database of this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def place(self, log: Log) -> Place | None:
        """See `Destination.place`. Raises DatabaseUnavailable."""
        with begin_read(self._engine) as connection:
            return read_place(connection, log)

    def commit(self, log: Log, frames: Sequence[Frame]) -> Sequence[Refusal]:
        """See `Destination.commit`. Raises DatabaseUnavailable."""
        records: list[Row] = []
        gaps: list[Row] = []
        counts = Counts(log)
        malformed: list[Refusal] = []
        for frame in frames:
            try:
                if frame.kind == KIND_RECORD:
                    records.append(record_row(frame, log))
                elif count := count_of(frame.payload):
                    counts.add(frame, count)
                else:
                    gaps.append(gap_row(frame, log))
            except MalformedRecordError as error:
                malformed.append(Refusal(frame.position, str(error)))

        def store(*, repeated: bool) -> Sequence[Refusal]:
            rollups = Rollups()
            with begin_write(self._engine) as connection:
                insert_counted(connection, records, rollups, repeated=repeated)
                insert_new(connection, audit_gaps, gaps)
                missing = counts.write(connection, rollups)
                refusals = [*malformed, *(Refusal(*problem) for problem in missing)]
                if not refusals:
                    put_place(connection, log, frames[-1].after)
                rollups.write(connection)
            return refusals

        try:
            return store(repeated=False)
        except RecordsRepeated:
            return store(repeated=True)


def read_place(connection: Connection, log: Log) -> Place | None:
    """Reads how far a log is stored in SQL."""
    table = audit_shipping.c
    statement = select(table.segment, table.byte_offset, table.position, table.digest).where(
        table.origin == log.origin, table.log_id == log.log_id
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else Place(row[0], row[1], row[2], bytes(row[3]))


def put_place(connection: Connection, log: Log, place: Place) -> None:
    """Stores how far a log is stored in SQL. It does not go back if frames are shipped again."""
    values = {
        "segment": place.sequence,
        "byte_offset": place.byte_offset,
        "position": place.position,
        "digest": place.digest,
    }
    statement = insert_into(connection, audit_shipping).values(
        origin=log.origin, log_id=log.log_id, **values
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["origin", "log_id"],
            set_=values,
            where=audit_shipping.c.position <= place.position,
        )
    )
