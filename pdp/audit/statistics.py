"""Counts decisions over time, for charts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Engine, Integer, cast, func, select

from pdp.audit.rows import filterable
from pdp.audit.tables import audit_gaps, audit_records
from pdp.database.engine import begin_read
from pdp.model import Effect, Reason

GROUPS_MAX: Final = 8
"""Values of a column that are counted, the most frequent first."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Decisions in a time. A folded denial counts as often as it occurred, at its first time."""

    start: float
    """Seconds since 1970-01-01 UTC."""
    step: float
    """Seconds."""
    allowed: Sequence[int]
    """allowed[i] were allowed from start + i * step on; only those that were recorded."""
    denied: Sequence[int]
    reasons: Sequence[tuple[str, int]]
    """Of denials, as those below: a value and its count, the most frequent first."""
    users: Sequence[tuple[str, int]]
    """Empty: no user is known."""
    permissions: Sequence[tuple[str, int]]
    callers: Sequence[tuple[str, int]]
    organizations: Sequence[tuple[str, int]]
    """Active organizations; empty: none was active."""
    dropped: int
    """Allows that were not recorded, as gaps of the log count them."""


class Statistics:
    """Counts in SQL. Queries are not counted."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def activity(
        self, start: float, step: float, steps: int, organization_id: str | None = None
    ) -> Activity:
        """Counts the decisions of `steps` times of `step` seconds each, from `start` on.

        Args:
            start: Seconds since 1970-01-01 UTC.
            step: Seconds.
            steps: How many.
            organization_id: Only decisions of this active organization; None: all.

        Raises:
            DatabaseUnavailable: The database does not answer in time.
        """
        column = audit_records.c
        end = start + steps * step
        where = [
            column.decided_at >= start,
            column.decided_at < end,
            column.reason != Reason.QUERY_ANSWERED.name,
        ]
        if organization_id is not None:
            where.append(column.organization_id == filterable(organization_id))
        counts = {effect.name: [0] * steps for effect in Effect}
        with begin_read(self._engine) as connection:
            number = _number(connection, (column.decided_at - start) / step)
            query = (
                select(number, column.effect, func.sum(column.occurrences))
                .where(*where)
                .group_by(number, column.effect)
            )
            for index, effect, count in connection.execute(query):
                if effect in counts and 0 <= index < steps:
                    counts[effect][index] += int(count)
            denied = (*where, column.effect == Effect.DENY.name)
            reasons, users, permissions, callers, organizations = (
                _groups(connection, group, denied)
                for group in (
                    column.reason,
                    column.user_id,
                    column.permission,
                    column.caller,
                    column.organization_id,
                )
            )
            gaps = audit_gaps.c
            dropped = connection.execute(
                select(func.sum(gaps.dropped)).where(
                    gaps.noticed_at >= start, gaps.noticed_at < end
                )
            ).scalar_one()
        allows, denials = counts[Effect.ALLOW.name], counts[Effect.DENY.name]
        return Activity(
            start,
            step,
            allows,
            denials,
            reasons,
            users,
            permissions,
            callers,
            organizations,
            int(dropped or 0),
        )


def _number(connection: Connection, quotient: ColumnElement[Any]) -> ColumnElement[int]:
    """A positive number without its fraction: casts round on PostgreSQL."""
    if connection.dialect.name == "postgresql":
        quotient = func.floor(quotient)
    return cast(quotient, Integer)


def _groups(
    connection: Connection, column: "Column[str]", where: Sequence[ColumnElement[bool]]
) -> list[tuple[str, int]]:
    count = func.sum(audit_records.c.occurrences)
    query = (
        select(column, count)
        .where(*where)
        .group_by(column)
        .order_by(count.desc(), column)
        .limit(GROUPS_MAX)
    )
    return [(value or "", int(number)) for value, number in connection.execute(query)]
