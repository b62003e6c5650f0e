"""Reads the decision log from SQL, where the shippers of all processes write it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Engine, select

from pdp.audit.order import Cursor, Range, end_of_order, number_new, ranges_from
from pdp.audit.records import decode
from pdp.audit.rows import filterable, row_key
from pdp.audit.tables import audit_records
from pdp.database.engine import begin_read
from pdp.errors import NotFound
from pdp.model import DecisionRecord, Effect, Reason

FOLLOW_RANGES_MAX = 100
FOLLOW_POSITIONS_MAX = 10_000
"""Positions that one call reads: a filter without matches must not read the whole log."""
REPORTERS_MAX = 100
"""Records that are returned for one decision id."""


@dataclass(frozen=True, slots=True)
class DecisionFilter:
    """A record matches if every field that is set matches. Identifiers compare byte for byte."""

    user_id: str | None = None
    permission: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    effect: Effect | None = None
    reason: Reason | None = None
    organization_id: str | None = None
    """The actor's active organization."""
    caller: str | None = None
    reported_by: str | None = None
    not_before: float | None = None
    """Decided at or after; seconds since 1970-01-01 UTC."""
    before: float | None = None
    """Decided before."""


@dataclass(frozen=True, slots=True)
class Followed:
    """The records after a cursor."""

    decisions: Sequence[tuple[DecisionRecord, Cursor]]
    """Each with the cursor after it."""
    cursor: Cursor
    """The cursor after all records that were read, matching or not."""
    more: bool
    """Whether there are more records now."""


class DecisionLog:
    """The decision log. A decision appears shortly after its answer: see `Shipper`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(
        self, where: DecisionFilter, after: str | None, limit: int
    ) -> "list[DecisionRecord]":  # quoted: inside the class, `list` is this method
        """Lists decisions, newest first by id.

        Args:
            where: The filter.
            after: The `key` of the last decision of the page before; None: the first page.
            limit: The largest number of decisions.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        statement = (
            select(*RECORD_COLUMNS)
            .where(*conditions(where))
            .order_by(audit_records.c.decision_id.desc())
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(audit_records.c.decision_id < filterable(after))
        with begin_read(self._engine) as connection:
            return [record_of(*row) for row in connection.execute(statement)]

    def end(self) -> Cursor:
        """Returns the cursor at the end of the log. Raises DatabaseUnavailable."""
        number_new(self._engine)
        with begin_read(self._engine) as connection:
            return end_of_order(connection)

    def follow(self, where: DecisionFilter, cursor: Cursor, limit: int) -> "Followed":
        """Returns up to `limit` decisions after the cursor, in the order of their arrival in SQL.

        Raises:
            InvalidRequest: The cursor is not of this log.
            DatabaseUnavailable: The database does not answer.
        """
        number_new(self._engine)
        column = audit_records.c
        found: list[tuple[DecisionRecord, Cursor]] = []
        positions_read = 0
        with begin_read(self._engine) as connection:
            for part, first, end in _windows(ranges_from(connection, cursor, FOLLOW_RANGES_MAX)):
                if positions_read >= FOLLOW_POSITIONS_MAX:
                    return Followed(found, cursor, more=True)
                statement = (
                    select(*RECORD_COLUMNS, column.position)
                    .where(column.origin == part.origin, column.log_id == part.log_id)
                    .where(column.position >= first, column.position < end)
                    .where(*conditions(where))
                    .order_by(column.position)
                    .limit(limit - len(found))
                )
                for *fields, position in connection.execute(statement):
                    cursor = part.at(position + 1)
                    found.append((record_of(*fields), cursor))
                if len(found) == limit:
                    return Followed(found, cursor, more=True)
                positions_read += end - first
                cursor = part.at(end)
            more = end_of_order(connection).number > cursor.number
        return Followed(found, cursor, more=more)

    def key(self, record: DecisionRecord) -> str:
        """Returns the key of a record in `list`."""
        return row_key(filterable(record.decision_id), record.reported_by)

    def get(self, decision_id: str) -> Sequence[DecisionRecord]:
        """Returns the records with this id: first that of a decision point, then those that callers
        reported.

        Raises:
            NotFound: There is none.
            DatabaseUnavailable: The database does not answer.
        """
        key = filterable(decision_id)
        column = audit_records.c
        reported = (column.decision_id >= row_key(key, "")) & (
            column.decision_id < row_key(key, "\x7f")
        )
        statement = (
            select(*RECORD_COLUMNS)
            .where((column.decision_id == key) | reported)
            .order_by(column.decision_id)
            .limit(REPORTERS_MAX)
        )
        with begin_read(self._engine) as connection:
            found = [record_of(*row) for row in connection.execute(statement)]
        if not found:
            raise NotFound("decision", decision_id)
        return found


_column = audit_records.c
RECORD_COLUMNS = (_column.record, _column.reported_by, _column.occurrences, _column.last_decided_at)


def _windows(ranges: Sequence[tuple[Range, int]]) -> Iterator[tuple[Range, int, int]]:
    """Splits ranges into parts of at most FOLLOW_POSITIONS_MAX: range, first and end position."""
    for part, start in ranges:
        for first in range(start, part.end, FOLLOW_POSITIONS_MAX):
            yield part, first, min(part.end, first + FOLLOW_POSITIONS_MAX)


def record_of(
    payload: str, reported_by: str | None, occurrences: int, last_decided_at: float | None
) -> DecisionRecord:
    """Converts the values of RECORD_COLUMNS."""
    record = decode(payload)
    if reported_by is None and last_decided_at is None:
        return record
    return replace(
        record,
        reported_by=reported_by,
        occurrences=occurrences,
        last_decided_at=last_decided_at,
    )


def conditions(where: DecisionFilter) -> "list[ColumnElement[bool]]":
    """The conditions of a filter on the columns of the decision log."""
    column = audit_records.c
    texts: dict[ColumnElement[str], str | None] = {
        column.user_id: where.user_id,
        column.permission: where.permission,
        column.resource_type: where.resource_type,
        column.resource_id: where.resource_id,
        column.effect: None if where.effect is None else where.effect.name,
        column.reason: None if where.reason is None else where.reason.name,
        column.organization_id: where.organization_id,
        column.caller: where.caller,
        column.reported_by: where.reported_by,
    }
    conditions: list[ColumnElement[bool]] = [
        column_ == filterable(text) for column_, text in texts.items() if text is not None
    ]
    if where.not_before is not None:
        conditions.append(column.decided_at >= where.not_before)
    if where.before is not None:
        conditions.append(column.decided_at < where.before)
    return conditions
