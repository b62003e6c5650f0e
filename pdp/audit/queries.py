"""Reads the decision log from SQL: what the shippers of all processes have brought there."""

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
FOLLOW_LOOK_MAX = 10_000
"""How many positions one question looks at: a filter that finds nothing must not read it all."""
REPORTERS_MAX = 100
"""How many records of one decision id are told."""


@dataclass(frozen=True, slots=True)
class DecisionFilter:
    """Every one that is set must hold. Identifiers compare byte for byte."""

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
    """What follows a cursor."""

    decisions: Sequence[tuple[DecisionRecord, Cursor]]
    """Each with the cursor behind it."""
    cursor: Cursor
    """Behind everything that was looked at, which the filter may have left out."""
    more: bool
    """Whether there is more to look at now."""


class DecisionLog:
    """The decision log. A decision is in it a moment after it was answered: see Shipper."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(
        self, where: DecisionFilter, after: str | None, limit: int
    ) -> "list[DecisionRecord]":  # quoted: inside the class, `list` is this method
        """Up to `limit` decisions, newest first by id, from behind `after` on, which `key` tells of
        the last one that was seen.

        Raises DatabaseUnavailable.
        """
        statement = (
            select(*_RECORD)
            .where(*_conditions(where))
            .order_by(audit_records.c.decision_id.desc())
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(audit_records.c.decision_id < filterable(after))
        with begin_read(self._engine) as connection:
            return [_record(*row) for row in connection.execute(statement)]

    def end(self) -> Cursor:
        """The cursor behind what is on the log now. Raises DatabaseUnavailable."""
        number_new(self._engine)
        with begin_read(self._engine) as connection:
            return end_of_order(connection)

    def follow(self, where: DecisionFilter, cursor: Cursor, limit: int) -> "Followed":
        """Up to `limit` decisions, from the cursor on, in the order in which they came into SQL.

        Raises InvalidRequest for a cursor of another history, DatabaseUnavailable.
        """
        number_new(self._engine)
        column = audit_records.c
        found: list[tuple[DecisionRecord, Cursor]] = []
        looked_at = 0
        with begin_read(self._engine) as connection:
            for part, first, end in _windows(ranges_from(connection, cursor, FOLLOW_RANGES_MAX)):
                if looked_at >= FOLLOW_LOOK_MAX:
                    return Followed(found, cursor, more=True)
                statement = (
                    select(*_RECORD, column.position)
                    .where(column.origin == part.origin, column.log_id == part.log_id)
                    .where(column.position >= first, column.position < end)
                    .where(*_conditions(where))
                    .order_by(column.position)
                    .limit(limit - len(found))
                )
                for *fields, position in connection.execute(statement):
                    cursor = part.at(position + 1)
                    found.append((_record(*fields), cursor))
                if len(found) == limit:
                    return Followed(found, cursor, more=True)
                looked_at += end - first
                cursor = part.at(end)
            more = end_of_order(connection).number > cursor.number
        return Followed(found, cursor, more=more)

    def key(self, record: DecisionRecord) -> str:
        """Where a record stands in the list."""
        return row_key(filterable(record.decision_id), record.reported_by)

    def get(self, decision_id: str) -> Sequence[DecisionRecord]:
        """What is on record under this id: the decision point's own first, then what callers have
        reported. Raises NotFound, DatabaseUnavailable."""
        key = filterable(decision_id)
        column = audit_records.c
        reported = (column.decision_id >= row_key(key, "")) & (
            column.decision_id < row_key(key, "\x7f")
        )
        statement = (
            select(*_RECORD)
            .where((column.decision_id == key) | reported)
            .order_by(column.decision_id)
            .limit(REPORTERS_MAX)
        )
        with begin_read(self._engine) as connection:
            found = [_record(*row) for row in connection.execute(statement)]
        if not found:
            raise NotFound("decision", decision_id)
        return found


_column = audit_records.c
_RECORD = (_column.record, _column.reported_by, _column.occurrences, _column.last_decided_at)


def _windows(ranges: Sequence[tuple[Range, int]]) -> Iterator[tuple[Range, int, int]]:
    """The ranges in parts of FOLLOW_LOOK_MAX positions at the most: first, and before end."""
    for part, start in ranges:
        for first in range(start, part.end, FOLLOW_LOOK_MAX):
            yield part, first, min(part.end, first + FOLLOW_LOOK_MAX)


def _record(
    payload: str, reported_by: str | None, occurrences: int, last_decided_at: float | None
) -> DecisionRecord:
    return replace(
        decode(payload),
        reported_by=reported_by,
        occurrences=occurrences,
        last_decided_at=last_decided_at,
    )


def _conditions(where: DecisionFilter) -> "list[ColumnElement[bool]]":
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
        one == filterable(text) for one, text in texts.items() if text is not None
    ]
    if where.not_before is not None:
        conditions.append(column.decided_at >= where.not_before)
    if where.before is not None:
        conditions.append(column.decided_at < where.before)
    return conditions
