"""Reads how many decisions there were over time, for charts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Engine, func, select

from pdp.audit.rollups import EFFECT, HOUR, MINUTE
from pdp.audit.rows import filterable
from pdp.audit.tables import audit_gaps, audit_rollups
from pdp.database.engine import begin_read
from pdp.model import Effect

GROUPS_MAX: Final = 8
"""Values of a dimension that are read, the most frequent first."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Decisions in a time. Queries are not among them."""

    start: int
    """Seconds since 1970-01-01 UTC."""
    step: int
    """Seconds."""
    allowed: Sequence[int]
    """allowed[i] were allowed from start + i * step on; only those that were recorded."""
    denied: Sequence[int]
    reasons: Sequence[tuple[str, int]]
    """Of denials, as those below: a value and its count, the most frequent first."""
    permissions: Sequence[tuple[str, int]]
    callers: Sequence[tuple[str, int]]
    organizations: Sequence[tuple[str, int]]
    """Active organizations; empty: none was active."""
    dropped: int
    """Allows that were not recorded, as gaps of the log count them."""


class Statistics:
    """Reads the roll-ups in SQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def activity(self, start: int, step: int, steps: int) -> Activity:
        """Returns the decisions of `steps` times of `step` seconds each, from `start` on.

        Args:
            start: Seconds since 1970-01-01 UTC, whole minutes; whole hours if `step` is.
            step: Whole minutes, in seconds.
            steps: How many.

        Raises:
            DatabaseUnavailable: The database does not answer in time.
        """
        unit = MINUTE if step % HOUR else HOUR
        if start % unit or step % MINUTE:
            raise ValueError("start and step must be whole minutes or hours")
        end = start + steps * step
        counts = {effect.name: [0] * steps for effect in Effect}
        table = audit_rollups.c
        gaps = audit_gaps.c
        with begin_read(self._engine) as connection:
            query = select(table.start, table.value, table.decisions).where(
                table.step == unit,
                table.dimension == EFFECT,
                table.start >= start,
                table.start < end,
            )
            for at, effect, count in connection.execute(query):
                if effect in counts:
                    counts[effect][(at - start) // step] += count
            reasons, permissions, callers, organizations = (
                _groups(connection, dimension, unit, start, end)
                for dimension in ("reason", "permission", "caller", "organization")
            )
            dropped = connection.execute(
                select(func.sum(gaps.dropped)).where(
                    gaps.noticed_at >= start, gaps.noticed_at < end
                )
            ).scalar_one()
        return Activity(
            start,
            step,
            counts[Effect.ALLOW.name],
            counts[Effect.DENY.name],
            reasons,
            permissions,
            callers,
            organizations,
            int(dropped or 0),
        )

    def denials_of(self, organization_id: str, start: int, step: int, steps: int) -> Sequence[int]:
        """Returns the denials of actors who acted in an organization. Args and Raises: As
        `activity`."""
        table = audit_rollups.c
        counts = [0] * steps
        query = select(table.start, table.decisions).where(
            table.step == (MINUTE if step % HOUR else HOUR),
            table.dimension == "organization",
            table.value == filterable(organization_id),
            table.start >= start,
            table.start < start + steps * step,
        )
        with begin_read(self._engine) as connection:
            for at, count in connection.execute(query):
                counts[(at - start) // step] += count
        return counts


def _groups(
    connection: Connection, dimension: str, unit: int, start: int, end: int
) -> list[tuple[str, int]]:
    table = audit_rollups.c
    count = func.sum(table.decisions)
    query = (
        select(table.value, count)
        .where(
            table.step == unit,
            table.dimension == dimension,
            table.start >= start,
            table.start < end,
        )
        .group_by(table.value)
        .order_by(count.desc(), table.value)
        .limit(GROUPS_MAX)
    )
    return [(value, int(number)) for value, number in connection.execute(query)]
