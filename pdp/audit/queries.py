"""Reads the decision log from SQL: what the shippers of all processes have brought there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Engine, select

from pdp.audit.records import decode
from pdp.audit.rows import filterable, row_key
from pdp.audit.tables import audit_records
from pdp.errors import NotFound
from pdp.model import DecisionRecord, Effect, Reason
from pdp.sql import begin_read

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
